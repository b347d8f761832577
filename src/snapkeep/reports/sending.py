"""Sends reports when they are due: once each, whichever of several servers does.

A report is made first. Then one transaction moves the schedule on and writes the report to the outbox: whoever dies
before has sent nothing, and leaves it due; from then on the sender of notifications tries again with what was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.outages import is_outage
from snapkeep.catalog.report_schedules import Attachment, ReportSchedule
from snapkeep.model.notifications import Notice, OwnEvent
from snapkeep.model.reports import ReportKind
from snapkeep.operations.background import again_and_again, in_background
from snapkeep.operations.clock import Clock
from snapkeep.policy.firing import AHEAD
from snapkeep.policy.schedule import Schedule
from snapkeep.reports.making import report_of
from snapkeep.reports.report import Asked
from snapkeep.reports.writing import Written

LOOK_SECONDS: Final = 20.0
MOST_BYTES: Final = 2 * 1024 * 1024
"""Of a report that is sent: mail servers refuse what is too long, and it must be sent in the time that one try has."""

_DAY: Final = timedelta(days=1)
_BACK: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=370), timedelta(days=3700))

log = structlog.get_logger(__name__)


class ReportSender:
    """Sends, in this process; others may do so at the same time."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do so in the background."""
        async with in_background(again_and_again("reports", self.look, partial(self._clock.sleep, LOOK_SECONDS))):
            yield

    async def look(self) -> None:
        """Send what is due; that one fails keeps no other from it. What was missed comes once."""
        now = self._clock.now()
        schedules = self._catalog.report_schedules
        await self._each(self._bring_back, await schedules.due_after(now + AHEAD), now)
        await self._each(self._fire, await schedules.due(now), now)

    async def send(self, schedule: ReportSchedule) -> str | None:
        """Send one now, of the period that ends now; return the delivery's id. None: its channel is off."""
        notice, file = await self._made(schedule, self._clock.now())
        return await self._catalog.report_schedules.send(schedule, notice, file)

    async def _each(
        self,
        do: Callable[[ReportSchedule, datetime], Awaitable[None]],
        schedules: Sequence[ReportSchedule],
        now: datetime,
    ) -> None:
        for schedule in schedules:
            try:
                await do(schedule, now)
            except Exception as error:
                if is_outage(error):
                    raise
                log.exception("a report cannot be sent; it is tried again", schedule=schedule.name)

    async def _bring_back(self, schedule: ReportSchedule, now: datetime) -> None:
        """Have one be due when its calendar says, that a clock which was wrong has moved on too far.

        A server whose clock is a little ahead has moved it on rightly: that is to what comes behind `AHEAD`, at most.
        """
        calendar = calendar_of(schedule.cron, schedule.timezone)
        if schedule.due_at <= next(calendar.after(now + AHEAD)):
            return
        next_at = next(calendar.after(now))
        if await self._catalog.report_schedules.bring_back(schedule, next_at):
            log.warning(
                "a clock was wrong; a report is due sooner again",
                schedule=schedule.name, was=schedule.due_at.isoformat(), next_at=next_at.isoformat(),
            )  # fmt: skip

    async def _fire(self, schedule: ReportSchedule, now: datetime) -> None:
        calendar = calendar_of(schedule.cron, schedule.timezone)
        notice, file = await self._made(schedule, _last_due(calendar, schedule.due_at, now))
        next_at = next(calendar.after(now))
        if await self._catalog.report_schedules.fire(schedule, next_at, notice, file, now):
            log.info("a report is sent", schedule=schedule.name, bytes=len(file.content), next_at=next_at.isoformat())

    async def _made(self, schedule: ReportSchedule, end: datetime) -> tuple[Notice, Attachment]:
        """Make the report of the period that ends at a time: it shows what an administrator sees."""
        has_period = schedule.report is not ReportKind.COVERAGE
        since, until = (begin_of(end, schedule.last, ZoneInfo(schedule.timezone)), end) if has_period else (None, None)
        asked = Asked(schedule.report, self._clock.now(), since, until, schedule.system)
        written = Written(report_of(self._catalog, asked), schedule.form, size=MOST_BYTES)
        content = b"".join([piece async for piece in written.pieces()])
        name = f"snapkeep-{schedule.name}-{end:%Y%m%d-%H%M}.{schedule.form}"
        return _notice(schedule, since, end, written.left_out), Attachment(name, schedule.form.media_type, content)


def calendar_of(cron: str, timezone: str) -> Schedule:
    """Return when something is due. Raises ValueError for what is no cron expression or no time zone."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{timezone!r:.80} is no time zone") from error
    return Schedule(cron, zone)


def begin_of(end: datetime, last: timedelta, zone: ZoneInfo) -> datetime:
    """Return the beginning of a period, in UTC: whole days before its end is the same local time, also when clocks have
    changed since; of two such times, and of one that did not come, the earlier moment, so that nothing falls out."""
    if last % _DAY:
        return end - last
    local = end.astimezone(zone).replace(tzinfo=None) - last
    return min(local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def _last_due(calendar: Schedule, due_at: datetime, now: datetime) -> datetime:
    """Return the last moment at which it was due; looked for near the end first, since there may be many."""
    for back in _BACK:
        last = deque(calendar.between(max(due_at, now - back), now), maxlen=1)
        if last:
            return last[0]
    return due_at


def _notice(schedule: ReportSchedule, since: datetime | None, end: datetime, left_out: int) -> Notice:
    zone = ZoneInfo(schedule.timezone)
    moments = [moment.astimezone(zone).strftime("%Y-%m-%d %H:%M") for moment in (since, end) if moment is not None]
    missing = f"{left_out} rows are left out, since it would be too long. Get all: `snapkeep report {schedule.report}`."
    return Notice(
        event=OwnEvent.REPORT,
        message=f"{schedule.name}: {schedule.report} of {' to '.join(moments)}",
        next_step=missing if left_out else "",
        system=schedule.system,
        subject=schedule.name,
        actor=schedule.made_by,
        details={
            "report": schedule.report.value,
            "schedule": schedule.name,
            "from": since.isoformat() if since is not None else None,
            "to": end.isoformat(),
            "left_out": left_out,
        },
    )
