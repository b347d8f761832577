"""The cooling time: of many deletions, all but the first begin later, so that somebody can cancel them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.observed_time import ObservedTime
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.records import BackupRecord
from snapkeep.catalog.tables import backups, deletions, notes, operations
from snapkeep.model.errors import Locked
from snapkeep.model.notifications import Event, Notice
from snapkeep.model.protections import Cooling

WINDOW = timedelta(hours=1)
KEPT = timedelta(days=2)

_KEY = "cooling"


class CoolingTime:
    """Counts deletions, of everybody together, by the time that was seen to pass."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._time = ObservedTime(database)

    async def get(self) -> Cooling:
        """Return how many begin at once, and when further ones do."""
        async with self._database.connect() as connection:
            found = await connection.scalar(select(notes.c.value).where(notes.c.key == _KEY))
        return Cooling() if found is None else Cooling(**json.loads(found))

    async def set(self, wanted: Cooling, *, by: str) -> None:
        """Change that. What cools already is left as it is."""
        value = json.dumps({"limit": wanted.limit, "hours": wanted.hours}).encode()
        statement = self._database.insert(notes).values(key=_KEY, value=value)
        async with self._database.begin() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
            await self._outbox.put(connection, _changed(wanted, by))
        self._outbox.wake()

    async def admit(self, snapshot_id: str, deletion_id: str, *, by: str) -> datetime | None:
        """Count the deletion of a snapshot; return when it may begin, None: at once. Safe to repeat."""
        cooling, wall = await self.get(), await self._database.now()
        now, since = await self._count(snapshot_id, deletion_id, by, cooling.limit)
        return None if since is None else max(now, wall) + timedelta(hours=cooling.hours)

    async def require_room(self, backup: BackupRecord, deletion_id: str, *, by: str) -> None:
        """Count the deletion of a recovery point. Raises Locked with the time when there is room for it again."""
        _, since = await self._count(backup.id, deletion_id, by, (await self.get()).limit, waits=False)
        if since is not None:
            until = (since + WINDOW).isoformat(timespec="seconds")
            raise Locked(
                "Too many recovery points and snapshots were deleted within an hour",
                next_step=f"Wait until {until}, and see whether all of that was meant: `snapkeep operation list`.",
                until=until,
            )

    async def _count(
        self, subject_id: str, deletion_id: str, by: str, limit: int | None, *, waits: bool = True
    ) -> tuple[datetime, datetime | None]:
        """Count a deletion that has room, or `waits`; return the time, and since when there is no room."""
        values = {"id": deletion_id, "subject_id": subject_id, "requester": by, "begun": False, "counted": True}
        statement = self._database.insert(deletions)
        async with self._database.begin() as connection:
            now = await self._time.held(connection)  # one after the other
            lately = select(deletions.c.at).where(
                deletions.c.counted, deletions.c.at > now - WINDOW, deletions.c.id != deletion_id
            )
            since: datetime | None = None
            if limit is not None:
                since = await connection.scalar(lately.order_by(deletions.c.at.desc()).offset(limit - 1).limit(1))
            if since is None or waits:
                await connection.execute(
                    statement.values(**values, at=now).on_conflict_do_nothing(index_elements=["id"])
                )
            if since is not None:
                await self._outbox.put(connection, _too_many(limit, by), quiet=WINDOW)
        if since is not None:
            self._outbox.wake()
        return now, since

    async def purge(self) -> None:
        """Forget deletions of long ago that are not under way."""
        before = await self._time.now() - KEPT
        open_ones = select(operations.c.id).where(operations.c.ended_at.is_(None))
        over = (
            deletions.c.at < before,
            deletions.c.id.not_in(open_ones),
            deletions.c.subject_id.not_in(select(backups.c.id)),
        )
        async with self._database.single() as connection:
            await connection.execute(delete(deletions).where(*over))


def _changed(wanted: Cooling, by: str) -> Notice:
    return Notice(
        event=Event.PROTECTION_CHANGED,
        message=f"The cooling time was {'turned off' if wanted.limit is None else 'changed'} by {by}",
        next_step="See whether that was meant: `snapkeep cooling show`.",
        subject="cooling",
        actor=by,
        details={"enabled": wanted.limit is not None, "limit": wanted.limit, "hours": wanted.hours},
    )


def _too_many(limit: int | None, by: str) -> Notice:
    return Notice(
        event=Event.DELETION_COOLING,
        message=f"More than {limit} snapshots and recovery points are deleted within an hour; further ones wait",
        next_step="See whether all of that is meant: `snapkeep operation list --state queued`, and cancel what is not.",
        actor=by,
        details={"limit": limit},
    )
