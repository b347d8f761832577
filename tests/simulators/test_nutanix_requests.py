"""Authentication, permissions, request ids, headers, unknown routes."""

import email.utils
import time
import uuid

import pytest

from snapkeep.simulators.kit.process import ControlFailedError, SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

ACCOUNT = {"name": "limited", "password": "secret:with colon", "api_key": "key-1", "permissions": ["View_File_*"]}


@pytest.fixture
def limited(simulator: SimulatorProcess) -> Api:
    simulator.control("POST", "/accounts", ACCOUNT)
    return Api(simulator, api_key="key-1")


def test_who_is_not_known_gets_401(api: Api, simulator: SimulatorProcess) -> None:
    for client in (
        Api(simulator, password="wrong"),
        Api(simulator, username="nobody"),
        Api(simulator, api_key="wrong"),
    ):
        reply = client.get("/config/file-servers")
        assert (reply.status, reply.code) == (401, "FILES-10401")
        client.close()
    api.credentials = {"Authorization": "Basic %%%"}
    assert api.get("/config/file-servers").status == 401
    api.credentials = {}
    assert api.get("/config/file-servers").status == 401


def test_a_missing_permission_is_named(limited: Api, api: Api) -> None:
    assert limited.get("/config/file-servers").status == 200
    reply = limited.call("POST", f"{api.share()}/snapshots", {"name": "x"})
    assert (reply.status, reply.code) == (403, "FILES-10403")
    message = reply.data["error"][0]
    assert message["argumentsMap"] == {"permission": "Create_Mount_Target_Snapshot"}
    assert "Create_Mount_Target_Snapshot" in message["message"]
    limited.close()


def test_the_accounts_that_come_with_it(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    password, key = simulator.secrets("backup")
    backup = Api(simulator, username="backup", password=password)
    backup.wait(backup.call("POST", f"{share}/snapshots", {"name": "one"}))
    assert backup.call("DELETE", share).status == 403
    backup.close()
    for client in (Api(simulator, api_key=simulator.secrets("viewer")[1]), Api(simulator, api_key=key)):
        assert len(client.get(f"{share}/snapshots").data) == 1
        assert client.call("POST", f"{api.server()}/mount-targets", {"name": "x"}).status == 403
        client.close()


def test_password_with_a_colon(simulator: SimulatorProcess, limited: Api) -> None:
    client = Api(simulator, username="limited", password=ACCOUNT["password"])  # type: ignore[arg-type]
    assert client.get("/config/file-servers").status == 200
    client.close()
    limited.close()


def test_sessions(api: Api, simulator: SimulatorProcess) -> None:
    reply = api.get("/config/file-servers")
    cookie = reply.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("NTNX_IGW_SESSION=")
    client = Api(simulator)
    client.credentials = {"Cookie": cookie}
    assert "set-cookie" not in client.get("/config/file-servers").headers
    assert simulator.control("POST", "/sessions/expire")["ended"] >= 1
    assert client.get("/config/file-servers").status == 401
    assert client.get("/config/file-servers").status == 401
    assert api.get("/config/file-servers").status == 200
    client.close()
    simulator.control("PATCH", "/settings", {"session_cookie": False})
    assert "set-cookie" not in api.get("/config/file-servers").headers


def test_the_next_call_is_401_after_expiry(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("POST", "/sessions/expire")
    assert [api.get("/config/file-servers").status for _ in range(2)] == [401, 200]


def test_a_repeated_request_id_acts_once(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    header = {"NTNX-Request-Id": str(uuid.uuid4())}
    first = api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header)
    second = api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header)
    assert first.raw == second.raw
    assert second.status == 202
    api.wait(first)
    assert len(api.get(f"{share}/snapshots").data) == 1
    elsewhere = api.call("POST", f"{api.share('homes')}/snapshots", {"name": "one"}, headers=header)
    assert elsewhere.data != first.data
    api.wait(elsewhere)
    simulator.control("PATCH", "/settings", {"request_id_scope": "off"})
    assert api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header).status == 409
    simulator.control("PATCH", "/settings", {"request_id_required": True})
    assert api.call("POST", f"{share}/snapshots", {"name": "two"}).code == "FILES-10414"


def test_a_refused_request_may_be_repeated_with_its_id(api: Api, simulator: SimulatorProcess) -> None:
    header = {"NTNX-Request-Id": "same"}
    share = api.share()
    path = "/file-servers/files1/shares/projects"
    simulator.control("PATCH", path, {"paused": True})
    assert api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header).status == 400
    simulator.control("PATCH", path, {"paused": False})
    assert api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header).status == 202


def test_unknown_routes(api: Api) -> None:
    assert api.get("/config/nonsense").code == "FILES-10404"
    assert api.call("PATCH", "/config/file-servers").code == "FILES-10405"
    assert api.get("/config/file-servers/x").code == "FILES-20404"
    assert api.call("GET", "/api/prism/v4.0/config/tasks/ZXJnb24=:x").code == "PRISM-10404"
    assert api.call("GET", "/api/prism/v4.0/config/tasks/x").status == 404


def test_the_date_is_the_simulators(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("PATCH", "/settings", {"clock_skew_seconds": -7200})
    told = email.utils.parsedate_to_datetime(api.get("/config/file-servers").headers["date"]).timestamp()
    assert abs(time.time() - 7200 - told) < 60


def test_the_request_log(api: Api, simulator: SimulatorProcess) -> None:
    before = simulator.control("GET", "/requests")["count"]
    api.call("GET", "/config/file-servers", query={"$limit": 3}, headers={"NTNX-Request-Id": "r1"})
    entry = simulator.control("GET", f"/requests?after={before}")["requests"][0]
    assert (entry["n"], entry["method"], entry["status"]) == (before + 1, "GET", 200)
    assert (entry["account"], entry["request_id"], entry["query"]) == ("admin", "r1", "%24limit=3")


def test_error_codes_are_a_setting(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("PATCH", "/settings", {"error_codes": {"file_server_not_found": "FILES-1"}})
    assert api.get("/config/file-servers/x").code == "FILES-1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/settings", {"task_seconds": "x"}, 400),
        ("PATCH", "/settings", {"nonsense": 1}, 400),
        ("PATCH", "/settings", {"cft_page_entries": 301}, 400),
        ("POST", "/file-servers", {"name": "files1"}, 400),
        ("POST", "/file-servers", {"name": "a name that is too long"}, 400),
        ("POST", "/file-servers/files1/shares", {"name": "n", "type": "NESTED"}, 400),
        ("POST", "/file-servers/none/shares", {"name": "n"}, 404),
        ("GET", "/file-servers/files1/shares/none", None, 404),
        ("POST", "/faults", {"action": "nonsense"}, 400),
        ("POST", "/faults", {"action": "delay", "path": "("}, 400),
        ("GET", "/nonsense", None, 404),
        ("DELETE", "/settings", None, 405),
    ],
)
def test_the_control_api_refuses(
    simulator: SimulatorProcess, method: str, path: str, body: object, status: int
) -> None:
    with pytest.raises(ControlFailedError) as caught:
        simulator.control(method, path, body)
    assert caught.value.status == status


def test_the_overview_has_no_secrets(simulator: SimulatorProcess) -> None:
    overview = simulator.control("GET", "/")
    assert simulator.password not in str(overview)
    assert {account["name"] for account in overview["accounts"]} >= {"admin", "backup", "viewer"}


def test_a_new_file_server(api: Api, simulator: SimulatorProcess) -> None:
    shares = [{"name": "top"}, {"name": "deep", "type": "NESTED", "parent": "top", "path": "a/b"}]
    simulator.control("POST", "/file-servers", {"name": "files3", "fqdn": "f.example.org", "shares": shares})
    assert api.call("GET", api.share("deep", "files3")).data["path"] == "top/a/b"
