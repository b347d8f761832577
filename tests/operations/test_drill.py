"""Verifications and drills of recovery points: what they find, what is on record, and what is left: nothing."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.operations.backups import Backups
from tests.support.installation import Installation, Json, installed, until
from tests.support.people import People
from tests.support.postgres import Postgres
from tests.support.restic import run_restic

from snapkeep.backup.reader import RecoveryPoint
from snapkeep.cli.coverage import UNCOVERED
from snapkeep.model.errors import Conflict, Damaged, LimitExceeded, NotFound, PermissionDenied, SnapkeepError
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

WAITS = """#!/bin/sh
echo "$SNAPKEEP_BACKUP $(ls -A "$1" | wc -l) $(stat -c %a "$1/..")" >> {notes}
while [ ! -e {release} ]; do sleep 0.05; done
exit $(cat {release})
"""


class Drilled:
    """An installation whose programs wait until they are let go."""

    def __init__(self, installation: Installation, backups: Backups, programs: Path) -> None:
        self.installation = installation
        self.backups = backups
        self.notes, self.release = programs.with_name("notes"), programs.with_name("release")
        (programs / "waits").write_text(WAITS.format(notes=self.notes, release=self.release))
        (programs / "waits").chmod(0o755)

    @property
    def scratch(self) -> list[str]:
        """What is left of drills."""
        top = self.installation.server.data_dir / "drills"
        return [str(path) for path in top.rglob("*") if path.parent != top]

    def seen(self) -> list[list[str]]:
        """What the program has seen: recovery point, number of objects, rights of the scratch directory."""
        return [line.split() for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def ask(self, what: str, backup: Json, **body: Any) -> Json:
        return self.installation.ask("POST", f"/backups/{backup['id']}/{what}", body)

    def run(self, what: str, backup: Json, **body: Any) -> Json:
        """Return the result. Raises what it failed with."""
        return dict(self.installation.wait(self.ask(what, backup, **body), 60)["result"])

    def records(self, **params: Any) -> list[Json]:
        return list(self.installation.rest.pages("/drills", **params))

    def coverage(self) -> Json:
        rows = {row["asset"]: row for row in self.installation.rest.pages("/coverage")}
        return dict(rows["files1/projects"])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp("drills")
    (root / "programs").mkdir()
    env = {"SNAPKEEP_PROGRAMS": str(root / "programs")}
    if request.param == "postgresql":
        env["SNAPKEEP_DATABASE_URL"] = request.getfixturevalue("postgres").create_database()
    with installed(root, **env) as installation:
        yield installation


@pytest.fixture
def drilled(own: Installation, tmp_path: Path) -> Iterator[Drilled]:
    own.reset()
    backups = Backups(own, tmp_path / "repository")
    backups.fill()
    made = Drilled(own, backups, own.server.data_dir.parent / "programs")
    for file in (made.notes, made.release):
        file.unlink(missing_ok=True)
    yield made
    made.release.write_text("0")
    for policy in own.rest.request("GET", "/policies")["data"]:
        own.rest.request("DELETE", f"/policies/{policy['name']}")


def damage(backups: Backups, backup: Json, path: bytes) -> None:
    """Change a byte of a file's content in the repository."""
    repository = Repository.open(LocalBackend(Path(backups.location)), "secret")
    point = RecoveryPoint(repository, repository.snapshot(backup["restic_id"]))
    content = point.node(b"files1/projects/" + path).content or []
    place = repository.locations(BlobType.DATA, bytes.fromhex(content[0]))[0]
    repository.close()
    name = place.pack.hex()
    pack = Path(backups.location) / "data" / name[:2] / name
    data = bytearray(pack.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)


def test_what_is_sound_is_proved(drilled: Drilled) -> None:
    assert drilled.coverage()["proved_at"] is None
    backup = drilled.backups.make()
    sample = drilled.run("verify", backup)
    assert (sample["passed"], sample["whole"]) == (True, False)
    assert drilled.coverage()["proved_at"] is None, "a sample that was read is no proof"
    some = drilled.run("drill", backup, files=7)
    assert (some["files"], some["passed"], some["cleaned"], some["whole"]) == (7, True, True, False)
    first = drilled.coverage()["proved_at"]
    assert first is not None
    everything = drilled.run("drill", backup, files="all")
    assert (everything["files"], everything["whole"]) == (42, True)
    whole = drilled.run("verify", backup, data="all")
    assert (whole["files"], whole["bytes"]) == (42, everything["bytes"])
    assert drilled.scratch == []
    asset = drilled.installation.asset()["id"]
    records = drilled.records(asset_id=asset, limit=3)
    assert [(one["kind"], one["whole"], one["passed"]) for one in records] == [
        ("verify", True, True), ("drill", True, True), ("drill", False, True), ("verify", False, True),
    ]  # fmt: skip
    assert {one["backup_id"] for one in records} == {backup["id"]}
    assert drilled.coverage()["proved_at"] == records[0]["at"] > first
    assert drilled.records(asset_id="another") == []
    assert drilled.records(passed=False, asset_id=asset) == []
    (drilled.installation.live() / "empty").unlink()
    large = drilled.backups.make()
    with pytest.raises(LimitExceeded):
        drilled.run("drill", large, bytes=1)
    assert drilled.scratch == []
    assert len(drilled.records(asset_id=asset)) == 4, "a drill for which nothing fits has no verdict"


def test_what_is_damaged_is_found(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    drilled.run("drill", backup, files=1)
    damage(drilled.backups, backup, b"d3/file-3")
    for what, body in (("verify", {"data": "all"}), ("drill", {"files": "all"}), ("drill", {"files": 100})):
        with pytest.raises(Damaged, match="d3/file-3") as caught:
            drilled.run(what, backup, **body)
        assert f"snapkeep repository check {drilled.backups.name} --data all" in caught.value.next_step
        assert drilled.scratch == []
    failed = drilled.records(passed=False)[:3]
    assert all("d3/file-3" in one["reason"] for one in failed)
    told = drilled.coverage()
    assert told["failed_at"] == failed[0]["at"] > told["proved_at"]
    assert "d3/file-3" in told["failed"]
    cli = drilled.installation.cli
    ran = cli("backup", "verify", backup["id"][:8], "--data", "all")
    assert ran.code == Damaged.exit_code, ran
    assert "d3/file-3" in cli("backup", "drills", "files1/projects", "--failed").out
    policy = f"""
name: p
assets: [{{system: files1, name: projects}}]
prove_every: 30d
steps:
  - {{name: weekly, do: drill, schedule: "0 3 * * 0", repository: {drilled.backups.name}}}
  - {{name: yearly, do: snapshot, schedule: "0 3 1 1 *", keep: {{last: 1}}}}
"""
    drilled.installation.rest.request("PUT", "/policies/p", json={"text": policy})
    assert drilled.coverage()["state"] == "unproved"
    shown = cli("coverage", "--problems")
    assert (shown.code, "unproved" in shown.out) == (UNCOVERED, True)
    drilled.installation.live().joinpath("d3/file-3").write_text("another")
    assert cli("backup", "drill", "files1/projects", "--files", "all", "-r", drilled.backups.name).code
    good = drilled.backups.make(full=True)
    ran = cli("backup", "drill", good["id"], "--files", "all")
    assert (ran.code, "can be restored: 42 files" in ran.out) == (0, True), ran
    assert drilled.coverage()["state"] == "ok"


def test_a_point_that_somebody_else_has_removed(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    run_restic(drilled.backups.location, "forget", backup["restic_id"])
    for what in ("verify", "drill"):
        with pytest.raises(Damaged):
            drilled.run(what, backup)
    assert [one["passed"] for one in drilled.records()[:2]] == [False, False]


def test_a_program_judges(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    drilled.release.write_text("0")
    assert drilled.run("drill", backup, files="all", check="waits")["passed"]
    assert drilled.seen() == [[backup["id"], str(len(list(drilled.installation.live().iterdir()))), "700"]]
    drilled.release.write_text("7")
    with pytest.raises(Damaged, match="waits failed with code 7"):
        drilled.run("drill", backup, check="waits")
    assert not drilled.records()[0]["passed"]
    before = len(drilled.records())
    with pytest.raises(NotFound):
        drilled.run("drill", backup, check="absent")
    assert len(drilled.records()) == before, "that there is no program says nothing of the recovery point"
    assert drilled.scratch == []


def test_a_cancel_leaves_nothing(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    before = len(drilled.records())
    operation = drilled.ask("drill", backup, check="waits")
    until(drilled.seen, 30)
    assert drilled.scratch
    drilled.installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    until(lambda: drilled.installation.operation(operation)["ended_at"], 30)
    assert drilled.installation.operation(operation)["state"] == "cancelled"
    assert drilled.scratch == []
    assert len(drilled.records()) == before


def test_what_is_forgotten_meanwhile_is_no_failed_proof(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    drilled.backups.make()
    before = len(drilled.records())
    operation = drilled.ask("drill", backup, check="waits")
    until(drilled.seen, 30)
    drilled.installation.rest.request("DELETE", f"/backups/{backup['id']}")
    drilled.release.write_text("1")
    with pytest.raises(Conflict, match="was forgotten meanwhile"):
        drilled.installation.wait(operation)
    assert len(drilled.records()) == before
    assert drilled.scratch == []


def test_a_locked_repository_is_waited_for(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    repository = Repository.open(LocalBackend(Path(drilled.backups.location)), "secret")
    with repository.locked(exclusive=True):
        asked = [drilled.ask(what, backup) for what in ("verify", "drill")]
        phase = "the repository is locked; waiting for its end"
        until(lambda: {drilled.installation.operation(one)["phase"] for one in asked} == {phase}, 30)
    repository.close()
    assert all(drilled.installation.wait(one)["result"]["passed"] for one in asked)


def test_a_policy_drills_across_a_kill(drilled: Drilled) -> None:
    """Which point it is was decided before; what was restored before is gone; what it is told of is that it passed."""
    backups, installation = drilled.backups, drilled.installation
    points = [backups.make() for _ in range(4)]
    policy = f"""
name: p
assets: [{{system: files1, name: projects}}]
steps:
  - {{name: drill, do: drill, schedule: "* * * * *", repository: {backups.name}, files: all, check: waits}}
  - {{name: verify, do: verify, schedule: "* * * * *", repository: {backups.name}, data: all}}
  - {{name: diff, do: diff, schedule: "* * * * *"}}
"""
    installation.snapshot()
    installation.rest.request("PUT", "/policies/p", json={"text": policy})
    until(drilled.seen, 120)
    (first,) = drilled.seen()
    (place,) = (installation.server.data_dir / "drills").glob("*/*")
    (place / "files" / "left").write_text("behind")
    strange = place.with_name(str(uuid.uuid4()))
    (strange / "deep" / "er").mkdir(parents=True)
    (strange / "deep" / os.fsdecode(b"\xff")).write_text("x")
    installation.server.end(signal.SIGKILL)
    assert strange.exists()
    installation.server.start()
    until(lambda: len(drilled.seen()) > 1, 60)
    installation.rest.request("POST", "/policies/p/disable")
    assert not strange.exists()
    assert drilled.seen()[1] == first, "the same recovery point, and nothing of the first try"
    assert first[0] in {point["id"] for point in points}
    drilled.release.write_text("0")
    operation = installation.rest.request("GET", f"/operations/{place.name}")
    assert (operation["requester"], operation["kind"]) == ("policy:p", "drill")
    assert installation.wait(operation)["result"]["backup_id"] == first[0]
    until(lambda: not drilled.scratch, 10)
    (record,) = [one for one in drilled.records() if one["operation_id"] == place.name]
    assert (record["passed"], record["backup_id"]) == (True, first[0])

    def ended(kind: str) -> list[Json]:
        query = {"requester": "policy:p", "kind": kind, "state": "succeeded"}
        return list(installation.rest.request("GET", "/operations", params=query)["data"])

    assert {one["result"]["backup_id"] for one in ended("verify")} == {points[-1]["id"]}, "the newest"
    (diff,) = ended("diff")  # the second run has nothing to do
    assert diff["result"]["change_list"] == diff["id"]


def test_who_may(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    people = People(drilled.installation)
    try:
        operator, restorer = people.someone("operator"), people.someone("restorer")
        verify, drill = f"/backups/{backup['id']}/verify", f"/backups/{backup['id']}/drill"
        assert operator.request("POST", verify, json={})["kind"] == "verify"
        assert restorer.request("POST", drill, json={})["kind"] == "drill"
        refused: list[tuple[Any, str, Json]] = [
            (operator, drill, {}), (restorer, verify, {}), (restorer, drill, {"check": "waits"}),
        ]  # fmt: skip
        for rest, path, body in refused:
            with pytest.raises(PermissionDenied):
                rest.request("POST", path, json=body)
        drilled.installation.rest.request("PUT", "/roles/planner", json={"actions": ["policy.read", "policy.change"]})
        planner = people.someone("planner")
        text = (
            "name: p\nassets: [{}]\nsteps:\n"
            f"  - {{name: d, do: drill, schedule: 0 3 * * 0, repository: {drilled.backups.name}"
        )
        with pytest.raises(PermissionDenied, match=r"program\.run"):
            planner.request("PUT", "/policies/p", json={"text": f"{text}, check: waits}}\n"})
        assert planner.request("PUT", "/policies/p", json={"text": f"{text}}}\n"})["name"] == "p"
    finally:
        people.close()


def test_again(drilled: Drilled) -> None:
    backup = drilled.backups.make()
    drilled.release.write_text("3")
    operation = drilled.ask("drill", backup, files=3, check="waits")
    with pytest.raises(SnapkeepError):
        drilled.installation.wait(operation)
    drilled.release.write_text("0")
    again = drilled.installation.run("POST", f"/operations/{operation['id']}/retry")
    assert (again["result"]["backup_id"], again["result"]["files"]) == (backup["id"], 3)
    assert len(drilled.seen()) == 2, "with its program"


def test_on_postgresql_a_worker_has_its_own(postgres: Postgres, tmp_path: Path) -> None:
    """Two workers on one machine do not remove each other's."""
    url = postgres.create_database()
    (tmp_path / "programs").mkdir()
    env = {"SNAPKEEP_DATABASE_URL": url, "SNAPKEEP_PROGRAMS": str(tmp_path / "programs")}
    with installed(tmp_path, 1, **env) as installation:
        installation.reset()
        backups = Backups(installation, tmp_path / "repository")
        backups.fill(3)
        drilled = Drilled(installation, backups, tmp_path / "programs")
        operation = drilled.ask("drill", backups.make(), check="waits")
        until(drilled.seen, 30)
        installation.add_worker("w2")
        assert [Path(path).parent.name for path in drilled.scratch if Path(path).name == operation["id"]] == ["w1"]
        drilled.release.write_text("0")
        assert installation.wait(operation)["result"]["passed"]
        assert drilled.scratch == []
