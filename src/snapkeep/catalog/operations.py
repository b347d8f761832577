"""Queries on operations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Update, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.audit import Audit
from snapkeep.catalog.fencing import HOLDS, OPEN, Database, Superseded
from snapkeep.catalog.operation_ends import entry_of_end, notice_of_end
from snapkeep.catalog.operation_lists import OPERATION_ORDERS, REPOSITORY, is_visible_operation, record_of
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import FIRST, Listed, Paging
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.catalog.tables import UtcDateTime, assets, operations, systems
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import InvalidInput, NotFound

MOST_AT_ONCE = 500
"""Ids that one query names: databases take some 65,000 parameters at most."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What others asked of an operation while it runs."""

    cancel: bool
    pause: bool


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """What is needed to see that the engine works on an operation."""

    id: str
    kind: str
    generation: int
    queue: str
    system_id: str
    exclusive: str | None
    turn: str | None


class Face(NamedTuple):
    """What people see change of an operation: two that are the same show the same."""

    id: str
    state: str
    phase: str
    progress: float | None
    items: int | None
    cancel_requested: bool
    pause_requested: bool
    worker: str | None
    attempt: int
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self.ended_at is not None

    @classmethod
    def of(cls, record: OperationRecord) -> Face:
        """Return that of a record."""
        return cls(*(getattr(record, name) for name in cls._fields))


class Operations:
    """Durable pieces of work, their progress and their end."""

    def __init__(self, database: Database, audit: Audit, outbox: Outbox) -> None:
        self._database = database
        self._audit = audit
        self._outbox = outbox

    # -- the intent --------------------------------------------------------------------------------------------------
    async def add(
        self,
        *,
        operation_id: str,
        kind: str,
        system_id: str,
        system_name: str,
        queue: str,
        target: str,
        request: dict[str, Any],
        requester: str,
        exclusive: str | None,
        now: datetime,
        asset_id: str | None = None,
        digest: bytes | None = None,
        not_before: datetime | None = None,
    ) -> OperationRecord:
        """Record the intent. Adding the same id again changes nothing."""
        values = {
            "id": operation_id,
            "kind": kind,
            "system_id": system_id,
            "system_name": system_name,
            "asset_id": asset_id,
            "queue": queue,
            "target": target,
            "request": request,
            "digest": digest,
            "requester": requester,
            "exclusive": exclusive,
            "state": OperationState.QUEUED.value,
            "phase": "queued",
            "cancel_requested": False,
            "not_before": not_before,
            "created_at": now,
        }
        insert = self._database.insert(operations).values(values).on_conflict_do_nothing(index_elements=["id"])
        async with self._database.single(durable=True) as connection:
            row = (await connection.execute(insert.returning(operations))).first()
        return record_of(row) if row is not None else await self.get(operation_id)

    # -- reading -----------------------------------------------------------------------------------------------------
    async def get(self, operation_id: str, visible: Visible = ALL_VISIBLE) -> OperationRecord:
        """Return one operation by its id, or by the beginning of it. Raises NotFound, InvalidInput (not unique)."""
        query = select(operations).where(operations.c.id == operation_id)
        if len(operation_id) < 36:
            # Not LIKE, for which upper and lower case are one on SQLite and two on PostgreSQL.
            beginning = operations.c.id.between(operation_id, f"{operation_id}\x7f")
            query = select(operations).where(beginning).limit(2)
        if visible is not ALL_VISIBLE:
            query = query.where(is_visible_operation(visible))
        async with self._database.connect() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            raise NotFound(f"There is no operation {operation_id!r}", next_step="See `snapkeep operation list`.")
        if len(rows) > 1:
            raise InvalidInput(f"{operation_id!r} is the beginning of several operations", next_step="Give more of it.")
        return record_of(rows[0])

    async def known(self, operation_id: str) -> OperationRecord | None:
        """Return an operation by its whole id, None when there is none."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(operations).where(operations.c.id == operation_id))).first()
        return record_of(row) if row is not None else None

    async def find(
        self,
        *,
        system: str | None = None,
        kinds: Sequence[str] = (),
        states: Sequence[OperationState] = (),
        asset_id: str | None = None,
        requester: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        paging: Paging = FIRST,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[OperationRecord]:
        """Return operations, by `OPERATION_ORDERS`; asked for from `since` on, before `until`."""
        query = select(operations).where(is_visible_operation(visible))
        query = query.where(operations.c.system_name == system) if system is not None else query
        query = query.where(operations.c.kind.in_(kinds)) if kinds else query
        query = query.where(operations.c.state.in_([state.value for state in states])) if states else query
        query = query.where(operations.c.asset_id == asset_id) if asset_id is not None else query
        query = query.where(operations.c.requester == requester) if requester is not None else query
        query = query.where(operations.c.created_at >= since) if since else query
        query = query.where(operations.c.created_at < until) if until else query
        async with self._database.connect() as connection:
            return await OPERATION_ORDERS.read(connection, query, record_of, paging)

    async def faces(self, ids: Collection[str], since: datetime | None) -> list[Face]:
        """Return how these operations are; with `since`, also all that have not ended, or did so since then."""
        wanted: ColumnElement[bool] = operations.c.id.in_(ids)
        if since is not None:
            wanted = or_(wanted, operations.c.state.in_(_UNENDED), operations.c.ended_at >= since)
        async with self._database.connect() as connection:
            return [Face(*row) for row in await connection.execute(select(*_FACE).where(wanted))]

    async def of_ids(self, ids: Collection[str]) -> list[OperationRecord]:
        """Return those that are there, by their whole ids, in the order in which operations were asked for."""
        wanted, found = list(ids), []
        async with self._database.connect() as connection:
            for start in range(0, len(wanted), MOST_AT_ONCE):
                query = select(operations).where(operations.c.id.in_(wanted[start : start + MOST_AT_ONCE]))
                found += [record_of(row) for row in await connection.execute(query)]
        return sorted(found, key=lambda record: (record.created_at, record.id))

    async def seen_by(self, records: Iterable[OperationRecord]) -> dict[str, tuple[str, str]]:
        """Return id and name of the system by which each operation is seen: its own, or its asset's. None is left
        out, as of a repository's check."""
        found: dict[str, tuple[str, str]] = {}
        by_asset: dict[str, list[str]] = {}
        for record in records:
            if not record.system_name.startswith(REPOSITORY):
                found[record.id] = record.system_id, record.system_name
            elif record.asset_id is not None:
                by_asset.setdefault(record.asset_id, []).append(record.id)
        wanted = list(by_asset)
        query = select(assets.c.id, systems.c.id.label("system_id"), systems.c.name).join(systems)
        async with self._database.connect() as connection:
            for start in range(0, len(wanted), MOST_AT_ONCE):
                some = assets.c.id.in_(wanted[start : start + MOST_AT_ONCE])
                for row in await connection.execute(query.where(some)):
                    found |= dict.fromkeys(by_asset[row.id], (row.system_id, row.name))
        return found

    async def ended_since(self, since: datetime, limit: int) -> list[OperationRecord]:
        """Return operations that have ended since then, the last ones."""
        query = select(operations).where(operations.c.ended_at >= since)
        async with self._database.connect() as connection:
            rows = await connection.execute(query.order_by(operations.c.ended_at.desc()).limit(limit))
            return [record_of(row) for row in rows]

    async def unended(self, system: str) -> list[OperationRecord]:
        """Return the operations of a system that have not ended, paused ones too."""
        query = select(operations).where(operations.c.system_name == system, operations.c.ended_at.is_(None))
        async with self._database.connect() as connection:
            return [record_of(row) for row in await connection.execute(query)]

    async def asked_since(self, kind: str, system_id: str, since: datetime) -> bool:
        """Say whether such an operation was asked for since then."""
        query = select(operations.c.id).where(
            operations.c.kind == kind, operations.c.system_id == system_id, operations.c.created_at >= since
        )
        async with self._database.connect() as connection:
            return (await connection.execute(query.limit(1))).first() is not None

    async def open(self, due: datetime, *, after: str = "", limit: int = 1000) -> list[OpenOperation]:
        """Return operations on which the engine must work, by id behind `after`; those that cool are not `due`."""
        query = (
            _open_query()
            .where(operations.c.state.in_(OPEN), operations.c.id > after, _is_due(due))
            .order_by(operations.c.id)
            .limit(limit)
        )
        async with self._database.connect() as connection:
            return [OpenOperation(*row) for row in await connection.execute(query)]

    async def systems_of(self, worker: str) -> list[str]:
        """Return the ids of the systems on which a worker has begun operations that have not ended."""
        query = select(operations.c.system_id).where(operations.c.worker == worker, operations.c.state.in_(OPEN))
        async with self._database.connect() as connection:
            return list((await connection.execute(query.distinct())).scalars())

    async def signals(self, operation_id: str) -> Signals:
        """Return what was asked of a running operation. Raises Superseded when it is not this step's any more."""
        condition, parameters = self._mine(operation_id)
        query = select(*_SIGNALS).where(condition)
        async with self._database.connect() as connection:
            row = (await connection.execute(query, parameters)).first()
        if row is None:
            raise Superseded(operation_id)
        return Signals(cancel=row.cancel_requested, pause=row.pause_requested)

    # -- life --------------------------------------------------------------------------------------------------------
    async def claim(
        self, operation_id: str, generation: int, worker: str, now: datetime, *, phase: str
    ) -> OperationRecord | None:
        """Begin a step: from now on only its attempt may write. None when there is nothing to do any more."""
        given = {"claimed": operation_id, "claimed_generation": generation, "claimer": worker}
        given |= {"claimed_at": now, "claimed_phase": phase}
        async with self._database.single() as connection:
            row = (await connection.execute(_CLAIM, given)).first()
        return record_of(row) if row is not None else None

    async def update(self, operation_id: str, **values: Any) -> None:
        """Change an operation that has not ended; an ended one is never rewritten. Raises Superseded behind a fence."""
        condition, parameters = self._mine(operation_id)
        statement = update(operations).where(condition)
        if "ended_at" in values:
            changed = await self._end(statement, parameters | _plain(values))
        else:
            async with self._database.single() as connection:
                changed = bool((await connection.execute(statement, parameters | _plain(values))).rowcount)
        if self._database.fence and not changed:
            raise Superseded(operation_id)

    async def report(self, operation_id: str, phase: str, progress: float | None) -> Signals:
        """Record what a running operation does, and return what was asked of it. Raises Superseded."""
        condition, parameters = self._mine(operation_id)
        statement = update(operations).where(condition).returning(*_SIGNALS)
        async with self._database.single() as connection:
            told = await connection.execute(statement, parameters | {"phase": phase, "progress": progress})
            row = told.first()
        if row is None:
            raise Superseded(operation_id)
        return Signals(cancel=row.cancel_requested, pause=row.pause_requested)

    def _mine(self, operation_id: str) -> tuple[ColumnElement[bool], dict[str, Any]]:
        """Return the condition, with its parameters, under which an operation is open, and of this step."""
        if self._database.fence is not None:
            return HOLDS, self._database.fence.parameters
        return _IS_OPEN, {"open_operation": operation_id}

    async def park(self, operation_id: str) -> bool:
        """Pause a running operation, if that is still asked for, and nothing else; say whether it is paused now.

        Raises Superseded.
        """
        condition, parameters = self._mine(operation_id)
        asked = operations.c.pause_requested & ~operations.c.cancel_requested
        values = {"state": OperationState.PAUSED.value, "phase": "paused", "pause_requested": False}
        async with self._database.single() as connection:
            parked = await connection.execute(update(operations).where(condition, asked).values(**values), parameters)
        if not parked.rowcount:
            await self.signals(operation_id)
        return bool(parked.rowcount)

    async def change(
        self,
        operation_id: str,
        states: Sequence[OperationState],
        only_generation: int | None = None,
        *,
        unbegun: bool = False,
        **values: Any,
    ) -> bool:
        """Change an operation if it is in one of `states`, of this generation, `unbegun`; say whether it was."""
        condition = operations.c.id == operation_id
        if only_generation is not None:
            condition &= operations.c.generation == only_generation
        if unbegun:
            condition &= operations.c.attempt == 0
        statement = update(operations).where(condition, operations.c.state.in_([state.value for state in states]))
        if "ended_at" in values:
            return await self._end(statement, _plain(values))
        async with self._database.single(durable=True) as connection:
            return bool((await connection.execute(statement.values(**_plain(values)))).rowcount)

    async def _end(self, statement: Update, parameters: dict[str, Any]) -> bool:
        """End an operation that is open, record that in the audit log, and tell who wants to know: all, or nothing."""
        notice = None
        async with self._database.begin() as connection:
            row = (await connection.execute(statement.returning(operations), parameters)).first()
            if row is not None:
                record = record_of(row)
                if (notice := await notice_of_end(connection, record)) is not None:
                    await self._outbox.put(connection, notice)
                await self._audit.append_in(connection, [entry_of_end(record)])
        if notice is not None:
            self._outbox.wake()
        return row is not None

    async def take_turn(self, exclusive: str, due: datetime | None = None) -> OpenOperation | None:
        """Give the turn to the operation that has waited longest; return it. None when one has it, or none waits.

        `due`: the time; without it, those that were to begin later are left to `sweep`.
        """
        waiting = (
            _open_query()
            .where(operations.c.exclusive == exclusive, operations.c.state == OperationState.QUEUED.value, _is_due(due))
            .order_by(operations.c.created_at, operations.c.id)
            .limit(1)
        )
        async with self._database.connect() as connection:
            row = (await connection.execute(waiting)).first()
        if row is None:
            return None
        held = select(_holders.c.id).where(_holders.c.turn == exclusive).exists()
        free = (operations.c.id == row.id) & (operations.c.state == OperationState.QUEUED.value) & ~held
        try:
            async with self._database.single() as connection:
                taken = await connection.execute(update(operations).where(free).values(turn=exclusive))
        except IntegrityError:  # another one took it in the same moment: the index is unique
            return None
        return OpenOperation(*row) if taken.rowcount else None

    async def holder(self, exclusive: str) -> OperationRecord | None:
        """Return the operation whose turn it is."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(operations).where(operations.c.turn == exclusive))).first()
        return record_of(row) if row is not None else None

    async def purge(self, before: datetime) -> int:
        """Forget operations that ended before; return how many."""
        async with self._database.single() as connection:
            return (await connection.execute(delete(operations).where(operations.c.ended_at < before))).rowcount


def _is_due(due: datetime | None) -> ColumnElement[bool]:
    at_once = operations.c.not_before.is_(None)
    return at_once if due is None else at_once | (operations.c.not_before <= due)


def _open_query() -> Select[Any]:
    return select(
        operations.c.id,
        operations.c.kind,
        operations.c.generation,
        operations.c.queue,
        operations.c.system_id,
        operations.c.exclusive,
        operations.c.turn,
    )


_holders = operations.alias("holders")

_FACE = tuple(operations.c[name] for name in Face._fields)

_UNENDED = tuple(state.value for state in OperationState if not state.ended)

_SIGNALS = (operations.c.cancel_requested, operations.c.pause_requested)

_IS_OPEN = and_(operations.c.id == bindparam("open_operation"), operations.c.state.in_(OPEN))

_CLAIM = (
    update(operations)
    .where(
        operations.c.id == bindparam("claimed"),
        operations.c.generation == bindparam("claimed_generation"),
        operations.c.state.in_(OPEN),
    )
    .values(
        attempt=operations.c.attempt + 1,
        worker=bindparam("claimer"),
        state=OperationState.RUNNING.value,
        phase=bindparam("claimed_phase"),
        started_at=func.coalesce(operations.c.started_at, bindparam("claimed_at", type_=UtcDateTime)),
    )
    .returning(operations)
)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, OperationState) else value for key, value in values.items()}
