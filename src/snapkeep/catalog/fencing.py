"""Where queries run. A step of an operation writes behind a fence: once another worker has begun, it writes no more.

A worker that was held to be dead may only have been asleep (a virtual machine that was paused, a network that was cut).
When it wakes, the next step of its operation runs elsewhere already, under a higher `attempt`. Every write of the old
one is refused in its own transaction: a fencing token, as in Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, and_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

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

    def holds(self) -> ColumnElement[bool]:
        """Return the condition under which this step may write."""
        return and_(
            operations.c.id == self.operation_id,
            operations.c.attempt == self.attempt,
            operations.c.state.in_(OPEN),
        )


class Database:
    """Connections and transactions; with a fence, transactions begin only while it holds."""

    def __init__(self, engine: AsyncEngine, fence: Fence | None = None) -> None:
        self.engine = engine
        self.fence = fence

    @property
    def is_postgresql(self) -> bool:
        """True on PostgreSQL, false on SQLite."""
        return self.engine.dialect.name == "postgresql"

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """Return an INSERT that can say what to do on a conflict."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a connection for reading."""
        return self.engine.connect()

    def plain(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction whose statements bring the fence's condition themselves."""
        return self.engine.begin()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction for writing. Raises Superseded."""
        async with self.engine.begin() as connection:
            if self.fence is not None:  # an UPDATE, so that the row stays locked until the end of the transaction
                held = await connection.execute(
                    update(operations).where(self.fence.holds()).values(attempt=self.fence.attempt)
                )
                if not held.rowcount:
                    raise Superseded(self.fence.operation_id)
            yield connection
