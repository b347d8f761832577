"""Reports by mail: over a real SMTP server, once each, whoever runs, across a death at any step and a downtime."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from tests.policy.test_pruning import KEY, catalog
from tests.policy.world import HOUR, SetClock
from tests.support.mails import Mails

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.report_schedules import ReportSchedule, ReportSchedules
from snapkeep.catalog.tables import attachments, deliveries
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.model.notifications import ChannelKind
from snapkeep.model.reports import ReportForm
from snapkeep.notifications import sender
from snapkeep.notifications.sender import Sender
from snapkeep.operations.clock import Clock
from snapkeep.operations.references import References
from snapkeep.policy.schedule import Schedule
from snapkeep.reports import sending
from snapkeep.reports.sending import ReportSender

__all__ = ["catalog"]
DAY = timedelta(days=1)
MONDAY = datetime(2027, 6, 7, 5, tzinfo=UTC)
"""Seven in the morning in Berlin."""


@pytest.fixture
def mails(tmp_path: Path) -> Iterator[Mails]:
    with Mails(tmp_path, "none").running() as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(sender, "LONGEST_REST", 0.1)
    monkeypatch.setattr(sender, "POLL_SECONDS", 0.1)


async def add(catalog: Catalog, target: dict[str, Any], name: str = "weekly", **values: Any) -> ReportSchedule:
    chosen: dict[str, Any] = {"events": ["login.braked"], "systems": [], "per_minute": 600, "enabled": True}
    if not any(channel.name == "team" for channel in await catalog.channels.find()):
        await catalog.channels.add(
            "team", name="team", kind=ChannelKind.EMAIL, settings=target, secrets={}, now=MONDAY, **chosen
        )
    given: dict[str, Any] = {
        "report": "summary", "form": "html", "cron": "0 7 * * MON", "timezone": "Europe/Berlin", "last": 7 * DAY,
        "system": None, "channel_id": "team", "made_by": "anna", "created_at": MONDAY, "due_at": MONDAY,
    }  # fmt: skip
    return await catalog.report_schedules.add(f"id-{name}", name=name, **given | values)


async def waiting(catalog: Catalog) -> list[Any]:
    async with catalog.database.connect() as connection:
        return list(await connection.execute(select(deliveries, attachments).join(attachments)))


@asynccontextmanager
async def delivering(catalog: Catalog) -> AsyncIterator[None]:
    async with Sender(catalog, References(environment={}), Clock()).running():
        yield


async def until(truth: Callable[[], Any]) -> None:
    end = time.monotonic() + 15
    while not truth():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("form", list(ReportForm))
async def test_a_report_arrives_as_a_file(catalog: Catalog, mails: Mails, form: ReportForm) -> None:
    await add(catalog, mails.target(), form=form.value)
    clock = SetClock(MONDAY - timedelta(seconds=1))
    await ReportSender(catalog, clock).look()
    assert await waiting(catalog) == [], "it is not due"
    clock.go(timedelta(seconds=5))
    await ReportSender(catalog, clock).look()
    (row,) = await waiting(catalog)
    async with delivering(catalog):
        await until(lambda: mails.got)
    (got,) = mails.got
    assert got.message["Subject"].endswith("weekly: summary of 2027-05-31 07:00 to 2027-06-07 07:00")
    assert got.message["X-Snapkeep-Event"] == "notification.report"
    body, file = got.message.iter_parts()
    assert "By: anna" in body.get_content()
    assert file.get_filename() == f"snapkeep-weekly-20270607-0500.{form}"
    assert file.get_content_type() == form.media_type
    assert file.get_payload(decode=True) == row.content
    assert b"files1/0" in row.content
    moved = await catalog.report_schedules.get("weekly")
    assert (moved.due_at, moved.fired_at, moved.note) == (MONDAY + 7 * DAY, clock.now(), "")


async def test_a_retry_sends_the_same(catalog: Catalog, mails: Mails) -> None:
    await add(catalog, mails.target(to=["a@example.com", "b@example.com"]))
    mails.refuse = lambda who: "450 greylisted" if who.startswith("b") and len(mails.tries) < 5 else None
    await ReportSender(catalog, SetClock(MONDAY)).look()
    async with delivering(catalog):
        await until(lambda: len(mails.got) == 2)
    first, second = ([line for line in got.content.splitlines() if not line.startswith(b"To:")] for got in mails.got)
    assert first == second
    assert [got.recipients for got in mails.got] == [["a@example.com"], ["b@example.com"]]


async def test_a_death_before_the_claim_leaves_it_due_and_one_behind_it_sends_it(
    catalog: Catalog, database_url: str, mails: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    async def dies(*_: Any) -> None:
        raise Died

    await add(catalog, mails.target())
    clock = SetClock(MONDAY + HOUR)
    with monkeypatch.context() as patch:
        patch.setattr(ReportSchedules, "_put", dies)  # the schedule was moved on, in the same transaction
        with pytest.raises(Died):
            await ReportSender(catalog, clock).look()
    assert await waiting(catalog) == []
    assert (await catalog.report_schedules.get("weekly")).due_at == MONDAY
    await ReportSender(catalog, clock).look()
    async with open_catalog(database_url, KEY) as again:  # nothing was sent by who claimed it
        await ReportSender(again, clock).look()
        async with delivering(again):
            await until(lambda: mails.got)
            await asyncio.sleep(0.3)
    assert len(mails.got) == 1


async def test_of_several_servers_one_sends(catalog: Catalog, database_url: str, mails: Mails) -> None:
    for number in range(5):
        await add(catalog, mails.target(), f"r{number}")
    clock = SetClock(MONDAY)
    async with open_catalog(database_url, KEY) as other:
        senders = [ReportSender(one, clock) for one in (catalog, other, catalog, other)]
        await asyncio.gather(*(one.look() for one in senders))
    assert sorted(row.subject for row in await waiting(catalog)) == [f"r{number}" for number in range(5)]


async def test_what_was_missed_comes_once_with_the_newest_period(catalog: Catalog, mails: Mails) -> None:
    await add(catalog, mails.target(), cron="0 7 * * *", last=DAY)
    await ReportSender(catalog, SetClock(MONDAY + 10 * DAY + HOUR)).look()
    (row,) = await waiting(catalog)
    assert row.data["details"]["to"] == (MONDAY + 10 * DAY).isoformat()
    assert row.data["details"]["from"] == (MONDAY + 9 * DAY).isoformat()
    assert (await catalog.report_schedules.get("weekly")).due_at == MONDAY + 11 * DAY


async def test_a_clock_that_was_ahead_keeps_no_report_for_years(catalog: Catalog, mails: Mails) -> None:
    await add(catalog, mails.target())
    await add(catalog, mails.target(), "a-broken", timezone="Nowhere/Else", due_at=MONDAY + 4000 * DAY)
    await ReportSender(catalog, SetClock(MONDAY + 10 * 364 * DAY)).look()  # another Monday
    assert (await catalog.report_schedules.get("weekly")).due_at > MONDAY + 10 * 364 * DAY
    clock = SetClock(MONDAY + DAY)
    stale = await catalog.report_schedules.get("weekly")
    await ReportSender(catalog, clock).look()
    assert (await catalog.report_schedules.get("weekly")).due_at == MONDAY + 7 * DAY
    assert not await catalog.report_schedules.bring_back(stale, MONDAY), "it was moved meanwhile"
    assert len(await waiting(catalog)) == 1
    clock.go(6 * DAY)
    await ReportSender(catalog, clock).look()
    first, second = sorted(row.data["details"]["to"] for row in await waiting(catalog))
    assert (first, second) == ((MONDAY + 7 * DAY).isoformat(), (MONDAY + 10 * 364 * DAY).isoformat())


@pytest.mark.parametrize("behind", [timedelta(seconds=5), timedelta(hours=2)])
async def test_what_a_server_has_sent_whose_clock_is_a_little_ahead_is_not_sent_again(
    catalog: Catalog, mails: Mails, behind: timedelta
) -> None:
    await add(catalog, mails.target())
    await ReportSender(catalog, SetClock(MONDAY)).look()
    clock = SetClock(MONDAY - behind)
    await ReportSender(catalog, clock).look()
    assert (await catalog.report_schedules.get("weekly")).due_at == MONDAY + 7 * DAY
    clock.go(behind)
    await ReportSender(catalog, clock).look()
    assert len(await waiting(catalog)) == 1


async def test_it_comes_at_the_same_hour_when_clocks_change(catalog: Catalog, mails: Mails) -> None:
    saturday = datetime(2027, 10, 30, 5, tzinfo=UTC)
    await add(catalog, mails.target(), cron="0 7 * * *", last=DAY, due_at=saturday)
    clock = SetClock(saturday)
    await ReportSender(catalog, clock).look()
    due = (await catalog.report_schedules.get("weekly")).due_at
    assert due == saturday + 25 * HOUR, "clocks were set back that night"


@pytest.mark.parametrize(
    ("first", "cron", "last"),
    [
        (datetime(2027, 10, 29, 5, tzinfo=UTC), "0 7 * * *", DAY),
        (datetime(2027, 3, 26, 6, tzinfo=UTC), "0 7 * * *", DAY),
        (datetime(2027, 10, 25, 5, tzinfo=UTC), "0 7 * * MON", 7 * DAY),
        (datetime(2027, 10, 29, 0, 30, tzinfo=UTC), "30 2 * * *", DAY),  # comes twice that night
    ],
)
async def test_one_period_begins_where_the_one_before_has_ended_when_clocks_change(
    catalog: Catalog, mails: Mails, first: datetime, cron: str, last: timedelta
) -> None:
    await add(catalog, mails.target(), cron=cron, last=last, due_at=first)
    for _ in range(4):
        clock = SetClock((await catalog.report_schedules.get("weekly")).due_at)
        await ReportSender(catalog, clock).look()
    told = sorted((row.data["details"]["from"], row.data["details"]["to"]) for row in await waiting(catalog))
    lengths = {datetime.fromisoformat(end) - datetime.fromisoformat(begin) for begin, end in told}
    assert lengths > {last}, "one has a day of another length"
    assert [begin for begin, _ in told[1:]] == [end for _, end in told[:-1]]


@given(st.integers(0, 3 * 366 * 24 * 4), st.integers(1, 400))
@example((31 + 28 + 28) * 24 * 4 + 2, 1)  # half past two on the day after the one without that time
def test_whole_days_are_the_same_local_time_and_hours_are_hours(quarters: int, days: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    end = datetime(2027, 1, 1, tzinfo=UTC) + quarters * timedelta(minutes=15)
    begin = sending.begin_of(end, days * DAY, berlin)
    assert abs(end - begin - days * DAY) <= HOUR
    local = end.astimezone(berlin).replace(tzinfo=None) - days * DAY
    found = begin.astimezone(berlin).replace(tzinfo=None)
    assert found == local or found == local - HOUR, "that time did not come"
    assert sending.begin_of(end, days * DAY + HOUR, berlin) == end - days * DAY - HOUR


async def test_while_the_channel_is_off_nothing_is_sent_and_that_is_noted(catalog: Catalog, mails: Mails) -> None:
    schedule = await add(catalog, mails.target())
    channel = await catalog.channels.get("team")
    channel = await catalog.channels.change(channel, by="anna", secrets={}, enabled=False)
    clock = SetClock(MONDAY)
    await ReportSender(catalog, clock).look()
    assert await waiting(catalog) == []
    noted = await catalog.report_schedules.get("weekly")
    assert (noted.due_at, noted.note) == (MONDAY + 7 * DAY, "the channel is off")
    assert await ReportSender(catalog, clock).send(schedule) is None
    await catalog.channels.change(channel, by="anna", secrets={}, enabled=True)
    clock.go(7 * DAY)
    await ReportSender(catalog, clock).look()
    assert len(await waiting(catalog)) == 1
    assert (await catalog.report_schedules.get("weekly")).note == ""


async def test_sent_now_it_is_still_due_then(catalog: Catalog, mails: Mails) -> None:
    schedule = await add(catalog, mails.target(), report="coverage", form="csv")
    sent = await ReportSender(catalog, SetClock(MONDAY - DAY)).send(schedule)
    (row,) = await waiting(catalog)
    assert (row.id, row.data["message"]) == (sent, "weekly: coverage of 2027-06-06 07:00")
    assert (await catalog.report_schedules.get("weekly")).due_at == MONDAY


async def test_what_is_too_long_is_cut_and_says_so(
    catalog: Catalog, mails: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalog, mails.target(), report="coverage", form="csv")
    monkeypatch.setattr(sending, "MOST_BYTES", 10)
    await ReportSender(catalog, SetClock(MONDAY)).look()
    (row,) = await waiting(catalog)
    assert b"1 more rows are left out" in row.content
    assert row.data["details"]["left_out"] == 1
    assert "`snapkeep report coverage`" in row.data["next_step"]


async def test_one_that_fails_keeps_no_other(catalog: Catalog, mails: Mails) -> None:
    await add(catalog, mails.target(), "a-broken", timezone="Nowhere/Else", due_at=MONDAY - HOUR)
    await add(catalog, mails.target(), "b")
    await ReportSender(catalog, SetClock(MONDAY)).look()
    assert [row.subject for row in await waiting(catalog)] == ["b"]


async def test_files_go_when_they_are_sent_or_given_up(catalog: Catalog, mails: Mails) -> None:
    schedule = await add(catalog, mails.target())
    reports = ReportSender(catalog, SetClock(MONDAY))
    sent, refused, waits = [await reports.send(schedule) for _ in range(3)]
    found = {one.id: one for one in await catalog.deliveries.find()}
    now = await catalog.database.now()
    await catalog.deliveries.sent(found[str(sent)], now, "250")
    assert {row.id for row in await waiting(catalog)} == {refused, waits}
    await catalog.deliveries.give_up(found[str(refused)], now, "550")
    assert {row.id for row in await waiting(catalog)} == {waits}
    await catalog.deliveries.give_up_before(now - HOUR, now)
    assert {row.id for row in await waiting(catalog)} == {waits}, "it is tried again"
    await catalog.deliveries.give_up_before(now + HOUR, now + HOUR)
    assert await waiting(catalog) == []
    assert len(await catalog.deliveries.find()) == 3, "what became of them is shown on"


async def test_who_slept_while_another_server_sent_it_sends_no_mail_without_the_file(
    catalog: Catalog, mails: Mails
) -> None:
    await ReportSender(catalog, SetClock(MONDAY)).send(await add(catalog, mails.target()))
    channel = await catalog.channels.get("team")
    slow = Sender(catalog, References(environment={}), Clock())
    claimed = await catalog.deliveries.claim(channel.id, await catalog.database.now())
    assert claimed is not None
    await catalog.deliveries.sent(claimed, await catalog.database.now(), "250 of the other")
    outcome = await slow._send(channel, claimed)
    await slow._note(channel, claimed, outcome)
    assert mails.got == []
    known = await catalog.deliveries.known(claimed.id)
    assert known is not None and known.answer == "250 of the other"


async def test_a_channel_stays_while_reports_go_over_it(catalog: Catalog, mails: Mails) -> None:
    await add(catalog, mails.target())
    with pytest.raises(Conflict, match="A report is sent as 'weekly' already"):
        await add(catalog, mails.target())
    channel = await catalog.channels.get("team")
    with pytest.raises(Conflict, match="Reports are sent over the channel 'team'"):
        await catalog.channels.remove(channel, by="anna")
    await ReportSender(catalog, SetClock(MONDAY)).look()
    await catalog.report_schedules.remove("weekly")
    with pytest.raises(NotFound):
        await catalog.report_schedules.remove("weekly")
    await catalog.channels.remove(channel, by="anna")
    async with catalog.database.connect() as connection:
        assert (await connection.execute(select(attachments))).all() == [], "files go with what they went with"


@given(st.sampled_from(["0 7 * * *", "*/5 * * * *", "0 7 * * MON", "0 0 1 1 *"]), st.integers(0, 800 * 24 * 60))
def test_the_period_ends_when_it_was_due_last(cron: str, minutes: int) -> None:
    calendar = Schedule(cron, ZoneInfo("Europe/Berlin"))
    due = next(calendar.after(MONDAY))
    now = due + timedelta(minutes=minutes)
    last = sending._last_due(calendar, due, now)
    assert due <= last <= now
    assert next(calendar.after(last)) > now
