"""kill -9 of the server in the middle: the next start finishes the work, once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation, installed, until
from tests.support.postgres import Postgres

from snapkeep.simulators.nutanix_files.testing import Api


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running_own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    env = {}
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        env["SNAPKEEP_DATABASE_URL"] = cluster.create_database()
    with installed(tmp_path_factory.mktemp(request.param), **env) as installation:
        yield installation


@pytest.fixture
def own(running_own: Installation) -> Installation:
    running_own.reset()
    return running_own


def kill_and_restart(installation: Installation) -> None:
    assert installation.server.end(signal.SIGKILL) == -signal.SIGKILL
    installation.server.start()


def test_a_create_is_finished_and_made_once(own: Installation) -> None:
    own.simulator.control("PATCH", "/settings", {"task_seconds": 1.0})
    operation = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
    until(lambda: own.rest.request("GET", f"/operations/{operation['id']}")["phase"] == "taking the snapshot")
    kill_and_restart(own)
    assert own.rest.wait(operation)["state"] == "succeeded"
    assert len(own.vendor_snapshots()) == 1


def test_a_create_whose_ticket_was_lost_is_made_once(own: Installation) -> None:
    """Dies while the system acts but has not answered: the effect is there, the ticket is not."""
    fault = {"method": "POST", "route": "/snapshots", "action": "delay", "seconds": 1.5, "after_effect": True}
    own.simulator.control("POST", "/faults", fault)
    operation = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
    until(own.vendor_snapshots)
    kill_and_restart(own)
    assert own.rest.wait(operation)["state"] == "succeeded"
    assert len(own.vendor_snapshots()) == 1


def test_a_diff_goes_on_where_it_was(own: Installation) -> None:
    pair = own.simulator.control(
        "POST", "/synthetic-diff", {"file_server": "files1", "share": "homes", "entries": 30_000}
    )
    own.discover()
    ids = {item["vendor_id"]: item["id"] for item in own.rest.pages("/snapshots", system="files1")}
    body = {"base_id": ids[pair["base"]], "new_id": ids[pair["new"]]}
    operation = own.rest.request("POST", "/change-lists", json=body)
    until(lambda: (own.rest.request("GET", f"/operations/{operation['id']}")["items"] or 0) > 4_000)
    kill_and_restart(own)
    done = own.rest.wait(operation)
    assert done["result"]["entries"] == 30_000
    paths = list(own.rest.stream(f"/change-lists/{operation['id']}/entries", []))
    assert len(paths) == len(set(paths)) == 30_000
    asked = own.simulator.control("GET", "/requests")["requests"]
    pages = [item for item in asked if "/snapshot-changed-contents/" in item["path"]]
    assert len(pages) < 2 * 100, "the second start read everything again"


def test_a_discovery_goes_on_where_it_was(own: Installation) -> None:
    own.simulator.control("POST", "/synthetic", {"file_server": "files1", "shares": 300, "snapshots_per_share": 3})
    fault = {"method": "GET", "route": "/snapshots", "action": "delay", "seconds": 0.02, "times": None}
    own.simulator.control("POST", "/faults", fault)
    operation = own.rest.request("POST", "/systems/files1/discover")
    until(lambda: (own.rest.request("GET", f"/operations/{operation['id']}")["items"] or 0) > 100)
    kill_and_restart(own)
    result = own.rest.wait(operation)["result"]
    assert (result["snapshots"], result["snapshots_gone"]) == (900, 0)


def test_an_export_is_finished(own: Installation) -> None:
    snapshot = own.snapshot()
    own.simulator.control("PATCH", "/settings", {"task_seconds": 1.0})
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    operation = own.rest.request("POST", f"/snapshots/{snapshot['id']}/exports", json=body)
    until(lambda: own.rest.request("GET", f"/operations/{operation['id']}")["phase"] == "waiting for the access")
    kill_and_restart(own)
    done = own.rest.wait(operation)
    assert Path(done["result"]["locations"][0]["path"]).is_dir()


def test_sigterm_parks_the_work_and_the_next_start_ends_it(own: Installation) -> None:
    own.simulator.control("PATCH", "/settings", {"task_seconds": 2.0})
    operation = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
    until(lambda: own.rest.request("GET", f"/operations/{operation['id']}")["phase"] == "taking the snapshot")
    assert own.server.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    own.server.start()
    assert own.rest.wait(operation)["state"] == "succeeded"
    assert len(own.vendor_snapshots()) == 1


def test_a_cancel_after_a_lost_ticket_leaves_no_snapshot(own: Installation) -> None:
    """Dies after the effect, before the ticket; cancelled while it is down."""
    fault = {"method": "POST", "route": "/snapshots", "action": "delay", "seconds": 1.5, "after_effect": True}
    own.simulator.control("POST", "/faults", fault)
    operation = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
    until(own.vendor_snapshots)
    own.rest.request("POST", f"/operations/{operation['id']}/cancel")
    kill_and_restart(own)
    assert own.rest.wait(operation)["state"] == "cancelled"
    assert own.vendor_snapshots() == []


def test_shares_deleted_during_a_resumed_discovery_hide_no_others(own: Installation) -> None:
    names = [f"s{number:03}" for number in range(220)]
    for name in names:
        own.simulator.control("POST", "/file-servers/files1/shares", {"name": name})
    own.discover()
    fault = {"method": "GET", "route": "/snapshots", "action": "delay", "seconds": 0.05, "times": None}
    own.simulator.control("POST", "/faults", fault)
    operation = own.rest.request("POST", "/systems/files1/discover")
    until(lambda: (own.rest.request("GET", f"/operations/{operation['id']}")["items"] or 0) > 50)
    own.server.end(signal.SIGKILL)
    api = Api(own.simulator)
    for name in names[:10]:
        path = api.share(name)
        api.wait(api.call("DELETE", path, headers=api.etag(path)))
    api.close()
    own.server.start()
    assert own.rest.wait(operation)["result"]["assets_gone"] == 0  # they were there when this one saw them
    assert {item["name"] for item in own.rest.pages("/assets", system="files1")} >= set(names[10:])
    assert own.discover()["result"]["assets_gone"] == 10
    assert {item["name"] for item in own.rest.pages("/assets", system="files1")} >= set(names[10:])


def test_a_dead_servers_address_is_not_trusted(own: Installation) -> None:
    own.server.end(signal.SIGKILL)
    assert (own.server.data_dir / "server.json").exists()
    ran = own.cli("asset", "list", "-o", "json")
    own.server.start()
    assert (ran.code, ran.error()["code"]) == (13, "unavailable")
