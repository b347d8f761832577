"""The kernel's NFS, both ends: what the plug-in exports by the real exportfs(8) is mounted as a backup mounts it.

All of it happens once, in a guest (`in_guest.py`); each test judges a part of what was seen there.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tests.nfs.guest import run_in_guest
from tests.nfs.in_guest import LISTED, NAMES

REFUSED = "access denied by server"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_in_guest(tmp_path_factory.mktemp("guest"), "tests.nfs.in_guest")


def test_all_of_it_was_tried(seen: dict[str, Any]) -> None:
    assert {name: text for name, text in seen.items() if name.startswith("failed")} == {}


def test_the_exportfs_that_is_played_says_what_the_real_one_says(seen: dict[str, Any]) -> None:
    assert seen["played"] == []
    assert seen["calls"] > 15


def test_who_is_listed_reads_the_right_snapshot(seen: dict[str, Any]) -> None:
    assert seen["read"] == ["first", "second"]
    assert seen["mounted"] is True
    assert seen["left"] == []
    assert seen["still listed"] == seen["listed beside"] == "done"


def test_who_is_not_listed_is_refused(seen: dict[str, Any]) -> None:
    assert REFUSED in seen["not listed"]
    assert REFUSED in seen["not listed any more"]


def test_nobody_writes_however_it_is_mounted(seen: dict[str, Any]) -> None:
    assert seen["write on a read-only mount"] == errno.EROFS
    assert seen["write on a writable mount"] == errno.EROFS


def test_deport_closes_at_once(seen: dict[str, Any]) -> None:
    """Also for who has it mounted; and the server lets the snapshot go, so that it can be deleted."""
    assert seen["before and after deport"] == [0, errno.ESTALE]
    assert seen["after deport"].startswith("unavailable: ")
    assert seen["open after deport"] == [LISTED]


def test_paths_of_any_bytes_are_read_or_refused_before_anything_is_open(seen: dict[str, Any]) -> None:
    refused = {"octal", "raw"}
    assert {name: text for name, text in seen["names"].items() if name not in refused} == {
        name: name for name in NAMES if name not in refused
    }
    assert all(seen["names"][name].startswith("unsupported: ") for name in refused)
    assert seen["open before and after names"] == [1, 1]


def test_the_mounted_directory_is_that_of_the_snapshot(seen: dict[str, Any]) -> None:
    assert "is not the directory of the snapshot" in seen["another snapshot"]
    assert "is not the directory of the snapshot" in seen["a file"]
    assert seen["no snapshot"].startswith("not_found: ")
    assert seen["outside"].startswith("unsupported: ")


def test_a_share_that_shows_itself_is_written_only_when_it_is_asked_for(seen: dict[str, Any]) -> None:
    assert seen["snapshot of a share"] == ["then", errno.EROFS]
    assert seen["live"] == ["live", "restored"]
    assert seen["live of a read-only export"].startswith("unsupported: ")


def test_what_was_left_over_is_unmounted(seen: dict[str, Any]) -> None:
    assert seen["over a leftover"] == 1
    assert seen["leftovers"] == []
    assert seen["while it was read"] == [False, False, "second"]


def test_a_restart_of_the_server_closes_everything(seen: dict[str, Any]) -> None:
    assert seen["opened before and after restart"] == [2, 0]
    assert REFUSED in seen["after restart"]
    assert seen["exported again"] == "done"


def test_a_server_that_is_gone_keeps_nobody(seen: dict[str, Any]) -> None:
    assert seen["server gone"] == [False, False]
