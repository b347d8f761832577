"""Holds and locks through every door: REST by everybody, the command line, force, retries, reconcile, restarts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.operations.backups import Backups
from tests.support.installation import Installation, Json, installed, until
from tests.support.people import People

from snapkeep.cli.rest import Rest
from snapkeep.model.errors import Busy, Locked, NotFound, PermissionDenied, SnapkeepError


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One of its own: what is locked here cannot be put back to the beginning."""
    with installed(tmp_path_factory.mktemp("protection")) as installation:
        installation.reset()
        yield installation


@pytest.fixture
def people(own: Installation) -> Iterator[People]:
    everybody = People(own)
    yield everybody
    everybody.close()


def later(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


def lock(rest: Rest, path: str, mode: str = "compliance", **span: float) -> Json:
    body = {"mode": mode, "until": later(**(span or {"days": 2})), "reason": "law"}
    return dict(rest.request("POST", f"{path}/locks", json=body))


def refusal(rest: Rest, method: str, path: str, body: Any = None, **params: Any) -> SnapkeepError:
    """Ask for what must be refused; return why."""
    with pytest.raises(SnapkeepError) as caught:
        rest.request(method, path, json=body, params=params)
    return caught.value


def names(own: Installation) -> list[str]:
    return [item["name"] for item in own.vendor_snapshots()]


def test_a_repeated_hold_is_one(own: Installation) -> None:
    """Who has lost the answer would else release one, and wonder what still keeps it."""
    snapshot = own.snapshot()
    path, key = f"/snapshots/{snapshot['id']}/holds", {"Idempotency-Key": "lost"}
    first, again = (own.rest.request("POST", path, json={"reason": "x"}, headers=key) for _ in range(2))
    assert first == again
    assert len(list(own.rest.pages("/protections", snapshot_id=snapshot["id"]))) == 1
    own.rest.request("DELETE", f"/holds/{first['id']}")


# -- who may what ------------------------------------------------------------------------------------------------------
def test_who_places_and_who_lets_go(own: Installation, people: People) -> None:
    snapshot = own.snapshot()
    path = f"/snapshots/{snapshot['id']}"
    operator, administrator = people.service("op", "operator"), people.service("admin", "administrator")
    officer, viewer = people.service("officer", "security-officer"), people.service("viewer", "viewer")
    hold = operator.request("POST", f"{path}/holds", json={"reason": "case 7"})
    governed = lock(administrator, path, "governance")
    assert (hold["placed_by"], governed["placed_by"]) == ("op", "admin")
    assert [item["id"] for item in viewer.pages("/protections", snapshot_id=snapshot["id"])] == [
        governed["id"], hold["id"],
    ]  # fmt: skip
    assert isinstance(refusal(operator, "POST", f"{path}/locks", {}), PermissionDenied)
    for rest in (operator, administrator, viewer):
        assert isinstance(refusal(rest, "DELETE", f"/holds/{hold['id']}"), PermissionDenied)
        end = {"until": later(hours=1)}
        assert isinstance(refusal(rest, "POST", f"/locks/{governed['id']}/shorten", end), PermissionDenied)
    end = {"until": later(days=3)}
    moved = administrator.request("POST", f"/locks/{governed['id']}/extend", json=end)
    assert moved["until"] > governed["until"]
    assert administrator.request("POST", f"/locks/{governed['id']}/extend", json=end) == moved, "twice is once"
    assert isinstance(refusal(officer, "DELETE", path), PermissionDenied), "who lets go does not delete"
    officer.request("DELETE", f"/holds/{hold['id']}")
    assert isinstance(refusal(administrator, "DELETE", path), Locked)
    assert not officer.request("POST", f"/locks/{governed['id']}/shorten", json={"until": later(seconds=-5)})[
        "in_force"
    ]
    operation = administrator.request("DELETE", path)
    assert own.wait(operation)["state"] == "succeeded"
    assert isinstance(refusal(officer, "POST", f"{path}/holds", {"reason": "too late"}), NotFound)


def test_what_is_asked_for_must_have_a_sense(own: Installation) -> None:
    path = f"/snapshots/{own.snapshot()['id']}"
    for kind, body in (
        ("holds", {"reason": ""}), ("holds", {"reason": "x" * 301}), ("holds", {}),
        ("holds", {"reason": "x", "until": later(days=-1)}), ("holds", {"reason": "x", "until": "2030-01-01"}),
        ("holds", {"reason": "x", "until": "2030-01-01T00:00:00"}), ("holds", {"reason": "x", "mode": "compliance"}),
        ("locks", {"reason": "x", "mode": "compliance"}), ("locks", {"reason": "x", "until": later(days=1)}),
        ("locks", {"reason": "x", "mode": "strict", "until": later(days=1)}),
        ("locks", {"reason": "x", "mode": "compliance", "until": later(days=4000)}),
    ):  # fmt: skip
        assert refusal(own.rest, "POST", f"{path}/{kind}", body).code == "invalid_input", body
    assert list(own.rest.pages("/protections", snapshot_id=path.rpartition("/")[2])) == []
    hold = own.rest.request("POST", f"{path}/holds", json={"reason": "x"})
    assert isinstance(refusal(own.rest, "POST", f"/locks/{hold['id']}/extend", {"until": later(days=1)}), NotFound)
    own.rest.request("DELETE", f"/holds/{hold['id']}")


def test_a_hold_with_an_end_ends_by_itself(own: Installation) -> None:
    """The server itself sees the time pass."""
    path = f"/snapshots/{own.snapshot()['id']}"
    hold = own.rest.request("POST", f"{path}/holds", json={"reason": "x", "until": later(seconds=1)})
    until(lambda: not own.rest.request("GET", f"/protections/{hold['id']}")["in_force"], 90)
    assert own.run("DELETE", path)["state"] == "succeeded"


# -- every door --------------------------------------------------------------------------------------------------------
def test_a_compliance_lock_has_no_door(own: Installation, people: People) -> None:
    snapshot = own.snapshot("kept")
    path = f"/snapshots/{snapshot['id']}"
    locked = lock(own.rest, path)
    administrator, officer = people.service("admin2", "administrator"), people.service("officer2", "security-officer")
    both = people.service("both", "administrator", "security-officer")

    def every_door_is_closed() -> None:
        for rest in (own.rest, administrator, both):
            refused = refusal(rest, "DELETE", path)
            assert isinstance(refused, Locked), refused
            assert refused.details["protections"] == [locked["id"]]
        for rest in (own.rest, officer, both):
            for end in (later(), later(hours=1), later(days=5)):
                refused = refusal(rest, "POST", f"/locks/{locked['id']}/shorten", {"until": end})
                assert isinstance(refused, Locked), refused
            assert isinstance(refusal(rest, "DELETE", f"/holds/{locked['id']}"), NotFound)
        assert refusal(own.rest, "POST", f"/locks/{locked['id']}/extend", {"until": later(hours=1)}).code == (
            "invalid_input"
        )
        assert isinstance(refusal(own.rest, "DELETE", "/systems/files1"), Busy)
        forced = refusal(own.rest, "DELETE", "/systems/files1", force=True)
        assert isinstance(forced, Locked), forced
        elsewhere = {"settings": {"file_server": "files2"}}
        assert isinstance(refusal(own.rest, "PATCH", "/systems/files1", elsewhere), Busy)
        for command in (
            ("snapshot", "delete", "files1/projects@kept", "--yes"),
            ("lock", "shorten", "files1/projects@kept", "--until", "0h"),
            ("system", "remove", "files1", "--force", "--yes"),
        ):
            ran = own.cli(*command, "-o", "json")
            assert ran.code in {Locked.exit_code, 2}, (command, ran)
        assert own.run("POST", "/systems/files1/reconcile", {"apply": True})["state"] == "succeeded"
        assert "kept" in names(own)

    every_door_is_closed()
    own.server.end(signal.SIGKILL)
    own.server.start()
    administrator, officer, both = (people.again(name) for name in ("admin2", "officer2", "both"))
    every_door_is_closed()


def test_an_older_deletion_is_not_retried_past_a_lock(own: Installation) -> None:
    snapshot = own.snapshot()
    path = f"/snapshots/{snapshot['id']}"
    own.fault("task", task="fail", method="DELETE", route="/snapshots/{snapshot}")
    asked = own.ask("DELETE", path)
    until(lambda: own.operation(asked)["ended_at"], 20)
    assert own.operation(asked)["state"] == "failed"
    lock(own.rest, path)
    assert isinstance(refusal(own.rest, "POST", f"/operations/{asked['id']}/retry"), Locked)
    ran = own.cli("operation", "retry", asked["id"], "-o", "json")
    assert (ran.code, ran.error()["code"]) == (Locked.exit_code, "locked")


# -- recovery points ---------------------------------------------------------------------------------------------------
def test_recovery_points_and_the_bases_of_backups(own: Installation, tmp_path: Path) -> None:
    backups = Backups(own, tmp_path / "repository")
    backups.fill(5)
    first = backups.make()
    base = own.rest.request("GET", "/snapshots", params={"name": first["snapshot"]})["data"][0]
    kept = lock(own.rest, f"/snapshots/{base['id']}", "governance")
    hold = own.rest.request("POST", f"/backups/{first['id'][:8]}/holds", json={"reason": "case"})
    locked = lock(own.rest, f"/backups/{first['id']}", "governance")

    second = backups.make()
    assert second["mode"] == "incremental"
    operation = own.rest.request("GET", f"/operations/{second['operation_id']}")
    assert "is kept: governance lock" in operation["result"]["left"][0], "the old base stays, and the backup is good"
    assert first["snapshot"] in names(own)

    for _ in range(2):
        assert isinstance(refusal(own.rest, "DELETE", f"/backups/{first['id']}", force=True), Locked)
        assert own.cli("backup", "forget", first["id"], "--force", "--yes").code == Locked.exit_code
        forced = refusal(own.rest, "DELETE", f"/repositories/{backups.name}", force=True)
        assert isinstance(forced, Locked)
        assert {item["id"] for item in backups.known()} == {first["id"], second["id"]}
        own.server.end(signal.SIGKILL)
        own.server.start()
    own.rest.request("DELETE", f"/holds/{hold['id']}")
    assert isinstance(refusal(own.rest, "DELETE", f"/backups/{first['id']}"), Locked)
    for one in (locked, kept):
        own.rest.request("POST", f"/locks/{one['id']}/shorten", json={"until": later(seconds=-5)})
    third = backups.make()
    assert first["snapshot"] not in names(own), "the base that stayed is deleted when nothing keeps it any more"
    own.rest.request("DELETE", f"/backups/{first['id']}")
    lock(own.rest, f"/backups/{third['id']}", "governance")
    assert isinstance(refusal(own.rest, "DELETE", f"/backups/{third['id']}", force=True), Locked)
    assert [item["id"] for item in backups.known()] == [third["id"], second["id"]]
