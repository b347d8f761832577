"""The ends of a backup: what was written and not recorded, whose turn it is, what a forgotten repository leaves."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.operations.backups import Backups
from tests.support.installation import Installation, until

from snapkeep.backup.request import BackupRequest
from snapkeep.catalog.records import RepositoryRecord
from snapkeep.model.errors import AuthenticationFailed, InvalidInput
from snapkeep.operations.dispatch import MOVERS
from snapkeep.operations.host import Host
from snapkeep.operations.kinds.base import Mover
from snapkeep.operations.kinds.writing import Job, Pace, Plan, forget
from snapkeep.operations.repositories import PASSWORD, Access, make_or_open
from snapkeep.operations.runner import HANDLERS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def way(tmp_path: Path) -> Access:
    location = str(tmp_path / "repository")
    restic_id = make_or_open(location, {PASSWORD: "secret"}, create=True)
    record = RepositoryRecord(id="r", name="r", location=location, restic_id=restic_id, queue="default", created_at=NOW)
    return Access(record, Host(directory=tmp_path / "host"), lambda: {PASSWORD: "secret"})


def written(way: Access, source: Path, operation_id: str, *, again: bool) -> str:
    """Write a recovery point as an operation does; return its id."""
    request = BackupRequest(
        source=source,
        logical_path="/files1/projects",
        snapshot="s",
        host="files1",
        time=NOW,
        tags=("snapkeep", f"operation={operation_id}"),
    )
    job = Job(way, request, Plan(None, None, None), Pace(None), tuple, operation_id, again, readers=2, seed=1)
    return job.run(lambda: None).result.snapshot_id


def held(way: Access) -> set[str]:
    with way.open() as repository:
        return {snapshot.id for snapshot in repository.snapshots()}


def test_what_an_earlier_run_wrote_is_found_and_can_be_taken_back(way: Access, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    other = written(way, source, "other", again=False)
    first = written(way, source, "mine", again=False)
    (source / "file").write_text("what a second walk would find")
    assert written(way, source, "mine", again=True) == first
    assert held(way) == {other, first}
    forget(way, "mine")
    forget(way, "mine")
    assert held(way) == {other}


def test_a_repository_is_probed(way: Access) -> None:
    way.probe()
    with pytest.raises(AuthenticationFailed):
        Access(way.record, way.host, lambda: {PASSWORD: "wrong"}).probe()


def test_backups_of_one_asset_into_one_repository_take_turns() -> None:
    def key(asset: int, repository: int) -> str | None:
        ids = [str(uuid.UUID(int=number)) for number in (asset, repository)]
        return HANDLERS["backup"].turn_key({"asset_id": ids[0], "repository_id": ids[1]})

    assert key(1, 2) == key(1, 2)
    assert len({key(1, 2), key(1, 3), key(2, 2)}) == 3


def test_what_moves_data_has_a_lane_of_its_own() -> None:
    assert {kind for kind, handler in HANDLERS.items() if isinstance(handler, Mover)} == MOVERS


def test_a_forgotten_repository_lets_its_bases_go(installation: Installation, tmp_path: Path) -> None:
    backups = Backups(installation, tmp_path / "repository")
    backups.fill(5)
    base = backups.make()["snapshot"]
    assert base in backups.left()
    installation.rest.request("DELETE", f"/repositories/{backups.name}", params={"force": True})
    until(lambda: base not in [item["name"] for item in installation.vendor_snapshots()], 20)


@pytest.mark.parametrize("target", ["relative", "", "/a\0b", "/" + 4095 * "x"])
def test_a_target_that_is_no_path(installation: Installation, tmp_path: Path, target: str) -> None:
    backups = Backups(installation, tmp_path / "repository")
    backups.fill(5)
    path = f"/backups/{backups.make()['id']}/restore"
    with pytest.raises(InvalidInput):
        installation.rest.request("POST", path, json={"target": target})
