"""Scripted faults, each over real HTTP."""

import http.client
import json
import time
from typing import Any

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

SERVERS = "/config/file-servers"
SNAPSHOTS = "/mount-targets/{mtId}/snapshots"


def fault(simulator: SimulatorProcess, action: str, **fields: Any) -> None:
    simulator.control("POST", "/faults", {"action": action, **fields})


def hits(simulator: SimulatorProcess) -> list[int]:
    return [each["hits"] for each in simulator.control("GET", "/faults")["faults"]]


def test_a_status_from_the_nth_call_on_some_times(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "status", route=SERVERS, status=503, nth=2, times=2, envelope=False, retry_after="3")
    replies = [api.get(SERVERS) for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 503, 503, 200, 200]
    assert replies[1].headers["retry-after"] == "3"
    assert b"data" not in replies[1].raw
    assert hits(simulator) == [2]
    simulator.control("DELETE", "/faults")
    assert simulator.control("GET", "/faults")["faults"] == []


def test_an_enveloped_status_has_code_and_message(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "status", method="GET", path="file-servers$", status=429, code="FILES-7", message="slow down")
    reply = api.get(SERVERS)
    assert (reply.status, reply.code, reply.data["error"][0]["message"]) == (429, "FILES-7", "slow down")


def test_routes_methods_and_chance(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    fault(simulator, "status", method="POST", route=SNAPSHOTS, times=None)
    assert api.get(f"{share}/snapshots").status == 200
    assert api.call("POST", f"{share}/snapshots", {"name": "n"}).status == 500
    simulator.control("DELETE", "/faults")
    fault(simulator, "status", route=SERVERS, probability=0.5, seed=3, times=None)
    one = [api.get(SERVERS).status for _ in range(20)]
    simulator.control("DELETE", "/faults")
    fault(simulator, "status", route=SERVERS, probability=0.5, seed=3, times=None)
    assert [api.get(SERVERS).status for _ in range(20)] == one
    assert set(one) == {200, 500}


def test_a_fault_that_lasts_for_a_while(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "status", route=SERVERS, status=404, nth=2, lasting=0.3)
    assert [api.get(SERVERS).status for _ in range(4)] == [200, 404, 404, 404]
    time.sleep(0.3)
    assert [api.get(SERVERS).status for _ in range(2)] == [200, 200]
    assert hits(simulator) == [3]


def test_delay(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "delay", route=SERVERS, seconds=0.3)
    begin = time.monotonic()
    assert api.get(SERVERS).status == 200
    assert time.monotonic() - begin >= 0.3


def test_reset_before_and_after_the_effect(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    path = f"{share}/snapshots"
    fault(simulator, "reset", method="POST")
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        api.call("POST", path, {"name": "lost"})
    time.sleep(0.1)
    assert api.get(path).data == []
    fault(simulator, "reset", method="POST", after_effect=True)
    header = {"NTNX-Request-Id": "r"}
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        api.call("POST", path, {"name": "made"}, headers=header)
    assert api.wait(api.call("POST", path, {"name": "made"}, headers=header))["status"] == "SUCCEEDED"
    assert [each["name"] for each in api.get(path).data] == ["made"]
    assert [entry["status"] for entry in simulator.control("GET", "/requests")["requests"]].count(0) >= 2


def test_a_500_after_the_effect(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    fault(simulator, "status", method="POST", status=500, after_effect=True)
    assert api.call("POST", f"{share}/snapshots", {"name": "made"}).status == 500
    time.sleep(0.2)
    assert len(api.get(f"{share}/snapshots").data) == 1


def test_hang_until_the_client_goes(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "hang", route=SERVERS)
    with pytest.raises(TimeoutError):
        api.call("GET", SERVERS, timeout=0.3)
    assert api.get(SERVERS).status == 200


def test_truncate(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "truncate", route=SERVERS)
    with pytest.raises(http.client.IncompleteRead) as caught:
        api.get(SERVERS)
    assert len(caught.value.partial) > 100
    assert api.get(SERVERS).status == 200


def test_garbage(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "garbage", route=SERVERS)
    fault(simulator, "garbage", route=SERVERS, garbage="json", nth=2)
    html = api.get(SERVERS)
    assert (html.status, html.headers["content-type"]) == (200, "text/html")
    broken = api.get(SERVERS)
    assert broken.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        _ = broken.json


def test_expired_session_and_precondition(api: Api, simulator: SimulatorProcess) -> None:
    fault(simulator, "expired_session", route=SERVERS)
    assert [api.get(SERVERS).status for _ in range(2)] == [401, 200]
    fault(simulator, "precondition", route=SERVERS)
    assert api.get(SERVERS).status == 412


def test_tasks_that_fail_or_get_stuck(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    fault(simulator, "task", method="POST", task="fail", code="FILES-99", message="no space")
    task = api.wait(api.call("POST", f"{share}/snapshots", {"name": "one"}))
    assert task["status"] == "FAILED"
    assert [(each["code"], each["message"]) for each in task["errorMessages"]] == [("FILES-99", "no space")]
    assert api.get(f"{share}/snapshots").data == []
    fault(simulator, "task", method="POST", task="stuck")
    begun = api.call("POST", f"{share}/snapshots", {"name": "two"})
    time.sleep(0.2)
    stuck = api.call("GET", f"/api/prism/v4.0/config/tasks/{begun.data['extId']}").data
    assert (stuck["status"], stuck["progressPercentage"]) == ("RUNNING", 99)


def test_lying_success(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    fault(simulator, "lying_success", method="POST")
    assert api.wait(api.call("POST", f"{share}/snapshots", {"name": "one"}))["status"] == "SUCCEEDED"
    assert api.get(f"{share}/snapshots").data == []


def test_other_words_the_same_codes(api: Api, simulator: SimulatorProcess) -> None:
    plain = api.get(f"{SERVERS}/x")
    fault(simulator, "reword", times=None)
    other = api.get(f"{SERVERS}/x")
    assert other.code == plain.code
    assert other.data["error"][0]["message"] != plain.data["error"][0]["message"]


def test_unknown_enum_and_missing_field(api: Api, simulator: SimulatorProcess) -> None:
    path = f"{api.server()}/mount-targets"
    fault(simulator, "unknown_enum", route="/mount-targets")
    odd = api.get(path).data[0]
    assert (odd["type"], odd["state"], odd["name"]) == ("$UNKNOWN", "$UNKNOWN", "projects")
    fault(simulator, "unknown_enum", route="/mount-targets", fields=["type"])
    new = api.get(path).data[0]
    assert (new["type"], new["state"]) == ("BRAND_NEW_VALUE", "ONLINE")
    fault(simulator, "missing_field", route="/mount-targets", fields=["state", "totalAvailableResults"])
    reply = api.get(path)
    assert "state" not in reply.data[0]
    assert "totalAvailableResults" not in reply.json["metadata"]


def test_one_fault_can_be_removed(api: Api, simulator: SimulatorProcess) -> None:
    made = simulator.control("POST", "/faults", {"action": "status", "times": None})
    assert api.get(SERVERS).status == 500
    simulator.control("DELETE", f"/faults/{made['id']}")
    assert api.get(SERVERS).status == 200
