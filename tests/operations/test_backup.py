"""The operation `backup`: what it makes, what it falls back to, how it fails, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.backup.support import assert_equal
from tests.operations.backups import PASSWORD, Backups
from tests.support.installation import Installation, Json, installed, until
from tests.support.postgres import Postgres
from tests.support.restic import run_restic
from tests.support.s3 import S3Server

from snapkeep.model.errors import InvalidInput, SnapkeepError
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.repository import Repository

COMPUTE = "/$actions/compute-snapshot-change"


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """restic writes times in the zone of the machine, we in UTC."""
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def backups(installation: Installation, tmp_path: Path) -> Backups:
    made = Backups(installation, tmp_path / "repository")
    made.fill()
    return made


# -- what it makes -----------------------------------------------------------------------------------------------------
@pytest.fixture(params=["sqlite", "postgresql"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    env = {}
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        env["SNAPKEEP_DATABASE_URL"] = cluster.create_database()
    with installed(tmp_path / "installation", **env) as installation:
        installation.reset()
        yield installation


def test_full_then_incremental(own: Installation, tmp_path: Path) -> None:
    backups = Backups(own, tmp_path / "repository")
    backups.fill()
    first = backups.make()
    assert (first["mode"], first["reason"], first["parent_id"], first["partial"]) == ("full", None, None, False)
    assert first["counts"]["files_new"] == 42
    assert backups.left() == [first["snapshot"]]
    assert backups.tree(first) == backups.walked_by_restic(backups.source(first))

    backups.change()
    second = backups.make()
    assert (second["mode"], second["reason"], second["parent_id"]) == ("incremental", None, first["id"])
    assert (second["counts"]["files_new"], second["counts"]["files_changed"]) == (1, 1)
    assert second["counts"]["bytes_read"] < 100
    assert second["verification"]["differing"] == second["verification"]["lacking"] == 0
    assert backups.left() == [second["snapshot"]], "the old base is deleted, the new one is kept"
    run_restic(tmp_path / "repository", "restore", second["restic_id"], "--target", tmp_path / "restored")
    assert_equal(backups.source(second), tmp_path / "restored" / "files1" / "projects")

    third = backups.make()
    assert (third["mode"], third["counts"]["bytes_read"]) == ("incremental", 0)
    assert backups.tree(third) == backups.tree(second)
    the_base_is_pinned(backups, third["snapshot"])

    asked_for = backups.make(full=True)
    assert (asked_for["mode"], asked_for["reason"]) == ("full", "asked for")
    assert backups.tree(asked_for) == backups.walked_by_restic(backups.source(asked_for))
    assert backups.left() == [asked_for["snapshot"]]
    assert [item["id"] for item in backups.known()] == [item["id"] for item in (asked_for, third, second, first)]
    backups.is_sound()


def the_base_is_pinned(backups: Backups, name: str) -> None:
    installation = backups.installation
    (snapshot,) = (item for item in installation.rest.pages("/snapshots", system="files1") if item["name"] == name)
    with pytest.raises(SnapkeepError, match="is where the next incremental backup starts") as caught:
        installation.run("DELETE", f"/snapshots/{snapshot['id']}")
    assert caught.value.code == "busy"
    assert backups.left() == [name]


def test_a_base_can_be_kept(backups: Backups) -> None:
    first = backups.make()
    second = backups.make(keep_base=True)
    assert set(backups.left()) == {first["snapshot"], second["snapshot"]}


def test_two_repositories_have_chains_of_their_own(backups: Backups, tmp_path: Path) -> None:
    other = Backups(backups.installation, tmp_path / "other")
    one, two = backups.make(), other.make()
    assert set(backups.left()) == {one["snapshot"], two["snapshot"]}
    assert backups.make()["parent_id"] == one["id"]
    assert other.make()["parent_id"] == two["id"]
    assert len(backups.left()) == 2


def test_two_at_once_are_one(backups: Backups) -> None:
    first, second = backups.ask(), backups.ask()
    assert first["id"] == second["id"]
    backups.installation.wait(first)
    assert len(backups.known()) == len(backups.left()) == 1


def test_into_s3(installation: Installation, tmp_path: Path) -> None:
    server = S3Server(tmp_path)
    try:
        server.make_bucket("bucket")
        backups = Backups(installation, f"s3:{server.endpoint}/bucket/prefix", secrets=server.owner)
        backups.fill()
        assert backups.make()["mode"] == "full"
        backups.change()
        second = backups.make()
        assert second["mode"] == "incremental"
        assert second["verification"]["differing"] == second["verification"]["lacking"] == 0
        assert backups.left() == [second["snapshot"]]
    finally:
        server.kill()


# -- what it falls back to ---------------------------------------------------------------------------------------------
def refuse_to_compare(backups: Backups) -> None:
    backups.installation.fault("status", method="POST", route=COMPUTE, status=422, times=None)


def delete_the_base(backups: Backups) -> None:
    (base,) = backups.left()
    backups.installation.delete_behind_our_back(base)


def delete_the_base_and_see_it(backups: Backups) -> None:
    delete_the_base(backups)
    backups.installation.discover()


def forget_the_parent(backups: Backups) -> None:
    run_restic(backups.location, "forget", backups.known()[0]["restic_id"])


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (refuse_to_compare, "no list of changes: "),
        (delete_the_base, "no list of changes: "),
        (delete_the_base_and_see_it, " is gone"),
        (forget_the_parent, "is gone from the repository"),
    ],
)
def test_everything_is_walked_and_the_reason_recorded(
    backups: Backups, break_it: Callable[[Backups], None], reason: str
) -> None:
    backups.make()
    backups.change()
    break_it(backups)
    second = backups.make()
    backups.installation.simulator.control("DELETE", "/faults")
    assert second["mode"] == "full"
    assert reason in second["reason"]
    assert backups.tree(second) == backups.walked_by_restic(backups.source(second))
    assert backups.left() == [second["snapshot"]]
    third = backups.make()
    assert (third["mode"], third["reason"], third["parent_id"]) == ("incremental", None, second["id"])
    backups.is_sound()


def test_damaged_trees_are_written_again(backups: Backups, tmp_path: Path) -> None:
    first = backups.make()
    backups.damage_trees(first)
    backups.change()
    second = backups.make()
    assert (second["mode"], second["parent_id"]) == ("full", first["id"])
    assert "does not match its checksum" in second["reason"]
    run_restic(tmp_path / "repository", "restore", second["restic_id"], "--target", tmp_path / "restored")
    assert_equal(backups.source(second), tmp_path / "restored" / "files1" / "projects")
    assert backups.make()["mode"] == "incremental"


def test_what_cannot_be_read_makes_it_partial(tmp_path: Path) -> None:
    with installed(tmp_path / "installation") as installation:
        if os.geteuid() == 0:  # as a server without the rights of root
            installation.server.end(signal.SIGTERM)
            no_rights = "-dac_override,-dac_read_search"
            installation.server.command[:0] = ["setpriv", "--bounding-set", no_rights, "--inh-caps", no_rights]
            installation.server.start()
        installation.reset()
        backups = Backups(installation, tmp_path / "repository")
        backups.fill()
        secret = installation.live() / "d3" / "file-3"
        secret.chmod(0)
        if os.geteuid() == 0:
            os.chown(secret, 1, 1)
        first = backups.make()
        assert first["partial"]
        assert first["counts"]["unreadable"] == 1
        assert [item["path"] for item in first["counts"]["unreadable_paths"]] == ["d3/file-3"]
        secret.chmod(0o644)
        second = backups.make()
        assert (second["partial"], second["counts"]["unreadable"]) == (False, 0)
        assert backups.left() == [second["snapshot"]]
        backups.is_sound()


# -- how it fails ------------------------------------------------------------------------------------------------------
def change_the_password(backups: Backups, tmp_path: Path) -> Callable[[], object]:
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_text("another")
    old.write_text(PASSWORD)
    run_restic(backups.location, "key", "passwd", "--new-password-file", new)
    return lambda: run_restic(backups.location, "key", "passwd", "--new-password-file", old, password="another")


def move_it_away(backups: Backups, _: Path) -> Callable[[], object]:
    location = Path(backups.location)
    elsewhere = location.rename(location.with_name("elsewhere"))
    return lambda: elsewhere.rename(location)


def put_another_there(backups: Backups, tmp_path: Path) -> Callable[[], object]:
    back = move_it_away(backups, tmp_path)
    location = Path(backups.location)
    run_restic(location, "init")

    def mend() -> None:
        location.rename(location.with_name("another"))
        back()

    return mend


def lock_it(backups: Backups, _: Path) -> Callable[[], object]:
    repository = Repository.open(LocalBackend(Path(backups.location)), PASSWORD)
    lock = repository.locked(exclusive=True)
    lock.__enter__()

    def mend() -> None:
        lock.__exit__(None, None, None)
        repository.close()

    return mend


@pytest.mark.parametrize(
    ("break_it", "code", "before"),
    [
        (change_the_password, "authentication_failed", 1),
        (move_it_away, "not_found", 0),
        (move_it_away, "not_found", 1),
        (put_another_there, "conflict", 1),
        (lock_it, "busy", 1),
    ],
)
def test_a_repository_that_cannot_be_used(
    backups: Backups, tmp_path: Path, break_it: Callable[[Backups, Path], Callable[[], object]], code: str, before: int
) -> None:
    made = [backups.make() for _ in range(before)]
    mend = break_it(backups, tmp_path)
    try:
        assert backups.fails().code == code
    finally:
        mend()
    assert backups.left() == [item["snapshot"] for item in made]
    assert [item["id"] for item in backups.known()] == [item["id"] for item in made]
    after = backups.make()
    assert (after["mode"], after["parent_id"]) == (("incremental", made[0]["id"]) if made else ("full", None))
    backups.is_sound()


def test_a_full_disk(backups: Backups) -> None:
    """No file may grow beyond some size, which is told like a full disk."""
    first = backups.make()
    (backups.installation.live() / "large").write_bytes(os.urandom(8 << 20))
    pid = str(backups.installation.server.pid)
    subprocess.run(["prlimit", "--pid", pid, f"--fsize={4 << 20}:unlimited"], check=True)
    try:
        assert backups.fails().code == "limit_exceeded"
    finally:
        subprocess.run(["prlimit", "--pid", pid, "--fsize=unlimited:unlimited"], check=True)
    assert backups.left() == [first["snapshot"]]
    backups.is_sound()
    assert backups.make()["mode"] == "incremental"
    backups.is_sound()


# -- cancelled ---------------------------------------------------------------------------------------------------------
PHASES = {
    "snapshot": {"task_seconds": 2.0},
    "changes": {"cft_seconds": 3.0},
    "export": {"task_seconds": 2.0},
    "writing": {},
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_cancel_leaves_nothing(backups: Backups, phase: str) -> None:
    installation = backups.installation
    first = backups.make()
    backups.change()
    large = installation.live() / "large"
    if phase == "writing":
        with large.open("wb") as file:
            file.truncate(64 << 30)  # a hole: takes minutes to read, and no space
    installation.simulator.control("PATCH", "/settings", PHASES[phase])
    operation = backups.ask()
    until(lambda: installation.operation(operation)["phase"].startswith(phase), 30)
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    until(lambda: installation.operation(operation)["ended_at"], 30)
    assert installation.operation(operation)["state"] == "cancelled", installation.operation(operation)["error"]
    assert backups.left() == [first["snapshot"]]
    assert [item["id"] for item in backups.known()] == [first["id"]]
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 0.05, "cft_seconds": 0.1})
    large.unlink(missing_ok=True)
    after = backups.make()
    assert (after["mode"], after["parent_id"]) == ("incremental", first["id"])
    assert backups.left() == [after["snapshot"]]
    backups.is_sound()


def test_a_cancel_at_the_end_comes_too_late(backups: Backups) -> None:
    """It is recorded, and the pin has moved: the rest is done, so that nothing stays that nobody would look for."""
    installation = backups.installation
    backups.make()
    backups.change()
    installation.fault("delay", method="PUT", seconds=2.0, nth=2, times=1)
    operation = backups.ask()
    until(lambda: installation.operation(operation)["phase"].startswith("deport"), 30)
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    until(lambda: installation.operation(operation)["ended_at"], 30)
    assert installation.operation(operation)["state"] == "succeeded"
    made = backups.known()[0]
    assert backups.left() == [made["snapshot"]]
    assert backups.make()["parent_id"] == made["id"]


# -- back to the asset -------------------------------------------------------------------------------------------------
def put_back(backups: Backups, backup: Json, **body: object) -> Json:
    wanted = {"confirmation": "projects", **body}
    return backups.installation.ask("POST", f"/backups/{backup['id']}/restore", wanted)


def test_files_come_back_to_the_asset(backups: Backups, tmp_path: Path) -> None:
    """Over what is there; what is not in the recovery point stays, and a snapshot shows how it was before."""
    installation, live = backups.installation, backups.installation.live()
    first = backups.make()
    backups.change()
    changed = (live / "d0" / "file-5").read_text()
    done = installation.wait(put_back(backups, first))["result"]
    assert (done["target"], done["problem_count"], done["left"]) == ("files1/projects", 0, [])
    before = done["before"].partition("@")[2]
    assert set(backups.left()) == {first["snapshot"], before}
    assert (backups.source({"snapshot": before}) / "d0" / "file-5").read_text() == changed
    (live / "new" / "added").unlink()
    (live / "new").rmdir()
    shutil.rmtree(live / "moved")
    assert_equal(backups.source(first), live)


def test_some_paths_come_back_to_the_asset(backups: Backups) -> None:
    installation, live = backups.installation, backups.installation.live()
    first = backups.make()
    old = {path: (live / path).read_bytes() for path in ("d0/file-5", "d2/file-2", "d3/file-3")}
    backups.change()
    (live / "d3" / "file-3").write_text("stays")
    done = installation.wait(put_back(backups, first, paths=["d0/file-5", "d2"]))["result"]
    assert done["problem_count"] == 0
    assert (live / "d0" / "file-5").read_bytes() == old["d0/file-5"]
    assert (live / "d2" / "file-2").read_bytes() == old["d2/file-2"]
    assert (live / "d3" / "file-3").read_text() == "stays"


def test_what_comes_back_must_be_confirmed(backups: Backups) -> None:
    first = backups.make()
    for confirmation in ("", "other"):
        with pytest.raises(InvalidInput, match="was not confirmed"):
            put_back(backups, first, confirmation=confirmation)
    assert backups.left() == [first["snapshot"]]


def test_a_cancel_while_files_come_back_closes_the_asset(backups: Backups) -> None:
    installation = backups.installation
    first = backups.make()
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 2.0})
    operation = put_back(backups, first)
    until(lambda: installation.operation(operation)["phase"].startswith("export"), 30)
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    until(lambda: installation.operation(operation)["ended_at"], 30)
    assert installation.operation(operation)["state"] == "cancelled"
    assert len(backups.left()) == 2, "the snapshot of what was there stays"
