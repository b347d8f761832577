"""Backups and restores on days when two things happen at once, or the same thing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from tests.operations.backups import PASSWORD, Backups
from tests.support.installation import Installation, Json, installed, until

from snapkeep.model.errors import Conflict, Unavailable
from snapkeep.model.exports import AccessMode, Export, Location, Protocol
from snapkeep.operations import mounts
from snapkeep.operations.host import Host


@pytest.fixture
def backups(installation: Installation, tmp_path: Path) -> Backups:
    made = Backups(installation, tmp_path / "repository")
    made.fill(5)
    return made


def precious(target: Path) -> Path:
    """Return a file of somebody's in a target of a restore, with a name that the share has, too."""
    target.mkdir()
    (target / "empty").write_text("precious")
    return target / "empty"


def test_a_retry_of_a_restore_replaces_nothing_unasked(backups: Backups, tmp_path: Path) -> None:
    backup = backups.make()
    kept = precious(tmp_path / "target")
    body = {"target": str(kept.parent)}
    refused = backups.installation.ask("POST", f"/backups/{backup['id']}/restore", body)
    with pytest.raises(Conflict, match="not empty"):
        backups.installation.wait(refused)
    again = backups.installation.ask("POST", f"/operations/{refused['id']}/retry")
    with pytest.raises(Conflict, match="not empty"):
        backups.installation.wait(again)
    assert kept.read_text() == "precious"


def test_a_restore_that_is_run_again_replaces_nothing_unasked(tmp_path: Path) -> None:
    """The first run died before it looked at the target."""
    with installed(tmp_path / "installation") as installation:
        installation.reset()
        backups = Backups(installation, tmp_path / "repository")
        backups.fill(5)
        backup = backups.make()
        kept = precious(tmp_path / "target")
        for _ in range(10):
            asked = installation.ask("POST", f"/backups/{backup['id']}/restore", {"target": str(kept.parent)})
            until(partial(has_begun, installation, asked), 10)
            installation.server.end(signal.SIGKILL)
            installation.server.start()
            with pytest.raises(Conflict, match="not empty"):
                installation.wait(asked)
            assert kept.read_text() == "precious"
            if installation.operation(asked)["attempt"] > 2:  # two steps, where nothing dies
                break
        else:
            pytest.fail("none was killed while it ran")


def has_begun(installation: Installation, asked: Json) -> bool:
    """Say whether it restores, or has ended already."""
    now = installation.operation(asked)
    return now["ended_at"] is not None or now["phase"] in {"restoring", "opening the repository"}


def test_asked_for_in_the_same_moment_it_is_made_once(backups: Backups) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [future.result() for future in [threads.submit(backups.ask) for _ in range(8)]]
    for operation in asked:
        backups.installation.wait(operation, 60)
    assert len({operation["id"] for operation in asked}) == 1
    assert len(backups.known()) == len(backups.left()) == 1


# -- what the last backup leaves to the next ---------------------------------------------------------------------------
def in_the_catalog(installation: Installation, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(installation.server.data_dir / "catalog.sqlite", timeout=30)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def test_after_a_wrong_recovery_point_all_is_read(backups: Backups) -> None:
    """What was not noticed once would be linked for ever."""
    first = backups.make()
    found = json.dumps({**first["verification"], "differing": 1})
    in_the_catalog(backups.installation, "UPDATE backups SET verification = ? WHERE id = ?", found, first["id"])
    second = backups.make()
    assert (second["mode"], second["counts"]["files_unmodified"]) == ("full", 0)
    assert "differ" in second["reason"]
    assert backups.make()["mode"] == "incremental"


def test_a_clock_that_was_set_back_costs_time_only(backups: Backups) -> None:
    first = backups.make()
    later = "UPDATE snapshots SET created_at = '2099-01-01 00:00:00.000000' WHERE name = ?"
    in_the_catalog(backups.installation, later, first["snapshot"])
    second = backups.make()
    assert second["mode"] == "full"
    assert "is newer than" in second["reason"]


def test_a_base_that_could_not_be_deleted_goes_with_the_next(backups: Backups) -> None:
    installation = backups.installation
    first = backups.make()
    installation.fault("status", method="DELETE", status=500, times=None)
    second = installation.wait(backups.ask(), 60)["result"]
    installation.simulator.control("DELETE", "/faults")
    assert "stays" in second["left"][0]
    assert first["snapshot"] in backups.left()
    third = backups.make()
    assert backups.left() == [third["snapshot"]]


def test_a_repository_has_one_name(backups: Backups) -> None:
    body = {"name": "other", "location": f"file://{backups.location}", "password": PASSWORD, "create": False}
    with pytest.raises(Conflict, match="known already"):
        backups.installation.rest.request("POST", "/repositories", json=body)


# -- mounts ------------------------------------------------------------------------------------------------------------
def program(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


async def mount(host: Host) -> None:
    location = Location(protocol=Protocol.NFS, path="snap", source="files1:/projects")
    export = Export(
        snapshot_id="1", asset_id="1", host=host.backup_host, mode=AccessMode.READ_ONLY, locations=(location,)
    )
    async with mounts.mounted(export, "snap", host, "label"):
        pass


def test_a_mount_that_hangs_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a mount point nor a helper that mounts later on."""
    program(tmp_path / "bin", "mount", f"(sleep 2; touch {tmp_path}/mounted) & wait")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(mounts, "MOUNT_SECONDS", 0.5)
    host = Host(directory=tmp_path / "data")
    with pytest.raises(Unavailable, match="did not end"):
        asyncio.run(mount(host))
    assert list(host.mounts.iterdir()) == []
    time.sleep(2)
    assert not (tmp_path / "mounted").exists()


def test_a_mount_below_a_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    assert mounts._is_mounted(tmp_path / "link" / "proc")
    assert not mounts._is_mounted(tmp_path / "link")
