"""Queries on holds and locks, and the one gate that everything passes which makes a recovery point unrecoverable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Executable, Select, and_, delete, false, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.observed_time import ObservedTime
from snapkeep.catalog.paging import Listed, Orders, Paging, Sort
from snapkeep.catalog.records import BackupRecord, ProtectionRecord, SnapshotRecord
from snapkeep.catalog.tables import (
    assets,
    backups,
    deletions,
    operations,
    protections,
    repositories,
    snapshots,
    systems,
)
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import Busy, Conflict, InvalidInput, Locked, NotFound
from snapkeep.model.protections import LockMode, ProtectionKind

LONGEST = timedelta(days=3660)
"""From now to the end of a lock; it can be moved on later."""

Subject = SnapshotRecord | BackupRecord

PROTECTION_ORDERS = Orders[ProtectionRecord](
    "-placed_at",
    placed_at=Sort((protections.c.placed_at, protections.c.id), lambda item: (item.placed_at, item.id)),
)


class Protections:
    """What keeps snapshots and recovery points.

    Who would delete one holds its row, looks, and notes that he has begun. Who would protect one holds its row, looks
    whether somebody has begun, and notes that. So of two at the same moment, the second is refused.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.time = ObservedTime(database)

    # -- placing and releasing ---------------------------------------------------------------------------------------
    async def place(
        self,
        protection_id: str,
        subject: Subject,
        *,
        kind: ProtectionKind,
        mode: LockMode | None = None,
        until: datetime | None = None,
        reason: str,
        by: str,
    ) -> ProtectionRecord:
        """Protect a subject. Raises Busy while it is being deleted, NotFound when it is gone, InvalidInput."""
        column, wall = _column(subject), await self._database.now()
        values = {
            "id": protection_id,
            column.name: subject.id,
            "kind": kind.value,
            "mode": mode.value if mode else None,
            "until": until,
            "reason": reason,
            "placed_by": by,
            "placed_at": wall,
        }
        async with self._database.begin() as connection:
            now = await self.time.held(connection)  # before the row, as everybody: else two could wait for each other
            if not await _hold(connection, subject):
                raise NotFound(f"{subject.reference} no longer exists")
            _require_future(until, max(wall, now))
            if deletion := await connection.scalar(_begun(subject)):
                raise Busy(
                    f"{subject.reference} is being deleted already",
                    next_step="Wait for the end of that; if it fails, try again.",
                    dependents=[deletion],
                )
            await connection.execute(insert(protections).values(values))
        return await self.get(protection_id)

    async def extend(self, lock: ProtectionRecord, until: datetime) -> ProtectionRecord:
        """Move the end of a lock on. Raises InvalidInput when that would be sooner, Conflict when it has ended."""
        wall = await self._database.now()
        async with self._database.begin() as connection:
            now = await self.time.held(connection)
            _require_future(until, max(wall, now))
            later = update(protections).where(_is(lock), _in_force(now), protections.c.until <= until)
            changed = (await connection.execute(later.values(until=until))).rowcount
        return await self._moved(lock, changed, "later", "A governance lock is shortened with `snapkeep lock shorten`.")

    async def shorten(self, lock: ProtectionRecord, until: datetime) -> ProtectionRecord:
        """Let a governance lock end sooner. Raises Locked for a compliance lock, InvalidInput, Conflict."""
        if lock.mode is not LockMode.GOVERNANCE:
            raise Locked(
                f"The compliance lock of {lock.reference} is shortened by nobody",
                next_step=f"Wait until it ends: {_when(lock.until)}.",
                until=_when(lock.until),
            )
        wall = await self._database.now()
        async with self._database.begin() as connection:
            now = await self.time.held(connection)
            until = min(until, now) if until <= wall else until  # at once, however far the observed time is behind
            sooner = update(protections).where(_is(lock), _in_force(now), protections.c.until >= until)
            changed = (await connection.execute(sooner.values(until=until))).rowcount
        return await self._moved(lock, changed, "sooner", "A lock is made longer with `snapkeep lock extend`.")

    async def _moved(self, lock: ProtectionRecord, changed: int, how: str, other: str) -> ProtectionRecord:
        now = await self.get(lock.id)
        if changed:
            return now
        if not now.in_force:
            raise Conflict(f"The lock of {lock.reference} has ended", next_step="Place another one.")
        raise InvalidInput(f"That is not {how} than the end of the lock: {_when(now.until)}", next_step=other)

    async def release(self, hold: ProtectionRecord) -> None:
        """Take a hold away. Raises Conflict when it is no more."""
        is_hold = protections.c.kind == ProtectionKind.HOLD.value
        async with self._database.begin() as connection:
            if not (await connection.execute(delete(protections).where(_is(hold), is_hold))).rowcount:
                raise Conflict(f"The hold of {hold.reference} is released already")

    # -- reading -----------------------------------------------------------------------------------------------------
    async def get(
        self, protection_id: str, visible: Visible = ALL_VISIBLE, kind: ProtectionKind | None = None
    ) -> ProtectionRecord:
        """Return one by its id, or by the beginning of it. Raises NotFound, InvalidInput (not unique)."""
        begins = protections.c.id.startswith(protection_id, autoescape=True)
        wanted = [begins, _is_visible(visible), *([protections.c.kind == kind.value] if kind else ())]
        now = await self.time.now()
        async with self._database.connect() as connection:
            rows = (await connection.execute(_query().where(*wanted).limit(2))).all()
        if len(rows) > 1:
            raise InvalidInput(f"{protection_id!r} is the beginning of several", next_step="Give more of it.")
        if not rows or not protection_id:
            raise NotFound(
                f"There is no {kind or 'hold or lock'} {protection_id!r}",
                next_step="See `snapkeep hold list` and `snapkeep lock list`.",
            )
        return _record(rows[0], now)

    async def find(
        self,
        paging: Paging,
        *,
        snapshot_id: str | None = None,
        backup_id: str | None = None,
        kind: ProtectionKind | None = None,
        ended: bool = False,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[ProtectionRecord]:
        """Return holds and locks, `ended` also those that keep nothing any more. Raises InvalidInput."""
        now = await self.time.now()
        query = _query().where(_is_visible(visible))
        query = query.where(protections.c.snapshot_id == snapshot_id) if snapshot_id else query
        query = query.where(protections.c.backup_id == backup_id) if backup_id else query
        query = query.where(protections.c.kind == kind.value) if kind else query
        query = query if ended else query.where(_in_force(now))
        async with self._database.connect() as connection:
            return await PROTECTION_ORDERS.read(connection, query, lambda row: _record(row, now), paging)

    # -- the gate ----------------------------------------------------------------------------------------------------
    async def require_free(self, subject: Subject) -> None:
        """Raise Locked while something keeps a subject. What deletes it asks again, by `begin_deletion`."""
        now = await self.time.now()
        async with self._database.connect() as connection:
            await _require_none(connection, _column(subject) == subject.id, now)

    async def require_none_of(self, *, system_id: str | None = None, repository_id: str | None = None) -> None:
        """Raise Locked while something keeps a snapshot of a system, or a recovery point in a repository."""
        of_system = _of_system(system_id) if system_id else false()
        of_repository = _of_repository(repository_id) if repository_id else false()
        now = await self.time.now()
        async with self._database.connect() as connection:
            await _require_none(connection, of_system | of_repository, now)

    async def begin_deletion(self, subject: Subject, deletion_id: str, *, by: str) -> None:
        """Note that a subject is being deleted: from now on nobody protects it. Raises Locked. Safe to repeat.

        `deletion_id`: of the operation that does it; of a recovery point, any, until `end_deletion`.
        """
        begun = self._database.insert(deletions)
        async with self._database.begin() as connection:
            now = await self.time.held(connection)
            await _hold(connection, subject)
            await _require_none(connection, _column(subject) == subject.id, now)
            values = {"id": deletion_id, "subject_id": subject.id, "requester": by, "at": now}
            first = begun.values(**values, begun=True, counted=False)
            await connection.execute(first.on_conflict_do_update(index_elements=["id"], set_={"begun": True}))

    async def is_being_deleted(self, subject: Subject) -> bool:
        """Say whether a deletion of a subject has begun."""
        async with self._database.connect() as connection:
            return (await connection.execute(_begun(subject))).first() is not None

    async def end_deletion(self, deletion_id: str) -> None:
        """Note that a recovery point was not deleted after all."""
        async with self._database.begin() as connection:
            await connection.execute(update(deletions).where(deletions.c.id == deletion_id).values(begun=False))

    async def end_lost_deletions(self) -> None:
        """Note the same for all recovery points that are still there: for a server that begins, and alone deletes
        them."""
        lost = deletions.c.begun & deletions.c.subject_id.in_(select(backups.c.id))
        async with self._database.begin() as connection:
            await connection.execute(update(deletions).where(lost).values(begun=False))

    async def count(self, system_id: str) -> int:
        """Count the holds and locks of the snapshots of a system, also of those that are gone."""
        query = select(func.count()).where(_of_system(system_id), _in_force(await self.time.now()))
        async with self._database.connect() as connection:
            found: int = (await connection.execute(query)).scalar_one()
        return found


@asynccontextmanager
async def forgetting(
    database: Database, *, system_id: str = "", repository_id: str = "", backup_id: str = ""
) -> AsyncIterator[AsyncConnection]:
    """Open a transaction in which something is forgotten, with the holds and locks of it that have ended.

    Raises Locked when one is in force, Busy when one was placed at the same moment.
    """
    theirs = _of_system(system_id) | _of_repository(repository_id) | (protections.c.backup_id == backup_id)
    try:
        async with database.begin() as connection:
            await _require_none(connection, theirs, await ObservedTime(database).held(connection))
            await connection.execute(delete(protections).where(theirs))
            yield connection
    except IntegrityError as error:  # what is kept cannot be forgotten: the database sees to it
        raise Busy("A hold or a lock was placed at this moment", next_step="Look at it, and try again.") from error


def _of_system(system_id: str) -> ColumnElement[bool]:
    return protections.c.snapshot_id.in_(select(snapshots.c.id).where(snapshots.c.system_id == system_id))


def _of_repository(repository_id: str) -> ColumnElement[bool]:
    return protections.c.backup_id.in_(select(backups.c.id).where(backups.c.repository_id == repository_id))


async def _require_none(connection: AsyncConnection, subjects: ColumnElement[bool], now: datetime) -> None:
    query = _query().where(subjects, _in_force(now)).order_by(protections.c.placed_at, protections.c.id)
    rows = await connection.execute(query.limit(100))
    if found := [_record(row, now) for row in rows]:
        raise _locked(found)


async def _hold(connection: AsyncConnection, subject: Subject) -> bool:
    """Hold the row of a subject until the transaction ends; say whether it is there. Nothing is changed."""
    if isinstance(subject, SnapshotRecord):
        there = and_(snapshots.c.id == subject.id, snapshots.c.gone_at.is_(None))
        statement: Executable = update(snapshots).where(there).values(gone_at=snapshots.c.gone_at)
    else:
        statement = update(backups).where(backups.c.id == subject.id).values(mode=backups.c.mode)
    return bool((await connection.execute(statement)).rowcount)


def _begun(subject: Subject) -> Select[Any]:
    """Select the deletion of a subject that has begun, and has not come to its end."""
    query = select(deletions.c.id).where(deletions.c.subject_id == subject.id, deletions.c.begun)
    if isinstance(subject, SnapshotRecord):
        return query.join(operations, operations.c.id == deletions.c.id).where(operations.c.ended_at.is_(None))
    return query


def _column(subject: Subject) -> ColumnElement[str]:
    return protections.c.snapshot_id if isinstance(subject, SnapshotRecord) else protections.c.backup_id


def _is(protection: ProtectionRecord) -> ColumnElement[bool]:
    return protections.c.id == protection.id


def _in_force(now: datetime) -> ColumnElement[bool]:
    return or_(protections.c.until.is_(None), protections.c.until > now)


def _require_future(until: datetime | None, now: datetime) -> None:
    if until is not None and not now < until <= now + LONGEST:
        raise InvalidInput(
            f"{_when(until)} is no end of a hold or lock: it lies in the future, at most ten years from now",
            next_step="Give another date; it can be moved on later.",
        )


def _when(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _locked(found: Sequence[ProtectionRecord]) -> Locked:
    """Return the error that says what keeps something, and who could let go of it."""
    ends = [one.until for one in found]
    until = None if None in ends else _when(max(filter(None, ends)))
    if any(one.mode is LockMode.COMPLIANCE for one in found):
        step = "Wait until the lock ends: nobody can shorten a compliance lock."
    elif any(one.kind is ProtectionKind.LOCK for one in found):
        step = "Wait until the lock ends, or let a security officer shorten it: `snapkeep lock shorten`."
    else:
        step = "Let a security officer release the hold: `snapkeep hold release`."
    return Locked(
        f"{found[0].reference} is kept: " + "; ".join(_words(one) for one in found[:5]),
        next_step=step,
        until=until,
        protections=[one.id for one in found],
    )


def _words(one: ProtectionRecord) -> str:
    what = f"{one.mode} lock" if one.mode else "hold"
    return f"{what} {one.id[:8]} by {one.placed_by}{f' until {_when(one.until)}' if one.until else ''}, {one.reason}"


def _is_visible(visible: Visible) -> ColumnElement[bool]:
    return is_visible(visible, system=_SYSTEM, system_id=_SYSTEM_ID, asset_id=_ASSET_ID, repository=repositories.c.name)


_SYSTEM: ColumnElement[str] = func.coalesce(systems.c.name, backups.c.system_name)
_named = systems.alias("named")
_SYSTEM_ID: ColumnElement[str] = func.coalesce(
    systems.c.id, select(_named.c.id).where(_named.c.name == backups.c.system_name).scalar_subquery()
)
_ASSET_ID: ColumnElement[str] = func.coalesce(snapshots.c.asset_id, backups.c.asset_id)


def _query() -> Select[Any]:
    """Select holds and locks with what they are on: a snapshot, or a recovery point, which outlives its system."""
    return select(
        protections,
        _SYSTEM.label("system_name"),
        _SYSTEM_ID.label("system_id"),
        _ASSET_ID.label("asset_id"),
        func.coalesce(assets.c.name, backups.c.asset_name).label("asset_name"),
        func.coalesce(snapshots.c.name, backups.c.snapshot_name).label("snapshot_name"),
        repositories.c.name.label("repository_name"),
    ).select_from(
        protections.outerjoin(snapshots, protections.c.snapshot_id == snapshots.c.id)
        .outerjoin(assets, snapshots.c.asset_id == assets.c.id)
        .outerjoin(systems, assets.c.system_id == systems.c.id)
        .outerjoin(backups, protections.c.backup_id == backups.c.id)
        .outerjoin(repositories, backups.c.repository_id == repositories.c.id)
    )


def _record(row: Any, now: datetime) -> ProtectionRecord:
    return ProtectionRecord(
        id=row.id,
        snapshot_id=row.snapshot_id,
        backup_id=row.backup_id,
        system_name=row.system_name,
        system_id=row.system_id,
        asset_id=row.asset_id,
        repository_name=row.repository_name,
        reference=f"{row.system_name}/{row.asset_name}@{row.snapshot_name}",
        kind=ProtectionKind(row.kind),
        mode=LockMode(row.mode) if row.mode else None,
        until=row.until,
        reason=row.reason,
        placed_by=row.placed_by,
        placed_at=row.placed_at,
        in_force=row.until is None or row.until > now,
    )
