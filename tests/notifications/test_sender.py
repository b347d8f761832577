"""The outbox and who empties it, on both stores: nothing is lost, nothing keeps anything else waiting, no flood."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tests.notifications.conftest import CHANNEL_NOW
from tests.support.hooks import Answer, Got, Hooks
from tests.support.mails import Mails

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.channels import ChannelRecord
from snapkeep.catalog.deliveries import LEASE, DeliveryRecord
from snapkeep.catalog.tables import deliveries
from snapkeep.model.errors import NotFound
from snapkeep.model.notifications import ChannelKind, DeliveryState, Event, Notice
from snapkeep.notifications import sender, webhook
from snapkeep.notifications.message import SEND_SECONDS
from snapkeep.notifications.sender import Sender
from snapkeep.operations.clock import Clock
from snapkeep.operations.references import References

SECRET = webhook.new_secret()


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks().running() as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(sender, "LONGEST_REST", 0.1)
    monkeypatch.setattr(sender, "POLL_SECONDS", 0.1)


async def add(
    catalog: Catalog, name: str, target: str | dict[str, Any], *, secret: Any = SECRET, **chosen: Any
) -> ChannelRecord:
    values: dict[str, Any] = {"events": [], "systems": [], "per_minute": 600, "enabled": True, **chosen}
    secrets: dict[str, Any] = {}
    if isinstance(target, str):
        kind, settings, secrets = ChannelKind.WEBHOOK, {"secret": secret}, {"url": target}
    else:
        kind, settings = ChannelKind.EMAIL, target
    return await catalog.channels.add(
        name, name=name, kind=kind, settings=settings, secrets=secrets, now=CHANNEL_NOW, **values
    )


@asynccontextmanager
async def sending(catalog: Catalog, **environment: str) -> AsyncIterator[Sender]:
    made = Sender(catalog, References(environment=environment), Clock())
    async with made.running():
        yield made


def failure(number: int = 1, system: str | None = "files1", event: Event = Event.OPERATION_FAILED) -> Notice:
    return Notice(event=event, message=f"failure {number}", system=system, subject=f"asset {number}")


async def until(truth: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


async def all_of(catalog: Catalog, *states: DeliveryState) -> list[DeliveryRecord]:
    return list(await catalog.deliveries.find(states=states))


async def settled(catalog: Catalog, seconds: float = 10.0) -> None:
    """Wait until nothing waits."""
    end = time.monotonic() + seconds
    while await all_of(catalog, DeliveryState.WAITING):
        assert time.monotonic() < end, await all_of(catalog)
        await asyncio.sleep(0.05)


async def change(catalog: Catalog, **values: Any) -> None:
    """Change all deliveries, as time would."""
    async with catalog.database.begin() as connection:
        await connection.execute(update(deliveries).values(values))


# -- the outbox --------------------------------------------------------------------------------------------------------
async def test_an_event_comes_with_its_transaction_or_not_at_all(catalog: Catalog, hooks: Hooks) -> None:
    await add(catalog, "ops", hooks.url)
    with pytest.raises(RuntimeError):
        async with catalog.database.begin() as connection:
            await catalog.outbox.put(connection, failure(1))
            raise RuntimeError
    async with catalog.database.begin() as connection:
        await catalog.outbox.put(connection, failure(2))
    async with sending(catalog):
        await settled(catalog)
        assert [one.json["data"]["message"] for one in hooks.got] == ["failure 2"]
        hooks.got[0].verify(SECRET)
        begun = time.monotonic()
        await catalog.outbox.tell(failure(3))
        await until(lambda: len(hooks.got) == 2)
        assert time.monotonic() - begun < 1
        await settled(catalog)
    (channel,) = await catalog.channels.find()
    assert (channel.waiting, channel.given_up, channel.failure) == (0, 0, None)
    assert channel.succeeded_at is not None


async def test_each_channel_is_told_what_it_wants(local: Catalog) -> None:
    nowhere = "http://127.0.0.1:1/"
    await add(local, "all", nowhere)
    await add(local, "off", nowhere, enabled=False)
    await add(local, "approvals", nowhere, events=["approval.asked", "approval.decided"])
    await add(local, "files2", nowhere, systems=["files2"])
    for notice in (
        failure(1, "files1"),
        failure(2, "files2"),
        failure(3, None, Event.LOGIN_BRAKED),
        failure(4, None, Event.APPROVAL_ASKED),
    ):
        await local.outbox.tell(notice)
    told = {(one.channel_name, one.subject[-1]) for one in await all_of(local)}
    assert told == {
        ("all", "1"), ("all", "2"), ("all", "3"), ("all", "4"),
        ("approvals", "4"),
        ("files2", "2"), ("files2", "3"), ("files2", "4"),  # what is about no system concerns all
    }  # fmt: skip


async def test_the_same_suspicion_is_told_once_an_hour(catalog: Catalog) -> None:
    await add(catalog, "ops", "http://127.0.0.1:1/")
    hour = timedelta(hours=1)
    for _ in range(3):
        await catalog.outbox.tell(failure(1), quiet=hour)
        await catalog.outbox.tell(failure(2), quiet=hour)
    assert len(await all_of(catalog)) == 2
    await change(catalog, created_at=await catalog.database.now() - hour)
    await catalog.outbox.tell(failure(1), quiet=hour)
    assert len(await all_of(catalog)) == 3


async def test_a_channel_that_goes_at_that_moment_breaks_nothing(catalog: Catalog) -> None:
    for number in range(10):
        record = await add(catalog, f"c{number}", "http://127.0.0.1:1/")
        told = [catalog.outbox.tell(failure(one)) for one in range(3)]
        await asyncio.gather(*told[:2], catalog.channels.remove(record, by="anna"), told[2])
    assert await all_of(catalog) == []


# -- trying again ------------------------------------------------------------------------------------------------------
async def test_what_is_not_taken_is_sent_again_under_the_same_id(catalog: Catalog, hooks: Hooks) -> None:
    await add(catalog, "ops", hooks.url)
    answers = [Answer(500, b"broken"), Answer(503), Answer(204)]
    hooks.answer = lambda _: answers[min(len(hooks.got), 3) - 1]
    async with sending(catalog):
        await catalog.outbox.tell(failure())
        await until(lambda: hooks.got)
        await until(lambda: len(hooks.got) == 3)
        await settled(catalog)
    assert len({one.id for one in hooks.got}) == 1
    assert len({one.body for one in hooks.got}) == 1
    (told,) = await all_of(catalog)
    assert (told.state, told.attempts, told.answer) == (DeliveryState.SENT, 3, "204")
    (channel,) = await catalog.channels.find()
    assert channel.failure == "503"


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "FIRST_PAUSE", 5.0)
    for attempt, seconds in ((1, 5), (2, 10), (5, 80), (11, 3600), (500, 3600)):
        found = {sender._pause(attempt, None) for _ in range(50)}
        assert len(found) > 10
        assert seconds * 0.8 <= min(found) <= max(found) <= seconds * 1.2
    assert sender._pause(1, 1000.0) == 1000.0
    tries, passed = 0, 0.0
    while passed < sender.TRIED_FOR.total_seconds():
        tries, passed = tries + 1, passed + sender._pause(tries + 1, None)
    assert 25 < tries < 45


async def test_after_a_day_it_is_given_up(catalog: Catalog, hooks: Hooks) -> None:
    await add(catalog, "ops", hooks.url)
    await add(catalog, "off", hooks.url)
    hooks.answer = lambda _: Answer(500, b"broken")
    await catalog.outbox.tell(failure())
    off = await catalog.channels.get("off")
    await catalog.channels.change(off, by="anna", secrets={"url": hooks.url}, enabled=False)
    now = await catalog.database.now()
    await change(catalog, created_at=now - timedelta(hours=23, minutes=59, seconds=59))
    async with sending(catalog):
        await until(lambda: hooks.got)
        await asyncio.sleep(0.3)
        await change(catalog, created_at=now - timedelta(hours=25))
        await catalog.deliveries.give_up_before(now - sender.TRIED_FOR, now + timedelta(minutes=1))
        await settled(catalog)
    found = {(one.channel_name, one.event): one for one in await all_of(catalog, DeliveryState.GIVEN_UP)}
    assert found["ops", "operation.failed"].answer == "500 broken"
    assert ("off", "operation.failed") in found, "nothing waits for ever"
    assert (await catalog.channels.get("ops")).given_up


async def test_who_wants_nothing_any_more_gets_nothing_any_more(local: Catalog, hooks: Hooks) -> None:
    with Hooks().running() as others:
        await add(local, "old", hooks.url)
        await add(local, "other", others.url, events=["channel.changed"])
        hooks.answer = lambda _: Answer(410, b"gone")
        async with sending(local):
            await local.outbox.tell(failure(1))
            await until(lambda: others.got)
            await local.outbox.tell(failure(2))
            await asyncio.sleep(0.3)
        assert len(hooks.got) == 1
        assert others.got[0].json["data"]["details"] == {"change": "turned off"}
    channel = await local.channels.get("old")
    assert (channel.enabled, channel.reason) == (False, "it wants nothing any more: 410 gone")


async def test_a_time_that_is_asked_for_is_waited(local: Catalog, hooks: Hooks) -> None:
    await add(local, "ops", hooks.url)
    hooks.answer = lambda _: Answer(429, headers={"Retry-After": "2"}) if len(hooks.got) == 1 else Answer()
    async with sending(local):
        await local.outbox.tell(failure(1))
        await until(lambda: hooks.got)
        await local.outbox.tell(failure(2))
        await settled(local)
    assert [round(one.at - hooks.got[0].at) >= 2 for one in hooks.got] == [False, True, True]


async def test_what_somebody_began_to_send_and_died_is_sent_again(catalog: Catalog, hooks: Hooks) -> None:
    await add(catalog, "ops", hooks.url)
    await catalog.outbox.tell(failure())
    now = await catalog.database.now()
    begun = await catalog.deliveries.claim("ops", now)
    assert begun is not None
    assert await catalog.deliveries.claim("ops", now) is None, "it is somebody's"
    async with sending(catalog):
        await asyncio.sleep(0.5)
        assert hooks.got == []
        await change(catalog, due_at=now - LEASE)
        await settled(catalog)
    assert [one.id for one in hooks.got] == [begun.id]
    await catalog.deliveries.put_off(begun, now, "late", None)  # who died was only asleep
    (told,) = await all_of(catalog)
    assert (told.state, told.attempts) == (DeliveryState.SENT, 2)


async def test_several_processes_send_each_once(catalog: Catalog, hooks: Hooks) -> None:
    for name in ("one", "two", "three"):
        await add(catalog, name, hooks.url)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(sending(catalog))
        for number in range(8):
            await catalog.outbox.tell(failure(number))
        await settled(catalog, 30)
    assert len(hooks.got) == 24
    assert max(Counter(one.id for one in hooks.got).values()) == 1


async def test_one_that_hangs_keeps_no_other_waiting(local: Catalog, hooks: Hooks) -> None:
    hold = threading.Event()
    await add(local, "hangs", hooks.url + "/hangs")
    await add(local, "works", hooks.url + "/works")
    hooks.answer = lambda got: Answer(hold=hold if got.path.endswith("hangs") else None)
    async with sending(local):
        for number in range(5):
            await local.outbox.tell(failure(number))
        await until(lambda: sum(one.path.endswith("works") for one in hooks.got) == 5, 5)
        hold.set()
        await settled(local)
    assert len(hooks.got) == 10


async def test_one_that_cannot_be_taken_keeps_no_other_waiting(local: Catalog, hooks: Hooks) -> None:
    await add(local, "ops", hooks.url)

    def answer(got: Got) -> Answer:
        return Answer(500 if got.json["data"]["subject"] == "asset 0" else 204)

    hooks.answer = answer
    async with sending(local):
        for number in range(5):
            await local.outbox.tell(failure(number))
        await until(lambda: {one.json["data"]["subject"] for one in hooks.got} == {f"asset {n}" for n in range(5)})
        await asyncio.sleep(0.2)
    assert len(await all_of(local, DeliveryState.SENT)) == 4


# -- floods ------------------------------------------------------------------------------------------------------------
async def test_of_a_flood_some_are_told_and_then_how_many_more(
    catalog: Catalog, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SETTLED", timedelta(seconds=1))
    await add(catalog, "ops", hooks.url, per_minute=3)
    async with sending(catalog):
        async with catalog.database.begin() as connection:
            for number in range(25):
                await catalog.outbox.put(connection, failure(number, f"files{number % 2}"))
        catalog.outbox.wake()
        await settled(catalog, 20)
        await asyncio.sleep(0.3)
        assert [one.json["type"] for one in hooks.got] == ["operation.failed"] * 3 + ["notification.summary"]
        details = hooks.got[-1].json["data"]["details"]
        assert (details["count"], details["events"]) == (22, {"operation.failed": 22})
        assert sum(details["systems"].values()) == 22
        states = Counter(one.state for one in await all_of(catalog))
        assert states == {DeliveryState.SENT: 4, DeliveryState.SUMMARISED: 22}
        assert {one.summary_id for one in await all_of(catalog, DeliveryState.SUMMARISED)} == {hooks.got[-1].id}
        await catalog.outbox.tell(failure(100))
        await asyncio.sleep(1.5)
        assert len(hooks.got) == 4, "the minute is not over"
        past = await catalog.database.now() - timedelta(minutes=1)
        async with catalog.database.begin() as connection:
            ended = deliveries.c.ended_at.is_not(None)
            await connection.execute(update(deliveries).where(ended).values(ended_at=past))
        await until(lambda: len(hooks.got) == 5)
        assert hooks.got[-1].json["data"]["message"] == "failure 100"


async def test_what_waits_for_one_that_does_not_work_is_bounded(
    local: Catalog, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MOST_FRESH", 10)
    await add(local, "ops", hooks.url)
    hooks.answer = lambda _: Answer(500)
    async with sending(local):
        for number in range(40):
            await local.outbox.tell(failure(number))
        await until(lambda: len(hooks.got) > 5)
        await asyncio.sleep(1)
        waiting = await all_of(local, DeliveryState.WAITING)
        assert len(waiting) < 30
        hooks.answer = lambda _: Answer()
        await settled(local, 20)
    told = sum(one.json["data"]["details"].get("count", 0) for one in hooks.got if one.json["type"].endswith("summary"))
    ids = {one.id for one in hooks.got if one.json["type"] == "operation.failed"}
    summaries = {one.id: one.json["data"]["details"]["count"] for one in hooks.got if one.id not in ids}
    assert told
    assert len(ids) + sum(summaries.values()) == 40, "each is told, or counted"


async def test_what_has_ended_is_forgotten_some_day(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapkeep.catalog.deliveries.MOST_KEPT", 5)
    await add(catalog, "ops", "http://127.0.0.1:1/")
    now = await catalog.database.now()
    for number in range(10):
        await catalog.outbox.tell(failure(number))
        one = await catalog.deliveries.claim("ops", now + timedelta(minutes=1))
        assert one is not None
        await catalog.deliveries.sent(one, now + timedelta(seconds=number), "204")
    await catalog.outbox.tell(failure(100))
    await catalog.deliveries.purge(now)
    assert sorted(one.subject for one in await all_of(catalog)) == ["asset 100", *(f"asset {n}" for n in range(5, 10))]
    await catalog.deliveries.purge(now + timedelta(days=31))
    assert [one.subject for one in await all_of(catalog)] == ["asset 100"]


# -- secrets, e-mail, tests --------------------------------------------------------------------------------------------
async def test_secrets_may_be_elsewhere(local: Catalog, hooks: Hooks) -> None:
    await add(local, "ops", hooks.url, secret={"reference": "env:SNAPKEEP_SECRET_HOOK"})
    await local.outbox.tell(failure())
    async with sending(local):
        while not (failed := (await local.channels.get("ops")).failure):
            await asyncio.sleep(0.05)
        assert "there is no such variable" in failed
    async with sending(local, SNAPKEEP_SECRET_HOOK=SECRET):
        await settled(local)
    hooks.got[0].verify(SECRET)


async def test_who_has_an_email_gets_it_once(local: Catalog, tmp_path: Path) -> None:
    with Mails(tmp_path / "mails").running() as mails:
        target = {name: value for name, value in mails.target(to=["a@e.com", "b@e.com"]).items() if name != "kind"}
        await add(local, "mail", target)
        mails.refuse = lambda who: "450 greylisted" if who == "a@e.com" and mails.tries.count(who) < 3 else None
        async with sending(local):
            await local.outbox.tell(failure())
            await settled(local, 20)
    assert [one.recipients for one in mails.got] == [["b@e.com"], ["a@e.com"]]
    assert mails.got[0].message["Message-ID"] == mails.got[1].message["Message-ID"]


async def test_trying_a_channel(local: Catalog, hooks: Hooks) -> None:
    record = await add(local, "ops", hooks.url, enabled=False)
    async with sending(local) as made:
        sent = await made.test(record, "anna")
        assert sent is not None
        assert (sent.state, sent.answer, hooks.got[0].id) == (DeliveryState.SENT, "204", sent.id)
        hooks.answer = lambda _: Answer(500, b"broken")
        failed = await made.test(record, "anna")
        assert failed is not None
        assert (failed.state, failed.answer) == (DeliveryState.GIVEN_UP, "500 broken"), "it is not tried again"
        await local.channels.remove(record, by="anna")
        assert await all_of(local) == []
        with pytest.raises(NotFound):
            await local.channels.get("ops")


async def test_secrets_are_sealed_anew(catalog: Catalog) -> None:
    record = await add(catalog, "ops", "https://example.com/SECRET")
    needed = await catalog.sealing.needed()
    assert sum(needed.values()) >= 3
    assert await catalog.channels.secrets(record.id) == {"url": "https://example.com/SECRET"}


def test_ages_are_sensible() -> None:
    assert LEASE.total_seconds() > SEND_SECONDS + 10
    assert isinstance(CHANNEL_NOW, datetime)
