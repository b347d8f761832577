"""Backups and restores on days when two things happen at once, or the same thing twice."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.operations.backups import Backups
from tests.support.installation import Installation, installed, until

from snapkeep.model.errors import Conflict


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
        asked = installation.ask("POST", f"/backups/{backup['id']}/restore", {"target": str(kept.parent)})
        until(lambda: installation.operation(asked)["phase"] in {"restoring", "opening the repository"}, 10)
        installation.server.end(signal.SIGKILL)
        installation.server.start()
        with pytest.raises(Conflict, match="not empty"):
            installation.wait(asked)
        assert kept.read_text() == "precious"


def test_asked_for_in_the_same_moment_it_is_made_once(backups: Backups) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [future.result() for future in [threads.submit(backups.ask) for _ in range(8)]]
    for operation in asked:
        backups.installation.wait(operation, 60)
    assert len({operation["id"] for operation in asked}) == 1
    assert len(backups.known()) == len(backups.left()) == 1
