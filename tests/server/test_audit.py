"""The audit log of requests: nothing changes without a record, refused tries have one, and no secret is in it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message
from tests.support.installation import Installation, Json, Server, until
from tests.support.people import PASSWORD, People
from tests.support.postgres import Postgres

from snapkeep.catalog.audit import Audit
from snapkeep.catalog.audit_chain import Entry, Outcome
from snapkeep.catalog.audit_verification import read_key, verify_database
from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.key_sources import KeyFile
from snapkeep.catalog.secrets import SecretBox
from snapkeep.cli.rest import Rest
from snapkeep.model.errors import NotFound, SnapkeepError, Unavailable
from snapkeep.operations.clock import Clock
from snapkeep.server.auditing import NOBODY, Auditing, Auditor

CANARY = "CANARY-5e1f7c"


class Log:
    """What is written from now on."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.last = rest.request("GET", "/audit/head")["seq"]

    def lines(self) -> list[Json]:
        return list(self.rest.pages("/audit", sort="seq", limit=50) if self.last == 0 else self._behind())

    def _behind(self) -> Iterator[Json]:
        after: Any = self.last
        while after is not None:
            page = self.rest.request("GET", "/audit", params={"sort": "seq", "after": after, "limit": 50})
            yield from page["data"]
            after = page["next"]

    def short(self) -> list[tuple[str, str, str, str]]:
        """Who, what, on what, outcome."""
        return [(line["actor"], line["action"], line["subject"], line["outcome"]) for line in self.lines()]


@pytest.fixture
def log(installation: Installation) -> Log:
    return Log(installation.rest)


def send(installation: Installation, method: str, path: str, token: str | None = None, **more: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    url = installation.rest.url + path
    return httpx2.request(method, url, headers=headers | more.pop("headers", {}), verify=installation.trust, **more)


def local(installation: Installation) -> str:
    return (installation.server.data_dir / "token").read_text().strip()


# -- what is written ---------------------------------------------------------------------------------------------------
def test_a_change_is_asked_done_and_ended(installation: Installation, log: Log) -> None:
    done = installation.run("POST", f"/assets/{installation.asset()['id']}/snapshots", {"name": "before"})
    asked, answered, ended = log.lines()
    for line in (asked, answered):
        assert (line["actor"], line["actor_kind"], line["source"]) == ("administrator", "local", "127.0.0.1")
        assert (line["action"], line["subject"]) == ("snapshot.create", "files1/projects")
    assert (asked["outcome"], asked["status"], asked["detail"]) == ("asked", None, {"fields": ["name"]})
    assert (answered["outcome"], answered["status"]) == ("done", 202)
    assert answered["detail"] == ended["detail"] == {"operation": done["id"]}
    assert asked["request_id"] == answered["request_id"] != ""
    assert (ended["actor"], ended["actor_kind"], ended["action"]) == ("administrator", "operation", "operation.create")
    assert (ended["subject"], ended["outcome"], ended["status"]) == (done["target"], "done", None)
    assert ended["source"] != ""


def test_what_fails_is_on_record_with_its_code(installation: Installation, log: Log) -> None:
    own = local(installation)
    asset = installation.asset()["id"]
    assert send(installation, "POST", f"/v1/assets/{asset}/snapshots", own, json={"nme": "x"}).status_code == 422
    assert send(installation, "DELETE", "/v1/snapshots/unknown", own).status_code == 404
    body = {"name": "x", "plugin": "p", "settings": {"password": CANARY, "host": "h"}}
    assert send(installation, "POST", "/v1/systems", own, json=body).status_code == 404
    assert send(installation, "PUT", "/v1/systems", own).status_code == 405
    assert send(installation, "POST", "/v1/nowhere", own).status_code == 404
    unknown, missing, asked, failed = log.lines()
    assert [line["outcome"] for line in (unknown, missing, asked, failed)] == ["failed", "failed", "asked", "failed"]
    assert [line["detail"].get("code") for line in (unknown, missing, failed)] == [
        "invalid_input",
        "not_found",
        "not_found",
    ]
    assert (missing["action"], missing["subject"]) == ("snapshot.delete", "/snapshots/unknown")
    assert (asked["action"], asked["subject"]) == ("system.add", "/systems")
    assert asked["detail"] == {"fields": ["name", "plugin", "settings.host", "settings.password"]}


def test_what_was_made_is_named(installation: Installation, log: Log) -> None:
    rest = installation.rest
    rest.request("POST", "/identities", json={"name": "alice", "kind": "user", "password": PASSWORD})
    granted = rest.request("POST", "/identities/alice/grants", json={"role": "viewer", "scope": "system:files1"})
    rest.request("DELETE", f"/identities/alice/grants/{granted['id']}")
    rest.request("DELETE", "/identities/alice")
    lines = [line for line in log.lines() if line["outcome"] == "done"]
    assert [line["subject"] for line in lines] == [
        "/identities/alice",
        "/identities/alice/grants",
        f"/identities/alice/grants/{granted['id']}",
        "/identities/alice",
    ]
    assert {line["action"] for line in lines} == {"identity.manage"}
    assert lines[1]["detail"] == {"id": granted["id"], "role": "viewer", "scope": "system:files1"}


def test_reads_are_not_on_record_but_those_that_hand_out_data(installation: Installation, log: Log) -> None:
    rest = installation.rest
    for path in ("/systems", "/assets", "/operations", "/audit", "/audit/head", "/me", "/openapi.json"):
        rest.request("GET", path)
    send(installation, "GET", "/health/ready")
    send(installation, "GET", "/v1/snapshots/unknown", local(installation))
    assert log.lines() == []
    exported = b"".join(rest.content("/audit/export", [("first", "1")]))
    assert exported.count(b"\n") > 1
    [line] = log.lines()
    assert (line["action"], line["outcome"], line["status"]) == ("audit.read", "done", 200)
    assert line["detail"] == {"first": "1"}
    assert line["seq"] == json.loads(exported.splitlines()[0])["head"]["seq"] + 1


def test_names_that_are_no_text_are_on_record_and_can_be_read(installation: Installation, log: Log) -> None:
    snapshot = installation.snapshot()
    listed = installation.run("POST", "/change-lists", {"base_id": None, "new_id": snapshot["id"]})
    log.last = installation.rest.request("GET", "/audit/head")["seq"]
    path = f"/change-lists/{listed['result']['change_list']}/entries?path=a%FF%ED%B0%80%0A%C3%A9"
    send(installation, "GET", f"/v1{path}", local(installation))
    [line] = log.lines()
    assert line["detail"] == {"path": "a\\xff\\xed\\xb0\\x80\né"}


def test_refused_tries_have_one_line(installation: Installation, log: Log) -> None:
    people = People(installation)
    people.user("viewer1", "viewer")
    token, later = people.tokens["viewer1"], Log(installation.rest)
    assert send(installation, "GET", "/v1/systems", "wrong").status_code == 401
    assert send(installation, "DELETE", "/v1/systems/files1", "wrong").status_code == 401
    assert send(installation, "DELETE", "/v1/systems/files1", token).status_code == 403
    assert send(installation, "GET", "/v1/audit", token).status_code == 403
    assert send(installation, "POST", "/v1/login", json={"name": "viewer1", "password": CANARY}).status_code == 401
    assert send(installation, "POST", "/v1/systems", content=b"{").status_code in {401, 422}
    assert [(line["actor"], line["action"], line["subject"], line["outcome"]) for line in later.lines()] == [
        ("", "system.read", "/systems", "refused"),
        ("", "system.remove", "/systems/files1", "refused"),
        ("viewer1", "system.remove", "files1", "refused"),
        ("viewer1", "audit.read", "/audit", "refused"),
        ("", "login", "viewer1", "refused"),
        ("", "system.add", "/systems", "refused"),
    ]
    [login] = [line for line in log.lines() if line["action"] == "login" and line["outcome"] == "done"]
    assert (login["actor"], login["actor_kind"]) == ("viewer1", "user")
    people.close()


def test_who_asks_for_what_is_hidden_is_on_record(installation: Installation, log: Log) -> None:
    people, asset = People(installation), installation.asset()
    curious = people.service("curious", ("viewer", "system:files2"))
    log.last = installation.rest.request("GET", "/audit/head")["seq"]
    for asked in (asset["id"], "not-there"):
        with pytest.raises(NotFound):
            curious.request("GET", f"/assets/{asked}")
    assert log.short() == [("curious", "asset.read", "files1/projects", "refused")]
    people.close()


def test_a_header_does_not_say_who_asks(installation: Installation, log: Log) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9"}
    assert send(installation, "GET", "/v1/systems", "wrong", headers=forged).status_code == 401
    assert [line["source"] for line in log.lines()] == ["127.0.0.1"]


def test_a_dry_run_is_not_taken_for_a_change(installation: Installation, log: Log) -> None:
    snapshot = installation.snapshot()
    log = Log(installation.rest)
    answer = send(installation, "DELETE", f"/v1/snapshots/{snapshot['id']}?dry_run=true", local(installation))
    if answer.status_code == 200:
        assert [line["detail"] for line in log.lines()][-1] == {"dry_run": True}


def test_no_secret_and_no_body_is_in_a_line(installation: Installation, log: Log) -> None:
    rest = installation.rest
    rest.request("DELETE", "/systems/files1")
    installation.add_system(username="backup", password=CANARY)
    for method, path, body in (
        ("PATCH", "/systems/files1", {"settings": {"password": CANARY + "2"}}),
        ("POST", "/systems/files1/check", None),
        ("POST", "/systems/files1/discover", None),
        ("POST", "/identities", {"name": "bob", "kind": "user", "password": CANARY + "-long-enough"}),
        ("POST", "/login", {"name": "bob", "password": CANARY + "-long-enough"}),
        ("POST", "/login", {"name": "bob", "password": CANARY}),
        ("POST", "/repositories", {"name": "r", "location": "/nowhere", "password": CANARY, "secrets": {"k": CANARY}}),
        ("POST", "/tokens", {"identity": "bob", "name": CANARY.lower()}),
        ("PUT", "/me/password", {"old": CANARY, "new": CANARY + "-long-enough"}),
        ("DELETE", "/identities/bob", None),
    ):
        send(installation, method, f"/v1{path}", local(installation), json=body)
    lines = log.lines()
    assert len(lines) > 15
    text = json.dumps(lines)
    assert CANARY not in text
    assert "settings.password" in text
    assert local(installation) not in text


def test_names_cannot_break_a_line(installation: Installation, log: Log) -> None:
    name = "a%0A%1B[31mred%00%E2%80%AE%FF"
    send(installation, "DELETE", f"/v1/systems/{name}", local(installation))
    [line] = log.lines()
    assert "\n" in line["subject"]
    exported = b"".join(installation.rest.content("/audit/export", [("first", str(line["seq"]))]))
    assert exported.count(b"\n") == 2
    assert json.loads(exported.splitlines()[1]) == line
    shown = installation.cli("audit", "list", "--limit", "3").out
    assert "\x1b" not in shown
    assert shown.count("\n") == 4
    assert "a\\n\\x1b[31mred\\x00\\u202e" in shown


# -- without a record --------------------------------------------------------------------------------------------------
@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Let nobody write lines: a trigger plays the disk that is full."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    try:
        yield
    finally:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER full")


def test_without_a_record_nothing_is_changed_and_nothing_handed_out(installation: Installation, log: Log) -> None:
    own, asset = local(installation), installation.asset()["id"]
    operations = installation.rest.request("GET", "/operations")
    with unwritable(installation.server.data_dir / "catalog.sqlite"):
        for method, path, body in (
            ("POST", f"/v1/assets/{asset}/snapshots", {"name": "x"}),
            ("DELETE", "/v1/systems/files1", None),
            ("GET", "/v1/audit/export", None),
        ):
            answer = send(installation, method, path, own, json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
            assert "audit log" in answer.json()["message"]
        assert send(installation, "GET", "/v1/systems", own).status_code == 200
        assert send(installation, "GET", "/v1/systems", "wrong").status_code == 401
    assert log.lines() == []
    assert installation.rest.request("GET", "/operations") == operations
    assert [system["name"] for system in installation.rest.request("GET", "/systems")["data"]] == ["files1"]
    assert installation.run("POST", f"/assets/{asset}/snapshots", {"name": "x"})["state"] == "succeeded"


def test_an_outcome_that_cannot_be_recorded_is_not_told(installation: Installation, log: Log) -> None:
    path = installation.server.data_dir / "catalog.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON audit WHEN NEW.outcome = 'done' "
            "BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )
    try:
        body = {"name": "carol", "kind": "service"}
        answer = send(installation, "POST", "/v1/identities", local(installation), json=body)
    finally:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER full")
    assert answer.status_code == 503
    assert "outcome" in answer.json()["message"]
    assert log.short() == [("administrator", "identity.manage", "/identities", "asked")]
    installation.rest.request("DELETE", "/identities/carol")


def test_a_database_that_is_away_lets_nothing_change(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database()
    server = Server(tmp_path / "data", {"SNAPKEEP_DATABASE_URL": url})
    body = {"name": "dave", "kind": "service"}
    try:
        server.start()
        postgres.kill()
        try:
            with pytest.raises(Unavailable):
                server.rest.request("POST", "/identities", json=body)
        finally:
            postgres.start()
        until(lambda: succeeds(server.rest, "GET", "/identities"), 30)
        assert server.rest.request("GET", "/identities")["data"] == []
        assert server.rest.request("GET", "/audit")["data"] == []
        assert server.rest.request("POST", "/identities", json=body)["name"] == "dave"
        lines = server.rest.request("GET", "/audit")["data"]
        assert [line["outcome"] for line in lines] == ["done", "asked"]
    finally:
        server.close()
        postgres.drop_database(url)


def succeeds(rest: Rest, method: str, path: str) -> bool:
    try:
        rest.request(method, path)
    except SnapkeepError:
        return False
    return True


def test_a_crash_between_asked_and_done_leaves_the_asked_line(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    with ThreadPoolExecutor(1) as thread, socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"host": "127.0.0.1", "port": silent.getsockname()[1], "file_server": "f", "request_seconds": 60.0}
        settings |= {"username": "u", "password": "p"}
        try:
            server.start()
            body = {"name": "files1", "plugin": "nutanix-files", "settings": settings}
            server.rest.request("POST", "/systems", json=body)
            other = server.connect((server.data_dir / "token").read_text().strip())
            log = Log(other)
            answer = thread.submit(server.rest.request, "POST", "/systems/files1/check")
            until(log.lines)
            server.end(signal.SIGKILL)  # the handler waits for a system that never answers
            with pytest.raises(SnapkeepError):
                answer.result()
            other.close()
            server.start()
            log.rest = server.rest
            assert log.short() == [("administrator", "system.check", "files1", "asked")]
        finally:
            server.close()
    url = sqlite_url(server.data_dir / "catalog.sqlite")
    key = asyncio.run(read_key(url, SecretBox(KeyFile(server.data_dir / "secret.key"))))
    assert asyncio.run(verify_database(url, key)).last == log.last + 1


# -- answers -----------------------------------------------------------------------------------------------------------
async def test_only_what_is_on_record_is_held_back(tmp_path: Path) -> None:
    """A stream whose first piece comes late begins at once; one that hands out data, with its line."""
    late = asyncio.Event()
    router = APIRouter()

    @router.get("/events")
    @router.get("/audit/export")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            await late.wait()
            yield b"piece"

        return StreamingResponse(pieces())

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with auditor(tmp_path) as (opened, audit, _):
        app = FastAPI()
        app.add_middleware(Auditing)
        app.include_router(router)
        app.state.auditor = opened
        for path, begins in (("/events", True), ("/audit/export", False)):
            late.clear()
            sent: asyncio.Queue[Any] = asyncio.Queue()
            scope = {
                "type": "http",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [],
            }
            task = asyncio.create_task(app(scope, receive, sent.put))
            if begins:
                assert (await sent.get())["type"] == "http.response.start"
            else:
                for _ in range(50):
                    await asyncio.sleep(0)
                assert sent.empty()
            assert (await audit.head()).seq == 0
            late.set()
            await task
        assert await counted(audit) == {("GET /audit/export", ""): 1}


# -- floods ------------------------------------------------------------------------------------------------------------
class FixedClock(Clock):
    """A clock that stands still; whoever sleeps on it, sleeps until it is told."""

    def __init__(self) -> None:
        self.time = 0.0
        self.woken = asyncio.Event()

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await self.woken.wait()


@asynccontextmanager
async def auditor(path: Path) -> AsyncIterator[tuple[Auditor, Audit, FixedClock]]:
    async with open_catalog(sqlite_url(path / "c.sqlite"), b"k" * 32) as catalog:
        clock = FixedClock()
        async with Auditor(catalog.audit, clock) as opened:
            yield opened, catalog.audit, clock


def refusal(source: str) -> Entry:
    actor, kind = NOBODY
    return Entry(actor=actor, actor_kind=kind, source=source, action="x", subject="", outcome=Outcome.REFUSED)


async def counted(audit: Audit) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    async for line in audit.lines(1, (await audit.head()).seq):
        key = (line.entry.action, line.entry.source)
        found[key] = found.get(key, 0) + line.entry.detail.get("count", 1)
    return found


async def test_a_flood_of_refused_tries_leaves_a_number(tmp_path: Path) -> None:
    async with auditor(tmp_path) as (opened, audit, clock):
        for _ in range(250):
            await opened.refuse(refusal("192.0.2.1"))
        for _ in range(3):
            await opened.refuse(refusal("192.0.2.2"))  # others are not silenced by it
        assert await counted(audit) == {("x", "192.0.2.1"): 100, ("x", "192.0.2.2"): 3}
        clock.time = 60.0
        clock.woken.set()
        while len(await counted(audit)) < 3:
            await asyncio.sleep(0.01)
        clock.woken.clear()
        await opened.refuse(refusal("192.0.2.1"))
        assert await counted(audit) == {
            ("x", "192.0.2.1"): 101,
            ("x", "192.0.2.2"): 3,
            ("suppressed", "192.0.2.1"): 150,
        }


async def test_what_was_counted_at_the_end_is_not_lost(tmp_path: Path) -> None:
    async with auditor(tmp_path) as (opened, audit, _):
        for _ in range(130):
            await opened.refuse(refusal("192.0.2.1"))
        await opened.__aexit__()
        assert await counted(audit) == {("x", "192.0.2.1"): 100, ("suppressed", "192.0.2.1"): 30}


async def test_many_sources_are_bounded_together(tmp_path: Path) -> None:
    async with auditor(tmp_path) as (opened, audit, _):
        await asyncio.gather(*(opened.refuse(refusal(f"2001:db8::{number:x}")) for number in range(1500)))
        await opened.__aexit__()
        found = await counted(audit)
        assert found.pop(("suppressed", "*")) == 500
        assert sum(found.values()) == 1000


def test_refused_tries_are_limited_in_a_running_server(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    try:
        server.start()
        url = server.rest.url + "/v1/systems"
        with httpx2.Client(verify=server.trust) as client, ThreadPoolExecutor(10) as threads:
            answers = threads.map(lambda _: client.get(url, headers={"Authorization": "Bearer x"}), range(130))
            assert {answer.status_code for answer in answers} == {401}
        refused = server.rest.request("GET", "/audit", params={"outcome": "refused", "limit": 1000})["data"]
        assert len(refused) == 100
        server.end(signal.SIGTERM)
        server.start()
        [last] = server.rest.request("GET", "/audit", params={"action": "suppressed"})["data"]
        assert last["detail"] == {"count": 30}
    finally:
        server.close()


# -- reading -----------------------------------------------------------------------------------------------------------
def test_lines_are_found_and_paged(installation: Installation) -> None:
    rest = installation.rest
    for _ in range(3):
        rest.request("POST", "/systems/files1/check")
    everything = list(rest.pages("/audit", limit=7))
    assert [line["seq"] for line in everything] == list(range(everything[0]["seq"], 0, -1))
    checks = rest.request("GET", "/audit", params={"action": "system.check", "outcome": "done", "limit": 2})["data"]
    assert len(checks) == 2
    assert rest.request("GET", "/audit", params={"since": checks[0]["at"], "until": checks[0]["at"]})["data"] == []
    since = rest.request("GET", "/audit", params={"since": checks[0]["at"], "sort": "seq", "limit": 1})["data"]
    assert since[0]["at"] >= checks[0]["at"]
    for wrong in ({"outcome": "x"}, {"since": "2026-11-28T12:00:00"}, {"sort": "x"}, {"after": "x"}, {"limit": 0}):
        with pytest.raises(SnapkeepError):
            rest.request("GET", "/audit", params=wrong)
    with pytest.raises(SnapkeepError, match="ends with line"):
        list(rest.content("/audit/export", [("first", str(10**9))]))
