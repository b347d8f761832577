"""The REST API: closed without a token, one form of errors, no secret gets out."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.installation import Installation, Server

from snapkeep.model.errors import Conflict
from snapkeep.server.app import create_app


def call(installation: Installation, method: str, path: str, token: str | None = None, **more: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    headers |= more.pop("headers", {})
    return httpx2.request(method, installation.rest.url + path, headers=headers, verify=installation.trust, **more)


def token(installation: Installation) -> str:
    return (installation.server.data_dir / "token").read_text().strip()


def test_every_route_needs_the_token(installation: Installation) -> None:
    description = installation.rest.request("GET", "/openapi.json")
    tried = 0
    for path, methods in description["paths"].items():
        concrete = re.sub(r"\{[^}]*\}", "x", path)
        for method, operation in methods.items():
            if operation["x-permission"] == ["anybody"]:
                continue
            for wrong in (None, "wrong", token(installation) + "x"):
                answer = call(installation, method.upper(), concrete, wrong, json={})
                assert answer.status_code == 401, (method, path, wrong)
                assert answer.json()["code"] == "authentication_failed"
                tried += 1
    assert tried > 60
    for path in ("/docs", "/redoc", "/openapi.json", "/", "/v1"):
        assert call(installation, "GET", path).status_code in {401, 404}


def test_errors_have_one_form(installation: Installation) -> None:
    own = token(installation)
    for method, path, body, status, code in (
        ("GET", "/v1/nowhere", None, 404, "not_found"),
        ("PUT", "/v1/systems", None, 405, "invalid_input"),
        ("GET", "/v1/systems/x", None, 404, "not_found"),
        ("GET", "/v1/snapshots/x", None, 404, "not_found"),
        ("GET", "/v1/exports/x", None, 404, "not_found"),
        ("GET", "/v1/operations/x", None, 404, "not_found"),
        ("GET", "/v1/change-lists/x", None, 404, "not_found"),
        ("GET", "/v1/assets?limit=0", None, 422, "invalid_input"),
        ("GET", "/v1/assets?after=x", None, 422, "invalid_input"),
        ("GET", "/v1/snapshots?after=x", None, 422, "invalid_input"),
        ("GET", "/v1/operations?after=x", None, 422, "invalid_input"),
        ("GET", "/v1/operations?state=asleep", None, 422, "invalid_input"),
        ("POST", "/v1/systems", b"{", 422, "invalid_input"),
        ("POST", "/v1/systems", b"[]", 422, "invalid_input"),
        ("POST", "/v1/systems", b'{"name": "x", "plugin": "p", "settings": {}, "more": 1}', 422, "invalid_input"),
        ("POST", "/v1/systems", b'{"name": "../x", "plugin": "p", "settings": {}}', 422, "invalid_input"),
        ("POST", "/v1/systems", b'{"name": "x", "plugin": "p", "settings": {}}', 404, "not_found"),
    ):
        answer = call(installation, method, path, own, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == code
        assert problem["status"] == status
        assert problem["type"] == f"urn:snapkeep:error:{code}"
        assert problem["next_step"]


def test_every_wrong_setting_is_named(installation: Installation) -> None:
    body = {"name": "x", "plugin": "nutanix-files", "settings": {"host": "a/b", "port": "x", "colour": 1}}
    problem = call(installation, "POST", "/v1/systems", token(installation), json=body).json()
    for field in ("host", "port", "colour", "file_server"):
        assert any(line.startswith(field) for line in problem["details"]["fields"]), field


def test_no_secret_gets_out(installation: Installation) -> None:
    canary = "CANARY-7f3a9e"
    installation.rest.request("DELETE", "/systems/files1")
    installation.add_system(username="backup", password=canary)
    said = [
        json.dumps(installation.rest.request("GET", path))
        for path in ("/systems", "/systems/files1", "/plugins", "/operations", "/openapi.json")
    ]
    said.append(json.dumps(installation.rest.request("POST", "/systems/files1/check")))
    body = {"name": "bad", "plugin": "nutanix-files", "settings": {"password": canary, "host": canary + "/"}}
    said.append(call(installation, "POST", "/v1/systems", token(installation), json=body).text)
    ran = installation.cli("discover", "files1")
    said += [ran.out, ran.err, installation.server.log.read_text()]
    for path in filter(Path.is_file, installation.server.data_dir.rglob("*")):
        said.append(path.read_bytes().decode("latin-1"))
    for text in said:
        assert canary not in text


def test_files_are_for_the_owner_alone(installation: Installation) -> None:
    directory = installation.server.data_dir
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("token", "secret.key", "lock"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snapkeep", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=os.environ)


def test_a_second_server_on_one_data_directory_is_refused(installation: Installation) -> None:
    done = serve("--data-dir", str(installation.server.data_dir), "--port", "0")
    assert done.returncode == 5
    assert "Another server uses" in done.stderr
    assert (installation.server.data_dir / "server.json").exists()


def test_a_taken_port_a_public_address_and_a_bad_directory_are_refused(
    installation: Installation, tmp_path: Path
) -> None:
    port = installation.rest.url.rpartition(":")[2]
    taken = serve("--data-dir", str(tmp_path / "a"), "--port", port)
    assert (taken.returncode, "Cannot listen" in taken.stderr) == (4, True)
    public = serve("--data-dir", str(tmp_path / "b"), "--host", "0.0.0.0", "--no-tls")
    assert (public.returncode, "loopback only" in public.stderr) == (2, True)
    (tmp_path / "file").write_text("")
    bad = serve("--data-dir", str(tmp_path / "file" / "x"), "--port", "0")
    assert (bad.returncode, "cannot be used" in bad.stderr) == (2, True)


def test_entries_of_a_list_page_by_page_and_as_a_stream(installation: Installation) -> None:
    live = installation.live()
    for number in range(25):
        (live / f"f{number:02}").write_text("x" * number)
    snapshot = installation.snapshot()
    done = installation.run("POST", "/change-lists", {"base_id": None, "new_id": snapshot["id"]})
    path = f"/change-lists/{done['result']['change_list']}/entries"
    paged = list(installation.rest.pages(path, limit=7))
    assert [entry["position"] for entry in paged] == list(range(1, len(paged) + 1))
    streamed = [json.loads(line) for line in installation.rest.stream(path, [])]
    assert streamed == [{key: value for key, value in entry.items() if key != "position"} for entry in paged]
    only = list(installation.rest.pages(path, type="directory", limit=1))
    assert {entry["type"] for entry in only} == {"directory"}


def test_a_decision_on_an_operation_may_be_repeated(installation: Installation) -> None:
    """As docs/how-to/use-the-rest-api.md says of what takes no Idempotency-Key."""
    installation.add_system("idle", queue="nobody")
    operation = installation.ask("POST", "/systems/idle/discover")
    for verb, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        first = installation.rest.request("POST", f"/operations/{operation['id']}/{verb}")
        assert first["state"] == state
        if state != "cancelled":
            assert installation.rest.request("POST", f"/operations/{operation['id']}/{verb}")["state"] == state
    with pytest.raises(Conflict):
        installation.rest.request("POST", f"/operations/{operation['id']}/cancel")


def test_the_description_is_complete() -> None:
    app = create_app("t" * 40, lambda: pytest.fail("not opened"))
    for path, methods in app.openapi()["paths"].items():
        for method, route in methods.items():
            assert route.get("description"), f"{method} {path} has no description"


def test_a_log_of_an_error_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "from snapkeep.server import logs; import structlog; logs.configure('FORM', 'INFO')\n"
        "def fail(password):\n    raise ValueError('what')\n"
        "try:\n    fail('CANARY' + '-9')\nexcept ValueError:\n    structlog.get_logger().exception('failed')"
    )
    for form in ("text", "json"):
        ran = subprocess.run(
            [sys.executable, "-c", code.replace("FORM", form)], capture_output=True, text=True, check=True
        )
        assert "ValueError: what" in ran.stderr
        assert "CANARY-9" not in ran.stderr


@pytest.mark.parametrize("key", ["TOP\x0bSECRET", "schl\u00fcssel", "a b"])
def test_a_secret_that_is_none_is_refused_without_being_shown(installation: Installation, key: str) -> None:
    body = {"name": "x", "plugin": "nutanix-files", "settings": {"host": "h", "file_server": "f", "api_key": key}}
    answer = call(installation, "POST", "/v1/systems", token(installation), json=body)
    assert answer.status_code == 422
    assert "api_key" in answer.text
    assert key not in answer.text
    assert key not in installation.server.log.read_text()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    for name, content, word in (
        ("secret.key", "", "does not hold a key"),
        ("catalog.sqlite", "x" * 5000, "cannot be used"),
    ):
        directory = tmp_path / name.partition(".")[0]
        directory.mkdir()
        (directory / name).write_text(content)
        done = serve("--data-dir", str(directory), "--port", "0")
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
        assert "Next:" in done.stderr
        assert "Traceback" not in done.stderr
    wrong = serve("--data-dir", str(tmp_path / "c"), "--port", "99999")
    assert (wrong.returncode, "port" in wrong.stderr, "Traceback" in wrong.stderr) == (2, True, False)


def test_a_strange_data_directory_holds_all_its_files(tmp_path: Path) -> None:
    directory = tmp_path / "what? 100%"
    server = Server(directory)
    server.start()
    server.close()
    assert {"catalog.sqlite", "engine.sqlite", "token"} <= {path.name for path in directory.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"what? 100%", "what? 100%.log"}
