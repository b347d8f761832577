"""What people ask of an operation while it lives: cancel, pause, resume, retry, and the same once more."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from tests.support.installation import Installation, installed, until
from tests.support.postgres import Postgres

from snapkeep.model.errors import Conflict, SnapkeepError

Json = dict[str, Any]
PER_SYSTEM = 2
NOTICED = 2.0
HERE = {"host": {"name": "here", "address": "127.0.0.1"}}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    env = {"SNAPKEEP_OPERATIONS_PER_SYSTEM": str(PER_SYSTEM)}
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        env["SNAPKEEP_DATABASE_URL"] = cluster.create_database()
    with installed(tmp_path_factory.mktemp(request.param), **env) as installation:
        yield installation


@pytest.fixture
def own(running: Installation) -> Installation:
    running.reset()
    return running


def tell(installation: Installation, operation: Json, what: str) -> Json:
    return installation.ask("POST", f"/operations/{operation['id']}/{what}")


def until_phase(installation: Installation, operation: Json, phase: str, seconds: float = 10) -> Json:
    until(lambda: installation.operation(operation)["phase"].startswith(phase), seconds)
    return installation.operation(operation)


def synthetic_diff(installation: Installation, entries: int = 30_000) -> Json:
    """Ask for a long change list; each page of it takes a moment."""
    body = {"file_server": "files1", "share": "homes", "entries": entries}
    pair = installation.simulator.control("POST", "/synthetic-diff", body)
    installation.discover()
    ids = {item["vendor_id"]: item["id"] for item in installation.rest.pages("/snapshots", system="files1")}
    installation.fault("delay", method="GET", path="/snapshot-changed-contents/", seconds=0.05, times=None)
    return installation.ask("POST", "/change-lists", {"base_id": ids[pair["base"]], "new_id": ids[pair["new"]]})


def full(installation: Installation) -> list[Json]:
    """Begin as many creates as the system may have at once."""
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 2.0})
    begun = [installation.ask_create() for _ in range(PER_SYSTEM)]
    for item in begun:
        until_phase(installation, item, "taking")
    return begun


# -- cancel ----------------------------------------------------------------------------------------------------------
def test_cancel_of_what_is_queued_is_done_at_once(own: Installation) -> None:
    begun = full(own)
    waiting = own.ask_create()
    assert tell(own, waiting, "cancel")["state"] == "cancelled"
    for item in begun:
        own.wait(item)
    assert (own.operation(waiting)["attempt"], own.operation(waiting)["started_at"]) == (0, None)
    assert len(own.vendor_snapshots()) == PER_SYSTEM


@pytest.mark.parametrize(
    ("moment", "fault"),
    [
        ("it is polled", None),
        ("the system is out of reach", {"action": "status", "status": 503}),
        ("the system hangs", {"action": "hang"}),
    ],
)
def test_cancel_is_noticed_while(own: Installation, moment: str, fault: Json | None) -> None:
    own.rest.request("PATCH", "/systems/files1", json={"settings": {"request_seconds": 60}})
    own.simulator.control("PATCH", "/settings", {"task_seconds": 3.0})
    operation = own.ask_create()
    until_phase(own, operation, "taking")
    if fault:
        own.fault(method="GET", route="/tasks/{}", times=None, **fault)
        if fault["action"] == "hang":
            until(lambda: own.simulator.control("GET", "/faults")["faults"][0]["hits"])
        else:
            until_phase(own, operation, "the system cannot be reached")
    tell(own, operation, "cancel")
    until_phase(own, operation, "cancel", NOTICED)
    own.simulator.control("DELETE", "/faults")
    if moment == "the system hangs":  # the call that is hanging now was made before
        own.simulator.kill()
        own.simulator.start()
    assert own.wait(operation)["state"] == "cancelled"
    assert own.vendor_snapshots() == []
    assert list(own.rest.pages("/snapshots", system="files1")) == []


def test_cancel_of_a_discovery_ends_it_although_the_system_hangs(own: Installation) -> None:
    own.rest.request("PATCH", "/systems/files1", json={"settings": {"request_seconds": 60}})
    own.fault("hang", method="GET", times=None)
    operation = own.ask("POST", "/systems/files1/discover")
    until(lambda: own.simulator.control("GET", "/faults")["faults"][0]["hits"])
    tell(own, operation, "cancel")
    until(lambda: own.operation(operation)["state"] == "cancelled", NOTICED + 1)


def test_cancel_of_what_is_paused(own: Installation) -> None:
    begun = full(own)
    never = own.ask_create()
    tell(own, never, "pause")
    assert tell(own, never, "cancel")["state"] == "cancelled"
    for item in begun:
        own.wait(item)
    diff = synthetic_diff(own)
    until(lambda: (own.operation(diff)["items"] or 0) > 4_000)
    tell(own, diff, "pause")
    until(lambda: own.operation(diff)["state"] == "paused")
    tell(own, diff, "cancel")
    until(lambda: own.operation(diff)["state"] == "cancelled", NOTICED)
    head = own.rest.request("GET", f"/change-lists/{diff['id']}")
    assert (head["state"], head["entries"]) == ("incomplete", 0)


def test_the_next_in_turn_goes_on_when_the_one_before_is_cancelled_or_paused(own: Installation) -> None:
    """Deletes of one asset run one by one; what never began must not hold the others up."""
    own.simulator.control("PATCH", "/settings", {"task_seconds": 0.0})
    snapshots = [own.snapshot(f"s{number}") for number in range(3)]
    full_ones = full(own)
    first, second, third = (own.ask("DELETE", f"/snapshots/{item['id']}") for item in snapshots)
    tell(own, first, "pause")
    tell(own, second, "cancel")
    for item in full_ones:
        own.wait(item)
    begin = time.monotonic()
    assert own.wait(third)["state"] == "succeeded"
    assert time.monotonic() - begin < 8
    assert own.operation(first)["state"] == "paused"
    tell(own, first, "resume")
    assert own.wait(first)["state"] == "succeeded"
    assert "s1" in {item["name"] for item in own.vendor_snapshots()}


# -- pause and resume ------------------------------------------------------------------------------------------------
def test_a_queued_create_is_held_back_until_it_is_resumed(own: Installation) -> None:
    begun = full(own)
    held = own.ask_create("held")
    assert tell(own, held, "pause")["state"] == "paused"
    for item in begun:
        own.wait(item)
    own.snapshot("later")
    assert own.operation(held)["state"] == "paused"
    assert "held" not in {item["name"] for item in own.vendor_snapshots()}
    tell(own, held, "resume")
    assert own.wait(held)["state"] == "succeeded"
    assert [item["name"] for item in own.vendor_snapshots()].count("held") == 1


def test_a_diff_goes_on_where_it_was_paused_even_after_a_kill(own: Installation) -> None:
    operation = synthetic_diff(own)
    until(lambda: (own.operation(operation)["items"] or 0) > 4_000)
    assert tell(own, operation, "pause")["pause_requested"]
    until(lambda: own.operation(operation)["state"] == "paused", NOTICED)
    items = own.operation(operation)["items"]
    assert 4_000 < items < 30_000
    assert own.server.end(signal.SIGKILL) == -signal.SIGKILL
    own.server.start()
    own.simulator.control("DELETE", "/faults")
    own.snapshot()  # others go on
    assert (own.operation(operation)["state"], own.operation(operation)["items"]) == ("paused", items)
    asked = own.simulator.control("GET", "/requests")["count"]
    tell(own, operation, "resume")
    assert own.wait(operation)["result"]["entries"] == 30_000
    paths = list(own.rest.stream(f"/change-lists/{operation['id']}/entries", []))
    assert len(paths) == len(set(paths)) == 30_000
    later = own.simulator.control("GET", f"/requests?after={asked}")["requests"]
    pages = [item for item in later if "/snapshot-changed-contents/" in item["path"]]
    whole = own.simulator.control("GET", "/requests")["requests"]
    assert len(pages) < len([item for item in whole if "/snapshot-changed-contents/" in item["path"]])


def test_a_discovery_goes_on_where_it_was_paused(own: Installation) -> None:
    own.simulator.control("POST", "/synthetic", {"file_server": "files1", "shares": 500, "snapshots_per_share": 2})
    own.fault("delay", method="GET", route="/snapshots", seconds=0.02, times=None)
    operation = own.ask("POST", "/systems/files1/discover")
    until(lambda: (own.operation(operation)["items"] or 0) > 100)
    tell(own, operation, "pause")
    until(lambda: own.operation(operation)["state"] == "paused", NOTICED)
    items = own.operation(operation)["items"]
    own.simulator.control("DELETE", "/faults")
    tell(own, operation, "resume")
    done = own.wait(operation)
    assert (done["result"]["snapshots"], done["result"]["snapshots_gone"]) == (1000, 0)
    assert done["items"] > items


def test_what_cannot_be_paused_resumed_or_retried_is_said(own: Installation) -> None:
    running, other = full(own)
    with pytest.raises(Conflict, match="that has begun cannot be paused"):
        tell(own, running, "pause")
    with pytest.raises(Conflict, match="is running: only one that failed"):
        tell(own, running, "retry")
    assert {own.wait(item)["state"] for item in (running, other)} == {"succeeded"}
    for what in ("pause", "resume", "cancel"):
        with pytest.raises(Conflict, match=f"has ended: succeeded.*|nothing to {what}"):
            tell(own, running, what)
    with pytest.raises(Conflict, match="is succeeded"):
        tell(own, running, "retry")


def test_a_pause_that_was_taken_back_in_time_is_none(own: Installation) -> None:
    operation = synthetic_diff(own)
    until(lambda: (own.operation(operation)["items"] or 0) > 2_000)
    for _ in range(5):
        tell(own, operation, "pause")
        tell(own, operation, "resume")
    own.simulator.control("DELETE", "/faults")
    assert own.wait(operation)["result"]["entries"] == 30_000


# -- retry, and the same key -----------------------------------------------------------------------------------------
Request = tuple[str, str, Json | None]


def every_request(installation: Installation) -> dict[str, Request]:
    """Return a request for each kind of operation; they can be made in this order."""
    one, two = installation.snapshot("one"), installation.snapshot("two")
    installation.run("POST", f"/snapshots/{one['id']}/exports", HERE)
    [export] = installation.rest.request("GET", "/exports")["data"]
    snapshot, confirmation = f"/snapshots/{one['id']}", {"confirmation": "projects"}
    return {
        "discover": ("POST", "/systems/files1/discover", None),
        "reconcile": ("POST", "/systems/files1/reconcile", {"apply": False}),
        "create": ("POST", f"/assets/{one['asset_id']}/snapshots", {"name": None}),
        "diff": ("POST", "/change-lists", {"base_id": one["id"], "new_id": two["id"]}),
        "restore": ("POST", f"{snapshot}/restore", confirmation),
        "clone": ("POST", f"{snapshot}/clone", {**confirmation, "name": "copy"}),
        "export": ("POST", f"{snapshot}/exports", HERE),
        "deport": ("DELETE", f"/exports/{export['id']}", None),
        "delete": ("DELETE", f"/snapshots/{two['id']}", None),
    }


def post(installation: Installation, request: Request, key: str) -> httpx2.Response:
    method, path, body = request
    token = (installation.server.data_dir / "token").read_text().strip()
    headers = {b"Authorization": f"Bearer {token}".encode(), b"Idempotency-Key": key.encode("latin-1")}
    url, trust = f"{installation.rest.url}/v1{path}", installation.trust
    return httpx2.request(method, url, json=body, headers=headers, timeout=30, verify=trust)


def test_what_failed_is_retried_as_a_new_operation(own: Installation) -> None:
    for kind, (method, path, body) in every_request(own).items():
        own.fault("status", status=403, times=None)
        failed = own.ask(method, path, body)
        with pytest.raises(SnapkeepError):
            own.wait(failed)
        own.simulator.control("DELETE", "/faults")
        retry = ("POST", f"/operations/{failed['id']}/retry", None)
        again = post(own, retry, "once more").json()
        assert (again["kind"], again["id"] != failed["id"]) == (kind, True), again
        assert own.wait(again)["state"] == "succeeded"
        assert post(own, retry, "once more").json()["id"] == again["id"]
        assert own.operation(failed)["state"] == "failed"


def test_the_same_key_is_the_same_operation(own: Installation) -> None:
    requests = every_request(own)
    for kind, request in requests.items():
        first = post(own, request, "key")
        assert (first.status_code, first.json().get("kind")) == (202, kind)
        assert post(own, request, "key").json()["id"] == first.json()["id"]
        assert own.wait(first.json())["state"] == "succeeded"
        repeated = post(own, request, "key")
        assert (repeated.status_code, repeated.json()["id"]) == (202, first.json()["id"]), repeated.json()
    other = post(own, requests["create"], "other").json()
    assert own.wait(other)["id"] != post(own, requests["create"], "key").json()["id"]
    assert len(own.vendor_snapshots()) == 3  # one, and two creates; the other one was deleted


def test_many_who_ask_at_once_with_one_key_get_one_operation(own: Installation) -> None:
    request = ("POST", f"/assets/{own.asset()['id']}/snapshots", {"name": None})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(own, request, "at once"), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    [operation] = {answer.json()["id"] for answer in answers}
    own.wait(own.operation({"id": operation}))
    assert len(own.vendor_snapshots()) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "caf\xe9"])
def test_a_key_that_is_none_is_refused(own: Installation, key: str) -> None:
    request = ("POST", f"/assets/{own.asset()['id']}/snapshots", {"name": None})
    answer = post(own, request, key)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert "dempotency" in answer.json()["detail"]
    assert own.vendor_snapshots() == []
