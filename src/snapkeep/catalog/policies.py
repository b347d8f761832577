"""Queries on policies: as they were written, and as they were read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.observed_time import ObservedTime
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort
from snapkeep.catalog.tables import policies, policy_positions
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.model.notifications import Event, Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy. `document`: what it says, as JSON; `revision`: raised with every change."""

    id: str
    name: str
    text: str
    document: dict[str, Any]
    enabled: bool
    revision: int
    created_at: datetime
    changed_at: datetime
    deletes_from: datetime
    """Before that, by the time that was seen to pass, its retention deletes nothing."""
    retained_at: datetime | None


class Policies:
    """The policies. Of each change people are told `by` whom it was."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._time = ObservedTime(database)

    # -- reading -----------------------------------------------------------------------------------------------------
    async def find(self, paging: Paging = ALL) -> Listed[PolicyRecord]:
        """Return the policies, by `POLICY_ORDERS`."""
        async with self._database.connect() as connection:
            return await POLICY_ORDERS.read(connection, select(policies), _record, paging)

    async def known(self, name: str) -> PolicyRecord | None:
        """Return a policy, if it is there."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(policies).where(policies.c.name == name))).first()
        return _record(row) if row is not None else None

    async def get(self, name: str) -> PolicyRecord:
        """Return a policy. Raises NotFound."""
        found = await self.known(name)
        if found is None:
            raise NotFound(f"There is no policy {name!r:.80}", next_step="See `snapkeep policy list`.")
        return found

    async def enabled(self) -> dict[str, int]:
        """Return the revisions of those that are enabled, by id: whoever has read them sees whether that was enough."""
        query = select(policies.c.id, policies.c.revision).where(policies.c.enabled)
        async with self._database.connect() as connection:
            return {row.id: row.revision for row in await connection.execute(query)}

    # -- changing ----------------------------------------------------------------------------------------------------
    async def add(
        self,
        policy_id: str,
        *,
        name: str,
        text: str,
        document: dict[str, Any],
        now: datetime,
        cooling: timedelta,
        by: str = "",
    ) -> PolicyRecord:
        """Store a policy, enabled. Raises Conflict when the name is taken."""
        values = {
            "id": policy_id,
            "name": name,
            "text": text,
            "document": document,
            "enabled": True,
            "revision": 1,
            "created_at": now,
            "changed_at": now,
        }
        try:
            async with self._database.begin() as connection:
                seen = await self._time.held(connection)
                await connection.execute(insert(policies).values(**values, deletes_from=seen + cooling))
                await self._outbox.put(connection, _told(name, "added", by))
        except IntegrityError as error:
            raise Conflict(f"There is a policy {name!r} already", next_step="Read it, and change it.") from error
        self._outbox.wake()
        return await self.get(name)

    async def change(
        self,
        record: PolicyRecord,
        *,
        text: str,
        document: dict[str, Any],
        begun_anew: Collection[str],
        now: datetime,
        cooling: timedelta,
        by: str = "",
    ) -> PolicyRecord:
        """Store another text. `begun_anew`: steps that are due at other times from now on. Raises Conflict when
        somebody has changed it since it was read."""
        mine = policy_positions.c.policy_id == record.id
        async with self._database.begin() as connection:
            seen = await self._time.held(connection)
            values = {"text": text, "document": document, "changed_at": now, "revision": record.revision + 1}
            same = (policies.c.id == record.id) & (policies.c.revision == record.revision)
            changed = await connection.execute(
                update(policies).where(same).values(**values, deletes_from=seen + cooling)
            )
            if not changed.rowcount:
                raise _changed(record)
            anew = policy_positions.c.step.in_(list(begun_anew))
            await connection.execute(delete(policy_positions).where(mine, anew))
            await connection.execute(update(policy_positions).where(mine).values(look_at=now))
            await self._outbox.put(connection, _told(record.name, "changed", by))
        self._outbox.wake()
        return await self.get(record.name)

    async def enable(
        self, record: PolicyRecord, enabled: bool, *, now: datetime, cooling: timedelta, by: str = ""
    ) -> PolicyRecord:
        """Let it run, or not. What is enabled again begins with what is due then. Raises Conflict as `change`."""
        async with self._database.begin() as connection:
            seen = await self._time.held(connection)
            values = {"enabled": enabled, "changed_at": now, "revision": record.revision + 1}
            values |= {"deletes_from": seen + cooling} if enabled else {}
            same = (policies.c.id == record.id) & (policies.c.revision == record.revision)
            changed = await connection.execute(update(policies).where(same).values(**values))
            if not changed.rowcount:
                raise _changed(record)
            await connection.execute(delete(policy_positions).where(policy_positions.c.policy_id == record.id))
            await self._outbox.put(connection, _told(record.name, "enabled" if enabled else "disabled", by))
        self._outbox.wake()
        return await self.get(record.name)

    async def remove(self, record: PolicyRecord, *, by: str = "") -> None:
        """Remove a policy. What it has made stays, and is deleted by no policy any more. Raises Conflict."""
        same = (policies.c.id == record.id) & (policies.c.revision == record.revision)
        async with self._database.begin() as connection:
            if not (await connection.execute(delete(policies).where(same))).rowcount:
                raise _changed(record)
            await self._outbox.put(connection, _told(record.name, "removed", by))
        self._outbox.wake()

    # -- retention ---------------------------------------------------------------------------------------------------
    async def take_retention(self, policy_id: str, pause: timedelta, now: datetime) -> PolicyRecord | None:
        """Take the turn to go over all that a policy has made; None: another server has, it was changed lately, or it
        is not enabled. `now`: a later call takes its turn `pause` after that."""
        seen = await self._time.now()
        due = or_(policies.c.retained_at.is_(None), policies.c.retained_at <= now - pause, policies.c.retained_at > now)
        mine = (policies.c.id == policy_id) & policies.c.enabled & (policies.c.deletes_from <= seen) & due
        taking = update(policies).where(mine).values(retained_at=now).returning(policies)
        async with self._database.begin() as connection:
            row = (await connection.execute(taking)).first()
        return _record(row) if row is not None else None


POLICY_ORDERS = Orders[PolicyRecord](
    "name",
    name=Sort((policies.c.name, policies.c.id), lambda item: (item.name, item.id)),
    changed_at=Sort((policies.c.changed_at, policies.c.id), lambda item: (item.changed_at, item.id)),
)


def _changed(record: PolicyRecord) -> Conflict:
    return Conflict(f"Somebody has changed the policy {record.name!r} meanwhile", next_step="Read it again.")


def _told(name: str, change: str, by: str) -> Notice:
    seeing = "list" if change == "removed" else f"show {name}"
    return Notice(
        event=Event.POLICY_CHANGED,
        message=f"The policy {name} was {change}{f' by {by}' if by else ''}",
        next_step=f"See whether that was meant: `snapkeep policy {seeing}`.",
        subject=name,
        actor=by,
        details={"change": change},
    )


def _record(row: Any) -> PolicyRecord:
    return PolicyRecord(**row._asdict())
