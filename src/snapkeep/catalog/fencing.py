"""Where queries run. A step of an operation writes behind a fence: once another worker has begun, it writes no more.

A worker that was held to be dead may only have been asleep (a virtual machine that was paused, a network that was cut).
When it wakes, the next step of its operation runs elsewhere already, under a higher `attempt`. Every write of the old
one is refused in its own transaction: a fencing token, as in Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, and_, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.tables import operations

OPEN = ("queued", "running")
"""States of operations on which the engine works."""


class Superseded(Exception):
    """The operation has ended, was paused, or is run by somebody else: what this step still wants to write is void."""


@dataclass(frozen=True, slots=True)
class Fence:
    """One step of one operation."""

    operation_id: str
    attempt: int

    @property
    def parameters(self) -> dict[str, Any]:
        """What `HOLDS` is to be asked with."""
        return {"fence_operation": self.operation_id, "fence_attempt": self.attempt}


HOLDS = and_(
    operations.c.id == bindparam("fence_operation"),
    operations.c.attempt == bindparam("fence_attempt"),
    operations.c.state.in_(OPEN),
)
"""The condition under which a step may write. Made once, as all statements here that run for every operation."""

_HOLD = update(operations).where(HOLDS).values(attempt=operations.c.attempt)


class Database:
    """Connections and transactions; with a fence, transactions begin only while it holds.

    Reads, and writes of one statement, go without BEGIN and COMMIT, over connections of their own.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        single: AsyncEngine,
        fence: Fence | None = None,
        writer: asyncio.Lock | None = None,
    ) -> None:
        self.engine = engine
        self.fence = fence
        self._single = single
        # SQLite has one writer at a time. Whoever waits for it sleeps and asks again, and a single statement would do
        # so in the loop, where the other could not end: they wait in line here.
        self._writer = None if self.is_postgresql else writer or asyncio.Lock()

    @property
    def is_postgresql(self) -> bool:
        """True on PostgreSQL, false on SQLite."""
        return self.engine.dialect.name == "postgresql"

    def behind(self, fence: Fence) -> Database:
        """Return the same database behind a fence."""
        return Database(self.engine, self._single, fence, self._writer)

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """Return an INSERT that can say what to do on a conflict."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    def connect(self) -> AsyncConnection:
        """Open a connection for reading; each statement sees what is committed then."""
        return self._single.connect()

    async def now(self) -> datetime:
        """Return the time by the clock of the database, which all processes share."""
        async with self.connect() as connection:
            found: datetime = (await connection.execute(select(database_clock()))).scalar_one()
        return found

    @asynccontextmanager
    async def single(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a connection for one statement that writes, and that brings the fence's condition itself.

        On SQLite it outlives any crash of the process, and of the machine only when `durable`, or when the next
        transaction has ended: what an operation writes while it runs, its next run writes again.
        """
        if durable and not self.is_postgresql:
            async with self._writer or nullcontext(), self.engine.begin() as connection:
                yield connection
        else:
            async with self._writer or nullcontext(), self._single.connect() as connection:
                yield connection

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait in the line of those who write; for who has a connection of his own."""
        async with self._writer or nullcontext():
            yield

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction for writing. Raises Superseded."""
        async with self._writer or nullcontext(), self.engine.begin() as connection:
            if self.fence is not None:  # an UPDATE, so that the row stays locked until the end of the transaction
                held = await connection.execute(_HOLD, self.fence.parameters)
                if not held.rowcount:
                    raise Superseded(self.fence.operation_id)
            yield connection
