"""The cooling time: of many deletions, those that are too many begin later, and can be cancelled until then."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.operations.backups import Backups
from tests.support.installation import Installation, Json, installed, until
from tests.support.people import People

from snapkeep.model.errors import Busy, Locked, PermissionDenied


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path / "installation") as installation:
        installation.reset()
        installation.rest.request("PUT", "/cooling", json={"limit": 3, "hours": 4})
        yield installation


def delete(own: Installation, snapshot: Json) -> Json:
    return dict(own.rest.request("DELETE", f"/snapshots/{snapshot['id']}"))


def names(own: Installation) -> set[str]:
    return {item["name"] for item in own.vendor_snapshots()}


def test_what_is_too_much_waits_and_is_cancelled(own: Installation) -> None:
    snapshots = [own.snapshot() for _ in range(8)]
    with ThreadPoolExecutor(6) as threads:  # at the same moment
        asked = list(threads.map(lambda one: delete(own, one), snapshots[:6]))
    cooling = [one for one in asked if one["not_before"]]
    assert len(cooling) == 3
    for one in asked:
        if one not in cooling:
            assert own.wait(one)["state"] == "succeeded"
    kept = {one["target"].partition("@")[2] for one in cooling}
    assert names(own) == kept | {one["name"] for one in snapshots[6:]}
    first = cooling[0]
    begins = datetime.fromisoformat(first["not_before"]) - datetime.fromisoformat(first["created_at"])
    assert timedelta(hours=3, minutes=58) < begins <= timedelta(hours=4, minutes=1)
    shown = own.operation(first)
    assert (shown["state"], shown["phase"].partition(" until ")[0]) == ("queued", "cooling")

    def nothing_begins() -> None:
        for one in cooling:
            assert own.operation(one)["attempt"] == 0
        assert names(own) >= kept

    ran = own.cli("snapshot", "delete", snapshots[6]["reference"], "--yes")  # the command line counts, too
    assert (ran.code, "is deleted after" in ran.out, "snapkeep operation cancel" in ran.out) == (0, True, True)
    own.rest.request("POST", f"/operations/{first['id']}/pause")
    assert own.rest.request("POST", f"/operations/{first['id']}/resume")["state"] == "queued"
    other = own.snapshot()  # the asset is not held up by it
    host = {"host": {"name": "h", "address": "10.0.0.1"}}
    exported = own.run("POST", f"/snapshots/{other['id']}/exports", host)
    own.run("DELETE", f"/exports/{exported['result']['export_id']}")
    nothing_begins()
    own.server.end(signal.SIGKILL)
    own.server.start()
    until(lambda: own.worker("serve")["state"] == "alive")
    own.run("POST", "/systems/files1/reconcile", {"apply": True})
    nothing_begins()
    people = People(own)
    operator = people.service("operator", "operator")
    for one in cooling:
        assert operator.request("POST", f"/operations/{one['id']}/cancel")["state"] == "cancelled"
    with pytest.raises(PermissionDenied):
        operator.request("PUT", "/cooling", json={"limit": None})
    assert names(own) >= kept
    again = own.rest.request("POST", f"/operations/{first['id']}/retry")
    assert again["not_before"], "the same once more is one more"
    with pytest.raises(Busy):
        own.rest.request("DELETE", "/systems/files1", params={"force": True})
    people.close()


def test_forgetting_counts_too_and_backups_go_on(own: Installation, tmp_path: Path) -> None:
    backups = Backups(own, tmp_path / "repository")
    backups.fill(5)
    last = [backups.make() for _ in range(5)][-1]
    assert backups.left() == [last["snapshot"]], "what backups let go of does not count"
    delete(own, own.snapshot())
    for backup in backups.known()[:2:-1]:
        own.rest.request("DELETE", f"/backups/{backup['id']}")
    with pytest.raises(Locked, match="Too many") as caught:
        own.rest.request("DELETE", f"/backups/{backups.known()[1]['id']}")
    assert datetime.fromisoformat(caught.value.details["until"]).tzinfo
    assert len(backups.known()) == 3
    assert delete(own, own.snapshot())["not_before"]
    own.rest.request("PUT", "/cooling", json={"limit": 100})
    own.rest.request("DELETE", f"/backups/{backups.known()[1]['id']}")
    assert delete(own, own.snapshot())["not_before"] is None


def test_who_changes_it(own: Installation) -> None:
    people = People(own)
    administrator, officer = people.service("admin", "administrator"), people.service("officer", "security-officer")
    with pytest.raises(PermissionDenied):
        administrator.request("PUT", "/cooling", json={"limit": 100})
    assert administrator.request("GET", "/cooling") == {"limit": 3, "hours": 4}
    assert officer.request("PUT", "/cooling", json={"limit": 5, "hours": 1}) == {"limit": 5, "hours": 1}
    assert own.cli("cooling", "set", "--limit", "7", "-o", "json").json() == {"limit": 7, "hours": 1}
    assert own.cli("cooling", "off", "-o", "json").json()["limit"] is None
    assert own.cli("cooling", "show", "-o", "json").json() == {"limit": None, "hours": 4}
    people.close()
