"""The outbox: what is to be told is written in the transaction of what it tells, for each channel that wants it.

So an event is lost only with what it tells. Whoever fills the outbox wakes the sender when his transaction has ended;
what other processes write is found by looking.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.tables import channels, deliveries
from snapkeep.model.notifications import DeliveryState, Notice

# On PostgreSQL, a channel that is found is still there at the end of the transaction.
_LISTENING = (
    select(channels.c.id, channels.c.events, channels.c.systems, database_clock().label("clock"))
    .where(channels.c.enabled)
    .with_for_update(read=True, key_share=True)
)


class Outbox:
    """Takes what is to be told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._server = socket.gethostname()
        self.news = asyncio.Event()
        """Set when something may be there to be sent."""

    async def put(
        self, connection: AsyncConnection, notice: Notice, *, quiet: timedelta | None = None, except_for: str = ""
    ) -> None:
        """Have this told, if the transaction is committed; call `wake` then.

        `quiet`: not when the same event was told of the same subject so shortly ago. `except_for`: id of a channel.
        """
        found = (await connection.execute(_LISTENING)).all()
        wanted = [row for row in found if row.id != except_for and _wants(row, notice)]
        if not wanted:
            return
        now: datetime = wanted[0].clock
        if quiet is not None and await _was_told(connection, notice, now - quiet):
            return
        rows = [row_of(row.id, notice, self._server, now) for row in wanted]
        await connection.execute(insert(deliveries), rows)

    async def put_to(self, connection: AsyncConnection, channel_id: str, notice: Notice, now: datetime) -> str:
        """Have this told over one channel, whatever it wants; return the id of the delivery. Else as `put`."""
        row = row_of(channel_id, notice, self._server, now)
        await connection.execute(insert(deliveries).values(row))
        return str(row["id"])

    async def tell(self, notice: Notice, *, quiet: timedelta | None = None) -> None:
        """Have this told, in a transaction of its own."""
        async with self._database.begin() as connection:
            await self.put(connection, notice, quiet=quiet)
        self.wake()

    def wake(self) -> None:
        """Have the sender of this process look at once."""
        self.news.set()

    def row(self, channel_id: str, notice: Notice, now: datetime, **more: Any) -> dict[str, Any]:
        """Return the row of a delivery."""
        return row_of(channel_id, notice, self._server, now) | more


def row_of(channel_id: str, notice: Notice, server: str, now: datetime) -> dict[str, Any]:
    """Return the row of a delivery that waits."""
    data = notice.data(server)
    return {
        "id": str(uuid.uuid4()),
        "channel_id": channel_id,
        "event": notice.event.value,
        "system": notice.system,
        "subject": data["subject"],
        "data": data,
        "state": DeliveryState.WAITING.value,
        "attempts": 0,
        "answer": "",
        "created_at": now,
        "due_at": now,
    }


def _wants(channel: Any, notice: Notice) -> bool:
    """Say whether a channel is to be told. What is about no system is told whatever systems were chosen."""
    of_system = not channel.systems or notice.system is None or notice.system in channel.systems
    return of_system and (not channel.events or notice.event.value in channel.events)


async def _was_told(connection: AsyncConnection, notice: Notice, since: datetime) -> bool:
    same = select(deliveries.c.id).where(
        deliveries.c.created_at > since,
        deliveries.c.event == notice.event.value,
        deliveries.c.subject == notice.data("")["subject"],
    )
    return (await connection.execute(same.limit(1))).first() is not None
