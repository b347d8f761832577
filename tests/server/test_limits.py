"""Requests that are too big, too slow, too many or plain wrong: a clear 4xx with an id, and the server goes on."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.installation import Installation, Server, until

from snapkeep.model.errors import RateLimited
from snapkeep.server.rates import MOST, Rates
from snapkeep.server.requests import MOST_BODY, MOST_HEAD, MOST_HEADERS, MOST_TARGET

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def client(running_installation: Installation) -> Iterator[httpx2.Client]:
    token = (running_installation.server.data_dir / "token").read_text().strip()
    with httpx2.Client(
        base_url=running_installation.rest.url,
        verify=running_installation.trust,
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as client:
        yield client


@contextmanager
def connected(server: Server) -> Iterator[Any]:
    """A connection on which a test writes what no client would."""
    host, port = server.rest.url.rpartition("//")[2].split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as plain:
        trust = server.trust
        if isinstance(trust, ssl.SSLContext):
            with trust.wrap_socket(plain, server_hostname=host) as wrapped:
                yield wrapped
        else:
            yield plain


def answered(connection: Any) -> tuple[int, str, dict[str, Any]]:
    """Read all until the server closes; return status, head and the problem."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1").lower(), json.loads(body)


def require_problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = dict(answer.json())
    assert problem["status"] == status
    assert problem["next_step"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


# -- ids ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "kept"),
    [("abcdefgh", True), ("A.b_c-9" * 9, True), ("short", False), ("x" * 65, False), ("a" * 8 + "\t[31m", False)],
)
def test_a_safe_id_is_kept_and_another_one_is_not(client: httpx2.Client, given: str, kept: bool) -> None:
    answer = client.get("/v1/me", headers={"X-Request-Id": given})
    assert answer.status_code == 200
    assert (answer.headers["x-request-id"] == given) is kept
    assert len(answer.headers["x-request-id"]) >= 8


def test_the_id_is_in_every_answer(client: httpx2.Client) -> None:
    own = "find-me-in-the-log"
    problem = require_problem(client.get("/v1/systems/none", headers={"X-Request-Id": own}), 404)
    assert problem["request_id"] == own
    body = b'{"name": "n", "plugin": "\\ud800", "settings": {}}'
    require_problem(client.post("/v1/systems", content=body, headers={"Content-Type": "application/json"}), 404)
    assert client.get("/health/ready").headers["x-request-id"]


# -- size and speed ----------------------------------------------------------------------------------------------------
def test_a_body_that_is_too_big_is_refused(client: httpx2.Client) -> None:
    require_problem(client.post("/v1/systems", content=b" " * (MOST_BODY + 1)), 413)
    require_problem(client.post("/v1/systems", content=(b" " * 65536 for _ in range(17))), 413)
    fits = client.post("/v1/systems", content=b" " * MOST_BODY, headers={"Content-Type": "application/json"})
    require_problem(fits, 422)


def test_an_address_or_a_head_that_is_too_long_is_refused(client: httpx2.Client) -> None:
    require_problem(client.get("/v1/assets?q=" + "x" * MOST_TARGET), 414)
    require_problem(client.get("/v1/assets", headers={"X-Long": "x" * MOST_HEADERS}), 431)


def test_a_head_without_end_is_refused(running_installation: Installation) -> None:
    with connected(running_installation.server) as connection:
        connection.sendall(b"GET /v1/assets HTTP/1.1\r\nX-Long: " + b"x" * MOST_HEAD)
        status, head, problem = answered(connection)
    assert status == 400
    assert f"content-type: {PROBLEM}" in head
    assert problem["code"] == "invalid_input"


@pytest.mark.parametrize(
    "begin", [b"what\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"]
)
def test_what_is_no_http_is_refused(running_installation: Installation, begin: bytes) -> None:
    with connected(running_installation.server) as connection:
        connection.sendall(begin)
        status, _, problem = answered(connection)
    assert (status, problem["status"]) == (400, 400)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose patience is short, and whose limits are low."""
    directory = tmp_path_factory.mktemp("strict")
    file = directory / "impatient.py"
    file.write_text(IMPATIENT)
    server = Server(directory / "server", {"SNAPKEEP_REQUESTS_PER_SECOND": "2", "SNAPKEEP_REQUESTS_BURST": "8"})
    server.command[1:3] = [str(file)]
    try:
        server.start()
        yield server
    finally:
        server.close()


IMPATIENT = """
from snapkeep.cli.main import main
from snapkeep.server import protocol, requests

protocol.HEAD_SECONDS = 0.3
requests.Requests.__init__.__defaults__ = (0.3,)
main()
"""


def test_what_is_too_slow_is_refused(strict: Server) -> None:
    own = (strict.data_dir / "token").read_text().strip().encode()
    head = b"POST /v1/systems HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + own + b"\r\nContent-Length: 10\r\n"
    chunked = head.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
    for slow in (b"", b"GET /v1/me HT", head + b"\r\n{", chunked + b"\r\n1\r\n{\r\n"):
        with connected(strict) as connection:
            connection.sendall(slow)
            status, told, problem = answered(connection)
        assert status == 408, slow
        assert "connection: close" in told
        assert problem["code"] == "invalid_input"
    assert strict.rest.request("GET", "/me")["name"] == "administrator"


def test_a_caller_who_goes_away_in_the_middle_of_a_body_leaves_no_trace(running_installation: Installation) -> None:
    before = len(running_installation.server.said())
    with connected(running_installation.server) as connection:
        connection.sendall(b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert running_installation.rest.request("GET", "/me")
    assert "failed unexpectedly" not in running_installation.server.said()[before:]


# -- how many ----------------------------------------------------------------------------------------------------------
def test_a_bucket_empties_fills_and_is_forgotten() -> None:
    now = 100.0
    rates = Rates(8, 3, lambda: now)
    for _ in range(3):
        rates.take("a")
    with pytest.raises(RateLimited) as refused:
        rates.take("a")
    assert refused.value.details["retry_after"] == 0.125
    rates.take("b")
    now += 0.125
    rates.take("a")
    with pytest.raises(RateLimited):
        rates.take("a")
    now += 1000
    for _ in range(3):
        rates.take("a")
    with pytest.raises(RateLimited):
        rates.take("a")
    for number in range(MOST):
        rates.take(f"other {number}")
    rates.take("a")  # forgotten, so it begins anew
    assert len(rates._buckets) == MOST
    for _ in range(100):
        Rates(0, 1, lambda: now).take("a")


def test_who_asks_too_often_waits_and_nobody_else_does(strict: Server) -> None:
    rest = strict.rest
    rest.request("POST", "/identities", json={"name": "robot", "kind": "service"})
    token = rest.request("POST", "/tokens", json={"name": "t", "identity": "robot"})["token"]
    trust = strict.trust

    def until_refused(token: str) -> list[httpx2.Response]:
        with httpx2.Client(base_url=rest.url, headers={"Authorization": f"Bearer {token}"}, verify=trust) as client:
            answers = [client.get("/v1/me")]
            while answers[-1].status_code != 429:
                answers.append(client.get("/v1/me"))
        return answers

    *let_in, refused = until_refused(token)
    assert len(let_in) >= 8
    assert {answer.status_code for answer in let_in} == {200}
    assert require_problem(refused, 429)["code"] == "rate_limited"
    assert refused.headers["retry-after"] == "1"
    *turned_away, refused = until_refused("wrong")
    assert {answer.status_code for answer in turned_away} == {401}
    require_problem(refused, 429)
    assert [rest.request("GET", "/me")["name"] for _ in range(20)] == ["administrator"] * 20
    until(lambda: len(until_refused(token)) > 1)


# -- bad input ---------------------------------------------------------------------------------------------------------
DEEP = b"[" * 100_000
STRANGE = [
    b"\xff\xfe",
    b'{"name": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"name": "\\u0000", "plugin": "\\u0000", "settings": {}}',
    b'{"name": "x", "plugin": "nutanix-files", "settings": {"\\u0000": "\\u0000", "port": NaN}}',
    b'{"name": "x", "plugin": "nutanix-files", "settings": {"port": 1' + b"0" * 5000 + b"}}",
    b'{"name": "x", "plugin": "nutanix-files", "settings": {"port": 1e400, "host": "\\udead"}}',
    b'{"name": "x", "plugin": "nutanix-files", "settings": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    DEEP,
    b'{"a":' * 100_000,
    b"null",
    b'"text"',
    b"1" * 100_000,
]


@pytest.mark.parametrize("body", STRANGE, ids=range(len(STRANGE)))
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "\u00e9", ""])
def test_a_strange_body_is_refused(client: httpx2.Client, body: bytes, kind: str) -> None:
    for path in ("/v1/systems", "/v1/login", "/v1/identities", "/v1/change-lists"):
        answer = client.post(path, content=body, headers=[(b"Content-Type", kind.encode("latin-1"))])
        assert 400 <= answer.status_code < 500, (path, answer.text)
        require_problem(answer, answer.status_code)


WORDS = st.text(st.characters(codec="utf-8") | st.sampled_from("\0/.\\%&=+\r\n\x1b\u202e"), max_size=40)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=WORDS, value=WORDS)
def test_strange_paths_and_queries_are_refused(client: httpx2.Client, name: str, value: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    for path in ("systems", "assets", "snapshots", "exports", "operations", "backups", "change-lists", "repositories"):
        answer = client.get(f"/v1/{path}/{quoted or 'x'}")
        assert answer.status_code in {404, 422}, answer.text
    for params in ({"q": value}, {"after": value}, {"sort": value}, {"fields": value}, {"label": value}, {name: value}):
        answer = client.get("/v1/assets", params=params)
        assert answer.status_code in {200, 422}, (params, answer.text)
    for params in ({"since": value}, {"state": value}, {"limit": value}, {"kind": value}, {"requester": value}):
        answer = client.get("/v1/operations", params=params)
        assert answer.status_code in {200, 422}, (params, answer.text)


@pytest.mark.parametrize(
    "query",
    [
        "system=a&system=b",
        "limit=1&limit=2",
        "limit=" + "9" * 5000,
        "limit=1e3",
        "since=0001-01-01T00:00:00%2B23:59",
        "since=9999-12-31T23:59:59-23:59",
        "since=2026-01-01T00:00:00",
        "since=99999999999999999999",
        "q=%ff%fe",
        "name=%00",
        "%00=%00",
        "q=" + "%25" * 255,
        "q=" + "_" * 256,
    ],
)
def test_strange_parameters_are_refused_or_find_nothing(client: httpx2.Client, query: str) -> None:
    for path in ("assets", "snapshots", "operations"):
        answer = client.get(f"/v1/{path}?{query}")
        assert answer.status_code in {200, 422}, answer.text


def test_an_unknown_parameter_is_refused(client: httpx2.Client, running_installation: Installation) -> None:
    problem = require_problem(client.get("/v1/assets?sytem=files1"), 422)
    assert "sytem" in problem["message"]
    assert "system" in problem["next_step"]
    before = running_installation.rest.request("GET", "/roles?built_in=false")["data"]
    client.put("/v1/roles/kept", json={"actions": ["asset.read"]})
    require_problem(client.delete("/v1/roles/kept?dryrun=true"), 422)
    assert client.delete("/v1/roles/kept").status_code == 204
    assert running_installation.rest.request("GET", "/roles?built_in=false")["data"] == before


def test_no_line_of_the_log_is_made_by_a_caller(client: httpx2.Client, running_installation: Installation) -> None:
    before = len(running_installation.server.said())
    evil = "x\n2026-01-01T00:00:00Z [error] forged"
    client.get("/v1/systems/" + "".join(f"%{byte:02x}" for byte in evil.encode()))
    client.post("/v1/login", json={"name": evil, "password": evil})
    client.get("/v1/assets", params={"system": evil}, headers={"X-Request-Id": "forged\t[error]"})
    lines = running_installation.server.said()[before:].splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01T00:00:00Z")]


def test_a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has(client: httpx2.Client) -> None:
    for path, methods in (("systems/x", "DELETE, GET, PATCH"), ("assets", "GET"), ("operations/events", "GET")):
        answer = client.request("OPTIONS", f"/v1/{path}")
        require_problem(answer, 405)
        assert answer.headers["allow"] == methods
