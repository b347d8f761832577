"""Queries on deliveries: what waits for a channel, who sends it now, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import FIRST, Listed, Orders, Paging, Sort
from snapkeep.catalog.tables import attachments, channels, deliveries
from snapkeep.model.notifications import DeliveryState, Notice, OwnEvent

LEASE = timedelta(seconds=45)
"""So long a delivery belongs to whoever has begun to send it."""
MINUTE = timedelta(minutes=1)
KEPT = timedelta(days=30)
"""So long it is shown what became of a delivery."""
MOST_KEPT = 10_000
"""So many that have ended are kept in all."""

_OWN = tuple(event.value for event in OwnEvent)
_WAITS = deliveries.c.state == DeliveryState.WAITING.value


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """An event for one channel."""

    id: str
    channel_id: str
    channel_name: str
    event: str
    system: str | None
    subject: str
    data: dict[str, Any]
    recipients: tuple[str, ...] | None
    """Of an e-mail: who has not got it yet; None: nobody has."""
    state: DeliveryState
    attempts: int
    answer: str
    """What the other side said last."""
    summary_id: str | None
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None


_QUERY = select(deliveries, channels.c.name.label("channel_name")).join(channels)


class Deliveries:
    """What is sent."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    # -- reading -----------------------------------------------------------------------------------------------------
    async def find(
        self,
        *,
        channel: str | None = None,
        states: Sequence[DeliveryState] = (),
        event: str | None = None,
        paging: Paging = FIRST,
    ) -> Listed[DeliveryRecord]:
        """Return deliveries, by `DELIVERY_ORDERS`. `channel`: its name."""
        query = _QUERY.where(channels.c.name == channel) if channel is not None else _QUERY
        query = query.where(deliveries.c.state.in_([state.value for state in states])) if states else query
        query = query.where(deliveries.c.event == event) if event is not None else query
        async with self._database.connect() as connection:
            return await DELIVERY_ORDERS.read(connection, query, _record, paging)

    async def known(self, delivery_id: str) -> DeliveryRecord | None:
        """Return one by its id; None when it is no more."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_QUERY.where(deliveries.c.id == delivery_id))).first()
        return None if row is None else _record(row)

    async def due(self, now: datetime) -> list[str]:
        """Return the ids of the channels for which something is to be sent."""
        waiting = select(deliveries.c.channel_id).join(channels).where(channels.c.enabled, _WAITS)
        async with self._database.connect() as connection:
            found = await connection.execute(waiting.where(deliveries.c.due_at <= now).distinct())
            return list(found.scalars())

    async def told_lately(self, channel_id: str, now: datetime) -> tuple[int, bool]:
        """Return how many events a channel was told of within a minute, and whether it got a summary, too."""
        query = (
            select(deliveries.c.event, func.count())
            .where(
                deliveries.c.channel_id == channel_id,
                deliveries.c.state == DeliveryState.SENT.value,
                deliveries.c.ended_at > now - MINUTE,
                deliveries.c.event != OwnEvent.TEST.value,
            )
            .group_by(deliveries.c.event)
        )
        async with self._database.connect() as connection:
            found: dict[str, int] = dict((await connection.execute(query)).all())
        summaries = found.pop(OwnEvent.SUMMARY.value, 0)
        return sum(found.values()), bool(summaries)

    async def fresh(self, channel_id: str, now: datetime) -> tuple[int, datetime]:
        """Return how many events are due that were never tried, and when the first of them was."""
        query = select(func.count(), func.min(deliveries.c.created_at)).where(*_fresh(channel_id, now))
        async with self._database.connect() as connection:
            number, first = (await connection.execute(query)).one()
        return number, first or now

    # -- sending -----------------------------------------------------------------------------------------------------
    async def claim(self, channel_id: str, now: datetime, *, tried: bool = False) -> DeliveryRecord | None:
        """Take the next one that is due; nobody else does within `LEASE`. None: there is none.

        `tried`: only what was tried before, or is a summary.
        """
        wanted = select(deliveries.c.id, deliveries.c.attempts).where(
            deliveries.c.channel_id == channel_id, _WAITS, deliveries.c.due_at <= now
        )
        if tried:
            wanted = wanted.where((deliveries.c.attempts > 0) | deliveries.c.event.in_(_OWN))
        wanted = wanted.order_by(deliveries.c.due_at, deliveries.c.created_at, deliveries.c.id).limit(1)
        while True:
            async with self._database.connect() as connection:
                row = (await connection.execute(wanted)).first()
            if row is None:
                return None
            mine = (deliveries.c.id == row.id) & _WAITS & (deliveries.c.attempts == row.attempts)
            values = {"attempts": row.attempts + 1, "due_at": now + LEASE}
            async with self._database.single() as connection:
                taken = await connection.execute(update(deliveries).where(mine).values(values))
            if taken.rowcount:
                return await self.known(row.id)

    async def begin_test(self, channel_id: str, notice: Notice, now: datetime) -> DeliveryRecord | None:
        """Enter one that the caller sends himself, now."""
        row = self._outbox.row(channel_id, notice, now, attempts=1, due_at=now + LEASE)
        async with self._database.begin() as connection:
            await connection.execute(insert(deliveries).values(row))
        return await self.known(row["id"])

    async def sent(self, delivery: DeliveryRecord, now: datetime, answer: str) -> None:
        """Note that the other side has taken it."""
        await self._end(delivery.id, DeliveryState.SENT, now, answer)

    async def give_up(self, delivery: DeliveryRecord, now: datetime, answer: str) -> None:
        """Note that it is not tried again."""
        await self._end(delivery.id, DeliveryState.GIVEN_UP, now, answer)

    async def put_off(
        self, delivery: DeliveryRecord, due: datetime, answer: str, recipients: Sequence[str] | None
    ) -> None:
        """Note that it is tried again at a time; `recipients`: those who are left."""
        mine = (deliveries.c.id == delivery.id) & _WAITS & (deliveries.c.attempts == delivery.attempts)
        values = {"due_at": due, "answer": answer, "recipients": recipients and list(recipients)}
        async with self._database.single() as connection:
            await connection.execute(update(deliveries).where(mine).values(values))

    async def summarise(self, channel_id: str, now: datetime) -> int:
        """Put one delivery in the place of all that are due and were never tried; return how many those are."""
        ended = {"state": DeliveryState.SUMMARISED.value, "ended_at": now}
        taking = update(deliveries).where(*_fresh(channel_id, now)).values(ended)
        async with self._database.begin() as connection:
            found = await connection.execute(
                taking.returning(deliveries.c.id, deliveries.c.event, deliveries.c.system, deliveries.c.created_at)
            )
            rows = found.all()
            if not rows:
                return 0
            row = self._outbox.row(channel_id, _summary(rows), now)
            await connection.execute(insert(deliveries).values(row))
            of_these = (deliveries.c.channel_id == channel_id) & deliveries.c.summary_id.is_(None)
            of_these &= deliveries.c.state == DeliveryState.SUMMARISED.value
            await connection.execute(update(deliveries).where(of_these).values(summary_id=row["id"]))
        return len(rows)

    async def give_up_before(self, created: datetime, now: datetime) -> None:
        """Give up what has waited for longer, and is not being sent at this moment; its file goes."""
        old = (_WAITS, deliveries.c.created_at < created, deliveries.c.due_at <= now)
        values = {"state": DeliveryState.GIVEN_UP.value, "ended_at": now}
        ended = select(deliveries.c.id).where(~_WAITS)
        async with self._database.begin() as connection:
            await connection.execute(update(deliveries).where(*old).values(values))
            await connection.execute(delete(attachments).where(attachments.c.delivery_id.in_(ended)))

    async def purge(self, now: datetime) -> None:
        """Forget what ended long ago, and of more than `MOST_KEPT` the oldest."""
        newest = select(deliveries.c.ended_at).where(deliveries.c.ended_at.is_not(None))
        newest = newest.order_by(deliveries.c.ended_at.desc()).offset(MOST_KEPT).limit(1)
        async with self._database.connect() as connection:
            overflow: datetime | None = await connection.scalar(newest)
        before = max(now - KEPT, overflow or now - KEPT)
        async with self._database.single() as connection:
            await connection.execute(delete(deliveries).where(deliveries.c.ended_at <= before))

    async def _end(self, delivery_id: str, state: DeliveryState, now: datetime, answer: str) -> None:
        """Note how it ended; the file that went with it is needed no more."""
        values = {"state": state.value, "ended_at": now, "answer": answer}
        async with self._database.begin() as connection:
            await connection.execute(update(deliveries).where(deliveries.c.id == delivery_id, _WAITS).values(values))
            await connection.execute(delete(attachments).where(attachments.c.delivery_id == delivery_id))


DELIVERY_ORDERS = Orders[DeliveryRecord](
    "-created_at",
    created_at=Sort((deliveries.c.created_at, deliveries.c.id), lambda item: (item.created_at, item.id)),
)


def _fresh(channel_id: str, now: datetime) -> tuple[Any, ...]:
    return (
        deliveries.c.channel_id == channel_id,
        _WAITS,
        deliveries.c.due_at <= now,
        deliveries.c.attempts == 0,
        deliveries.c.event.not_in(_OWN),
    )


def _summary(rows: Sequence[Any]) -> Notice:
    events = Counter(row.event for row in rows)
    systems = Counter(row.system for row in rows if row.system is not None)
    times = sorted(row.created_at for row in rows)
    listed = ", ".join(f"{number} {event}" for event, number in events.most_common())
    return Notice(
        event=OwnEvent.SUMMARY,
        message=f"{len(rows)} more events, too many to be told one by one: {listed}",
        next_step="See `snapkeep notification deliveries`, and `snapkeep operation list --state failed`.",
        details={
            "count": len(rows),
            "events": dict(events),
            "systems": dict(systems.most_common(100)),
            "first_at": times[0].isoformat(),
            "last_at": times[-1].isoformat(),
        },
    )


def _record(row: Any) -> DeliveryRecord:
    values = row._asdict() | {"state": DeliveryState(row.state)}
    return DeliveryRecord(**values | {"recipients": None if row.recipients is None else tuple(row.recipients)})
