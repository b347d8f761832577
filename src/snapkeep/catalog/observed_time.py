"""The time that Snapkeep has seen pass: locks end by it, so nobody ends one by setting a clock.

One process at a time keeps it. It goes after the clock of the database, never backwards, and never more than
`SPEED` times as fast as the keeper itself has counted by a clock that cannot be set. A clock set forward for a day
takes at most a day from a lock, in a day; one set back stops the time until it has caught up; after a time in which
nothing ran it follows at that speed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.tables import notes

SPEED = 2.0
"""How much faster than real time it may follow a clock that is ahead."""
PATIENCE = timedelta(seconds=30)
"""After so long without a sign of the keeper, another process keeps the time."""

_KEY = "observed-time"


@dataclass(frozen=True, slots=True)
class _Kept:
    time: datetime
    seen: datetime
    """What the clock of the database said when the keeper last looked."""
    keeper: str

    def to_bytes(self) -> bytes:
        value = {"time": self.time.isoformat(), "seen": self.seen.isoformat(), "keeper": self.keeper}
        return json.dumps(value).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> _Kept:
        value = json.loads(data)
        return cls(datetime.fromisoformat(value["time"]), datetime.fromisoformat(value["seen"]), value["keeper"])


class ObservedTime:
    """Reads and keeps it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Return the time as it was last kept; where nobody has, it begins now."""
        async with self._database.connect() as connection:
            found = await connection.scalar(select(notes.c.value).where(notes.c.key == _KEY))
        if found is not None:
            return _Kept.from_bytes(found).time
        async with self._database.begin() as connection:
            return await self.held(connection)

    async def held(self, connection: AsyncConnection) -> datetime:
        """Return it inside a transaction, which holds it: no other goes on that asks for it so."""
        return (await self._hold(connection)).time

    async def observe(self, keeper: str, measured: float, wall: datetime | None = None) -> datetime:
        """Let it go on. `measured`: seconds since this keeper last did so, by its own clock; `wall`: for tests."""
        now = wall or await self._database.now()
        async with self._database.begin() as connection:
            kept = await self._hold(connection, now)
            if kept.keeper == keeper:
                step = min(max(now - kept.time, timedelta()), timedelta(seconds=measured * SPEED))
                kept = replace(kept, time=kept.time + step, seen=now)
            elif not kept.keeper or not timedelta() <= now - kept.seen <= PATIENCE:
                kept = replace(kept, seen=now, keeper=keeper)  # what has passed meanwhile was seen by nobody
            else:
                return kept.time
            await connection.execute(update(notes).where(notes.c.key == _KEY).values(value=kept.to_bytes()))
        return kept.time

    async def _hold(self, connection: AsyncConnection, wall: datetime | None = None) -> _Kept:
        holding = update(notes).where(notes.c.key == _KEY).values(value=notes.c.value).returning(notes.c.value)
        found = await connection.scalar(holding)
        if found is None:
            begin = wall or (await connection.execute(select(database_clock()))).scalar_one()
            first = self._database.insert(notes).values(key=_KEY, value=_Kept(begin, begin, "").to_bytes())
            await connection.execute(first.on_conflict_do_nothing(index_elements=["key"]))
            found = await connection.scalar(holding)
        return _Kept.from_bytes(found or b"")
