"""LVM on a real device-mapper, with the real programs: all of it happens once, in a guest (`in_guest.py`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.nfs.guest import run_in_guest

COPIES = Path(__file__).parents[2] / ".lvm"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not any((COPIES / place / "lvm").exists() for place in ("sbin", "usr/sbin")):
        reason = "This test did not run: the programs of LVM are missing. Get them with scripts/lvm"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return run_in_guest(tmp_path_factory.mktemp("guest"), "tests.linux_host.in_guest")


def test_all_of_it_was_tried(seen: dict[str, Any]) -> None:
    assert seen.get("failed") is None


def test_a_snapshot_has_what_was_written_last_and_is_read_without_a_write(seen: dict[str, Any]) -> None:
    assert seen["read"] == "old"
    (options,) = seen["mounted"]
    assert {"ro", "nosuid", "nodev", "noexec", "norecovery"} <= set(options.split(","))
    mounted, attributes = seen["mounted after the deport"]
    assert (mounted, attributes[4]) == ([], "-"), "unmounted, and not active"


def test_a_restore_exchanges_and_loses_nothing(seen: dict[str, Any]) -> None:
    assert seen["refusals while mounted"] == ["diff-files", "restore"]
    assert seen["restore while mounted"].startswith("unsupported")
    assert seen["refusals"] == ["diff-files"]
    assert (seen["restored"], seen["beside"]) == ("old", "new")
    assert seen["active after the restore"] == ["data"], "both have the UUID of the file system"
    assert seen["snapshots"] == seen["snapshots after the restore"] == ["NB1", "before the upgrade"]


def test_a_clone_is_a_volume(seen: dict[str, Any]) -> None:
    assert seen["clone"] == "new"
    assert seen["clone can"] == ["clone", "create", "delete", "export", "restore"]


def test_what_is_deleted_is_shown_nowhere(seen: dict[str, Any]) -> None:
    assert seen["left"] == [[], ["before the upgrade"]]


def test_what_is_in_use_is_not_deleted(seen: dict[str, Any]) -> None:
    assert seen["delete in use"].startswith("busy")
