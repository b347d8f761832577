"""Queries on workers: who is alive, by the clock of the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select, update

from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.records import WorkerRecord
from snapkeep.catalog.tables import workers

TAKEN_SECONDS = 30.0
"""After which a takeover that came to no end may be begun by another worker."""


class Workers:
    """The processes that run operations, and their heartbeats."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(
        self, name: str, incarnation: str, *, queues: Sequence[str], host: str, place: str, pid: int, version: str
    ) -> None:
        """Enter a worker that begins, in place of an earlier one of that name."""
        clock = database_clock()
        values: dict[str, Any] = {
            "incarnation": incarnation,
            "queues": list(queues),
            "host": host,
            "place": place,
            "pid": pid,
            "version": version,
            "started_at": clock,
            "heartbeat_at": clock,
            "left_at": None,
            "taken_by": None,
            "taken_at": None,
            "cleared": False,
        }
        insert = self._database.insert(workers).values(name=name, **values)
        async with self._database.single() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))

    async def beat(self, name: str, incarnation: str) -> bool:
        """Give a sign of life; false when another has the name, or the others have taken this one for dead."""
        return await self._change(name, incarnation, workers.c.taken_by.is_(None), heartbeat_at=database_clock())

    async def leave(self, name: str, incarnation: str) -> None:
        """Say that this worker has ended as it should; others hand out what it had begun."""
        await self._change(name, incarnation, workers.c.taken_by.is_(None), left_at=database_clock())

    async def find(self) -> list[WorkerRecord]:
        """Return all workers by name, with the age of their heartbeats."""
        query = select(workers, database_clock().label("clock")).order_by(workers.c.name)
        async with self._database.connect() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def take(self, dead: WorkerRecord, taker: str) -> bool:
        """Take over a worker that has left or died: only one taker at a time, and only while it gives no sign."""
        free = workers.c.taken_by.is_(None) | (workers.c.taken_at < database_clock(-TAKEN_SECONDS))
        same = workers.c.heartbeat_at == dead.heartbeat_at
        return await self._change(dead.name, dead.incarnation, free, same, taken_by=taker, taken_at=database_clock())

    async def cleared(self, dead: WorkerRecord, taker: str) -> None:
        """Note that what it had begun was handed out."""
        await self._change(dead.name, dead.incarnation, workers.c.taken_by == taker, cleared=True)

    async def forget(self, seconds: float) -> None:
        """Remove those that were cleared and have given no sign for so long."""
        async with self._database.single() as connection:
            await connection.execute(
                delete(workers).where(workers.c.cleared, workers.c.heartbeat_at < database_clock(-seconds))
            )

    async def _change(self, name: str, incarnation: str, *conditions: Any, **values: Any) -> bool:
        statement = update(workers).where(workers.c.name == name, workers.c.incarnation == incarnation, *conditions)
        async with self._database.single() as connection:
            return bool((await connection.execute(statement.values(**values))).rowcount)


def _record(row: Any) -> WorkerRecord:
    return WorkerRecord(
        name=row.name,
        incarnation=row.incarnation,
        queues=tuple(row.queues),
        host=row.host,
        place=row.place,
        pid=row.pid,
        version=row.version,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        heartbeat_age=(row.clock - row.heartbeat_at).total_seconds(),
        left_at=row.left_at,
        cleared=row.cleared,
    )
