"""Queries on reports that are sent when they are due, and on the files that go with what is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort
from snapkeep.catalog.tables import attachments, channels, report_schedules
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.model.notifications import Notice
from snapkeep.model.reports import ReportForm, ReportKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSchedule:
    """A report that is sent over a channel when it is due."""

    id: str
    name: str
    report: ReportKind
    form: ReportForm
    cron: str
    timezone: str
    last: timedelta
    """How long the period is, which ends when it is due; whole days are days of the time zone."""
    system: str | None
    """Name of the only system that it is about; None: all."""
    channel_id: str
    channel: str
    made_by: str
    created_at: datetime
    due_at: datetime
    fired_at: datetime | None
    note: str
    """Why the last one was not sent; empty: it was."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a delivery."""

    name: str
    media_type: str
    content: bytes


_QUERY = select(report_schedules, channels.c.name.label("channel")).join(channels)


class ReportSchedules:
    """The reports that are sent."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    # -- reading -----------------------------------------------------------------------------------------------------
    async def find(self, paging: Paging = ALL) -> Listed[ReportSchedule]:
        """Return them, by `SCHEDULE_ORDERS`."""
        async with self._database.connect() as connection:
            return await SCHEDULE_ORDERS.read(connection, _QUERY, _record, paging)

    async def get(self, name: str) -> ReportSchedule:
        """Return one. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_QUERY.where(report_schedules.c.name == name))).first()
        if row is None:
            raise NotFound(f"No report is sent as {name!r:.80}", next_step="See `snapkeep report schedule list`.")
        return _record(row)

    async def due(self, now: datetime) -> list[ReportSchedule]:
        """Return those that are due, the longest first."""
        query = _QUERY.where(report_schedules.c.due_at <= now).order_by(report_schedules.c.due_at)
        async with self._database.connect() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def due_after(self, moment: datetime) -> list[ReportSchedule]:
        """Return those that are not due before a moment has passed."""
        query = _QUERY.where(report_schedules.c.due_at > moment).order_by(report_schedules.c.due_at)
        async with self._database.connect() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def attachment(self, delivery_id: str) -> Attachment | None:
        """Return the file that goes with a delivery, if one does, until the delivery has ended."""
        query = select(attachments).where(attachments.c.delivery_id == delivery_id)
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else Attachment(row.name, row.media_type, row.content)

    # -- changing ----------------------------------------------------------------------------------------------------
    async def add(self, schedule_id: str, *, name: str, last: timedelta, **values: Any) -> ReportSchedule:
        """Store one. Raises Conflict when the name is taken, or the channel was removed."""
        seconds = int(last.total_seconds())
        row = {"id": schedule_id, "name": name, "seconds": seconds, "note": "", **values}
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(report_schedules).values(row))
        except IntegrityError as error:
            raise Conflict(
                f"A report is sent as {name!r} already, or its channel was removed",
                next_step="Choose another name; see `snapkeep report schedule list` and `snapkeep notification list`.",
            ) from error
        return await self.get(name)

    async def remove(self, name: str) -> None:
        """Send it no more. Raises NotFound."""
        async with self._database.begin() as connection:
            removed = await connection.execute(delete(report_schedules).where(report_schedules.c.name == name))
        if not removed.rowcount:
            await self.get(name)

    # -- sending -----------------------------------------------------------------------------------------------------
    async def send(self, schedule: ReportSchedule, notice: Notice, file: Attachment) -> str | None:
        """Have a report sent now, whenever it is due; return the delivery's id. None: the channel is off."""
        async with self._database.begin() as connection:
            sent = await self._put(connection, schedule, notice, file)
        self._outbox.wake()
        return sent

    async def fire(
        self, schedule: ReportSchedule, next_at: datetime, notice: Notice, file: Attachment, now: datetime
    ) -> bool:
        """Have a report sent that is due, and move on when the next one is: both or nothing.

        False: another server has, or it was removed. While the channel is off nothing is sent, which is noted.
        """
        mine = (report_schedules.c.id == schedule.id) & (report_schedules.c.due_at == schedule.due_at)
        moved = update(report_schedules).where(mine).values(due_at=next_at, fired_at=now, note="")
        async with self._database.begin() as connection:
            if not (await connection.execute(moved)).rowcount:
                return False
            if await self._put(connection, schedule, notice, file) is None:
                told = update(report_schedules).where(report_schedules.c.id == schedule.id)
                await connection.execute(told.values(note="the channel is off"))
        self._outbox.wake()
        return True

    async def bring_back(self, schedule: ReportSchedule, due_at: datetime) -> bool:
        """Have one be due at another time. False: it was moved on meanwhile, or removed."""
        mine = (report_schedules.c.id == schedule.id) & (report_schedules.c.due_at == schedule.due_at)
        async with self._database.single(durable=True) as connection:
            return bool((await connection.execute(update(report_schedules).where(mine).values(due_at=due_at))).rowcount)

    async def _put(
        self, connection: AsyncConnection, schedule: ReportSchedule, notice: Notice, file: Attachment
    ) -> str | None:
        listening = select(database_clock()).where(channels.c.id == schedule.channel_id, channels.c.enabled)
        now = await connection.scalar(listening.select_from(channels))
        if now is None:
            return None
        delivery_id = await self._outbox.put_to(connection, schedule.channel_id, notice, now)
        values = {"name": file.name, "media_type": file.media_type, "content": file.content}
        await connection.execute(insert(attachments).values(delivery_id=delivery_id, **values))
        return delivery_id


SCHEDULE_ORDERS = Orders[ReportSchedule](
    "name",
    name=Sort((report_schedules.c.name,), lambda item: (item.name,)),
    due_at=Sort((report_schedules.c.due_at, report_schedules.c.id), lambda item: (item.due_at, item.id)),
)


def _record(row: Any) -> ReportSchedule:
    values = row._asdict()
    last = timedelta(seconds=values.pop("seconds"))
    return ReportSchedule(**values | {"report": ReportKind(row.report), "form": ReportForm(row.form), "last": last})
