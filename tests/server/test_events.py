"""Operations as server-sent events: every state that lasts is told, to those who may see it, as long as they may."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.installation import Installation, Json, until
from tests.support.people import People

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.cli.rest import Rest
from snapkeep.identity.service import LOCAL, Identities
from snapkeep.model.access import EVERYTHING, EVERYWHERE, Action, Grant, IdentityKind, Principal, Scope, Subject
from snapkeep.operations.clock import Clock
from snapkeep.server import events
from snapkeep.server.events import Event, Feed, Filter, Stream


class Listener:
    """Reads a stream of events in a thread of its own."""

    def __init__(self, installation: Installation, path: str, token: str = "", last: str = "") -> None:
        own = token or (installation.server.data_dir / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {own}"} | ({"Last-Event-ID": last} if last else {})
        self._client = httpx2.Client(
            base_url=installation.rest.url, verify=installation.trust, headers=headers, timeout=60
        )
        self._path = f"/v1{path}"
        self._lines: queue.Queue[tuple[str, Json] | None] = queue.Queue()
        self.status = 0
        self.kind = ""
        self._socket: socket.socket
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._opened.wait(30)

    def _read(self) -> None:
        try:
            with self._client.stream("GET", self._path) as answer:
                self._socket = answer.extensions["network_stream"].get_extra_info("socket")
                self.status, self.kind = answer.status_code, answer.headers["content-type"]
                name = ""
                for line in answer.iter_lines():
                    self._opened.set()
                    field, _, value = line.partition(": ")
                    if field == "id":
                        name = value
                    elif field == "data":
                        self._lines.put((name, json.loads(value)))
        except httpx2.HTTPError:
            pass
        finally:
            self._opened.set()
            self._lines.put(None)

    def next(self, seconds: float = 30) -> tuple[str, Json] | None:
        """Return the next event with its id; None at the end."""
        return self._lines.get(timeout=seconds)

    def rest(self) -> list[tuple[str, Json]]:
        """Return all events up to the end."""
        return list(iter(self.next, None))

    def until(self, operation: Json, state: str) -> Json:
        """Read until an operation is in a state."""
        while (event := self.next()) is not None:
            if event[1]["id"] == operation["id"] and event[1]["state"] == state:
                return event[1]
        raise AssertionError("the stream ended")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # the thread that reads notices
        self._thread.join(10)
        self._client.close()


@contextmanager
def listening(installation: Installation, path: str, **more: str) -> Iterator[Listener]:
    listener = Listener(installation, path, **more)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def people(installation: Installation) -> Iterator[People]:
    everybody = People(installation)
    yield everybody
    everybody.close()


# -- one operation -----------------------------------------------------------------------------------------------------
def test_an_operation_is_followed_to_its_end(installation: Installation) -> None:
    operation = installation.ask_create()
    with listening(installation, f"/operations/{operation['id'][:12]}/events") as listener:
        assert (listener.status, listener.kind.partition(";")[0]) == (200, "text/event-stream")
        told = listener.rest()
    assert [event["state"] for _, event in told][-1] == "succeeded"
    assert {event["id"] for _, event in told} == {operation["id"]}
    assert len({name for name, _ in told}) == len(told)
    whole = installation.operation(operation)
    assert {**told[-1][1], "items_per_second": 0} == {**whole, "items_per_second": 0}


def test_an_operation_that_has_ended_is_told_once(installation: Installation) -> None:
    done = installation.wait(installation.ask_create())
    path = f"/operations/{done['id']}/events"
    with listening(installation, path) as listener:
        [(last, event)] = listener.rest()
    assert event["state"] == "succeeded"
    with listening(installation, path, last=last) as listener:
        assert listener.rest() == []
    for other in ("1-0123456789abcdef", "nonsense", last[:-1]):
        with listening(installation, path, last=other) as listener:
            assert len(listener.rest()) == 1


def test_who_comes_back_is_told_only_what_is_new(installation: Installation) -> None:
    operation = installation.ask("POST", f"/assets/{installation.asset()['id']}/snapshots", {})
    path = f"/operations/{operation['id']}/events"
    with listening(installation, path) as listener:
        event = listener.next()
        assert event is not None
    installation.wait(operation)
    with listening(installation, path, last=event[0]) as listener:
        assert [told["state"] for _, told in listener.rest()][-1:] == ["succeeded"]


def test_what_an_operation_waits_for_is_told(installation: Installation) -> None:
    installation.add_system("elsewhere", queue="nobody")
    operation = installation.ask("POST", "/systems/elsewhere/discover")
    with listening(installation, f"/operations/{operation['id']}/events") as listener:
        event: Any = None
        while event is None or "no living worker" not in event[1]["phase"]:
            event = listener.next()
        installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
        assert [told["state"] for _, told in listener.rest()][-1] == "cancelled"


# -- many --------------------------------------------------------------------------------------------------------------
def test_operations_that_fit_are_told_as_they_come(installation: Installation) -> None:
    with (
        listening(installation, "/operations/events?system=files1&kind=create") as fitting,
        listening(installation, "/operations/events?state=failed&state=cancelled") as failing,
        listening(installation, "/operations/events") as everything,
    ):
        made = installation.ask_create()
        found = installation.ask("POST", "/systems/files1/discover")
        fitting.until(made, "succeeded")
        waiting = {made["id"], found["id"]}
        while waiting:  # which ends first is open
            event = everything.next()
            assert event is not None
            waiting -= {event[1]["id"]} if event[1]["state"] == "succeeded" else set()
        installation.add_system("elsewhere", queue="nobody")
        cancelled = installation.ask("POST", "/systems/elsewhere/discover")
        installation.rest.request("POST", f"/operations/{cancelled['id']}/cancel")
        failing.until(cancelled, "cancelled")
        assert found["id"] not in [event[1]["id"] for event in iter(lambda: _now(fitting), None)]


def _now(listener: Listener) -> tuple[str, Json] | None:
    try:
        return listener.next(0.01)
    except queue.Empty:
        return None


def test_who_was_away_is_told_what_ended_meanwhile(installation: Installation) -> None:
    with listening(installation, "/operations/events") as listener:
        first = installation.ask_create()
        listener.until(first, "succeeded")
        installation.ask_create()
        event = listener.next()
        assert event is not None
    second = installation.wait(installation.ask_create())
    with listening(installation, "/operations/events", last=event[0]) as listener:
        listener.until(second, "succeeded")


# -- who may see it ----------------------------------------------------------------------------------------------------
def test_nobody_is_told_what_he_may_not_see(installation: Installation, people: People) -> None:
    asset = installation.asset()["id"]
    people.service("listener", ("viewer", "system:other"))
    token = people.tokens["listener"]
    operation = installation.ask("POST", f"/assets/{asset}/snapshots", {})
    with listening(installation, f"/operations/{operation['id']}/events", token=token) as listener:
        assert listener.status == 404
    with listening(installation, "/operations/events", token=token) as listener:
        installation.wait(operation)
        installation.wait(installation.ask_create())
        with pytest.raises(queue.Empty):
            listener.next(1)
    with listening(installation, "/operations/events", token="wrong") as listener:
        assert listener.status == 401


def test_labels_decide_who_is_told(installation: Installation, people: People) -> None:
    asset = installation.asset()["id"]
    installation.rest.request("PUT", f"/assets/{asset}/labels", json={"labels": {"env": "prod"}})
    people.service("listener", ("viewer", "label:env=prod"))
    with listening(installation, "/operations/events", token=people.tokens["listener"]) as listener:
        hidden = installation.ask("POST", "/systems/files1/discover")
        shown = installation.ask("POST", f"/assets/{asset}/snapshots", {})
        listener.until(shown, "succeeded")
        installation.wait(hidden)
        seen = {event[1]["id"] for event in iter(lambda: _now(listener), None)}
        assert hidden["id"] not in seen


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with open_catalog(sqlite_url(tmp_path / "catalog.sqlite"), bytes(32)) as catalog:
        yield catalog


async def test_a_stream_ends_with_the_token_or_with_the_server(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With half minutes that are shorter: everything else is as in a server."""
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(events, "RECHECK_SECONDS", 0.0)
    ends: list[bool] = []
    clock = Clock()
    feed = Feed(catalog, None, clock, lambda: bool(ends))  # type: ignore[arg-type]
    identities = Identities(catalog, clock)
    robot = await identities.add("robot", IdentityKind.SERVICE, None)
    await identities.grant(LOCAL, robot, "viewer", "all")
    token, record = await identities.make_token(LOCAL, robot, "t", None, clock.now() + timedelta(days=1))
    known = await identities.authenticate(token)
    assert known is not None
    stream = feed.follow(Stream(known), None, lambda: identities.authenticate(token))
    assert [await anext(stream) for _ in range(3)] == [b": events of operations\n\n", b":\n\n", b":\n\n"]
    await catalog.identities.remove_token(record.id)
    assert {piece async for piece in stream} <= {b":\n\n"}
    endless = feed.follow(Stream(LOCAL), None, lambda: asyncio.sleep(0, LOCAL))
    assert await anext(endless)
    ends.append(True)
    assert {piece async for piece in endless} <= {b":\n\n"}


# -- pieces ------------------------------------------------------------------------------------------------------------
def principal(scope: Scope = EVERYWHERE) -> Principal:
    return Principal("p", IdentityKind.USER, (Grant("r", EVERYTHING, scope),))


class Record:
    """What a stream asks of an operation."""

    def __init__(self, row: str, ended: bool = False) -> None:
        self.id, self.kind, self.system_name, self.asset_id, self.requester = row, "create", "s", None, "r"
        self.state = type("State", (), {"ended": ended})()


def event(row: str, mark: str, ended: bool = False) -> Event:
    return Event(Record(row, ended), Subject("s"), mark, mark.encode())  # type: ignore[arg-type]


def test_a_slow_reader_is_told_the_newest_state_only() -> None:
    stream = Stream(principal())
    for number in range(1000):
        stream.offer(event("a", str(number)))
        stream.offer(event("b", str(number)))
    assert [item.text for item in stream.take()] == [b"999", b"999"]
    stream.offer(event("a", "999"))
    assert stream.take() == []
    stream.offer(event("a", "end", ended=True))
    assert [item.mark for item in stream.take()] == ["end"]
    assert stream._sent.keys() == {"b"}  # what has ended costs nothing any more


def test_a_stream_takes_only_what_is_for_it() -> None:
    hidden = Stream(principal(Scope.parse("system:other")))
    hidden.offer(event("a", "1"))
    assert hidden.take() == []
    one = Stream(principal(), only="b")
    one.offer(event("a", "1"))
    assert one.take() == []
    other = Stream(principal(), filter=Filter(kinds=frozenset({"delete"})))
    other.offer(event("a", "1"))
    assert other.take() == []
    assert not Principal("x", IdentityKind.USER, ()).may(Action.OPERATION_READ)


# -- the command line --------------------------------------------------------------------------------------------------
def test_the_command_line_follows_events_and_falls_back_to_reading(installation: Installation) -> None:
    rest, told = installation.rest, []
    done = rest.wait(installation.ask_create(), lambda operation: told.append(operation["state"]))
    assert (done["state"], told[-1]) == ("succeeded", "succeeded")

    class Deaf(Rest):
        def _told(self, operation_id: str) -> Iterator[Json]:
            return iter(())

    deaf = Deaf.__new__(Deaf)
    deaf.__dict__.update(rest.__dict__)
    assert deaf.wait(installation.ask_create())["state"] == "succeeded"
    operation = installation.ask_create()
    watched = installation.cli("operation", "watch", operation["id"][:8], "--output", "json")
    assert watched.json()["state"] == "succeeded"
    until(lambda: installation.operation(operation)["ended_at"])
