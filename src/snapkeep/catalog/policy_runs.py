"""Queries on what policies do: how far each step is with each asset, and what was made for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, delete, func, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.tables import backups, operations, policies, policy_positions, policy_runs, snapshots

_TOGETHER = 500
_positions = policy_positions.c


class RunState(StrEnum):
    """What became of a run."""

    CLAIMED = "claimed"
    """It is to be asked for; nobody else does, unless we die before."""
    ASKED = "asked"
    """Its operation is recorded."""
    REFUSED = "refused"
    LEFT_OUT = "left_out"
    """There was nothing to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a step is with an asset."""

    policy_id: str
    step: str
    asset_id: str
    due_at: datetime
    operation_id: str | None


@dataclass(frozen=True, slots=True)
class Move:
    """Where a position goes: from `due_at` of `position` on, to another; with an operation, if it is a run."""

    position: Position
    due_at: datetime
    look_at: datetime | None
    run: RunRecord | None = None
    skipped: str | None = None
    """Why one was left out; None: the same as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run of a step with an asset; its operation has the same id."""

    operation_id: str
    policy_id: str
    policy: str
    step: str
    asset_id: str
    due_at: datetime
    state: str = RunState.CLAIMED.value
    snapshot_name: str | None = None
    reason: str = ""
    claimed_at: datetime


class Place(NamedTuple):
    """A step of an asset."""

    step: str
    asset_id: str
    system_id: str


class PolicyRuns:
    """Positions and runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- positions ---------------------------------------------------------------------------------------------------
    async def places(self, policy_id: str) -> set[Place]:
        """Return where a policy has positions."""
        query = select(_positions.step, _positions.asset_id, _positions.system_id)
        async with self._database.connect() as connection:
            rows = await connection.execute(query.where(_positions.policy_id == policy_id))
            return {Place(*row) for row in rows}

    async def outlook(self, asset_ids: Sequence[str]) -> dict[str, list[tuple[datetime | None, str]]]:
        """Return by asset when each of its steps is looked at next, and why its last run was left out."""
        query = select(_positions.asset_id, _positions.look_at, _positions.skipped).join(policies)
        found: dict[str, list[tuple[datetime | None, str]]] = {}
        async with self._database.connect() as connection:
            rows = await connection.execute(query.where(policies.c.enabled, _positions.asset_id.in_(asset_ids)))
            for row in rows:
                found.setdefault(row.asset_id, []).append((row.look_at, row.skipped))
        return found

    async def begin(self, policy_id: str, new: Iterable[tuple[Place, datetime | None]], due_at: datetime) -> None:
        """Begin at places; each with the moment at which it is looked at. What has begun there already stays."""
        rows = [
            {
                "policy_id": policy_id,
                "step": place.step,
                "asset_id": place.asset_id,
                "system_id": place.system_id,
                "due_at": due_at,
                "look_at": look_at,
                "skipped": "",
            }
            for place, look_at in sorted(new, key=lambda item: item[0])
        ]
        statement = self._database.insert(policy_positions).on_conflict_do_nothing()
        for start in range(0, len(rows), _TOGETHER):
            async with self._database.begin() as connection:
                await connection.execute(statement, rows[start : start + _TOGETHER])

    async def end(self, policy_id: str, over: Collection[Place]) -> None:
        """End at places."""
        mine = and_(
            _positions.policy_id == policy_id,
            _positions.step == bindparam("of_step"),
            _positions.asset_id == bindparam("of_asset"),
        )
        rows = [{"of_step": place.step, "of_asset": place.asset_id} for place in sorted(over)]
        for start in range(0, len(rows), _TOGETHER):
            async with self._database.begin() as connection:
                await connection.execute(delete(policy_positions).where(mine), rows[start : start + _TOGETHER])

    async def begin_anew(self, after: datetime, later: datetime, now: datetime) -> int:
        """Have those begin now that have dealt with a moment after another; return how many these are.

        Those that wait for a moment after `later` are looked at now, and runs that were claimed in the future count as
        claimed now.
        """
        ahead = update(policy_positions).where(_positions.due_at > after).values(due_at=now, look_at=now)
        waiting = update(policy_positions).where(_positions.look_at > later).values(look_at=now)
        open_ones = and_(policy_runs.c.state == RunState.CLAIMED.value, policy_runs.c.claimed_at > now)
        async with self._database.begin() as connection:
            found = (await connection.execute(ahead)).rowcount
            await connection.execute(waiting)
            await connection.execute(update(policy_runs).where(open_ones).values(claimed_at=now))
        return found

    async def due(self, now: datetime, limit: int) -> list[Position]:
        """Return the positions to be looked at, at most so many: of each policy and system in turn."""
        turn = func.row_number().over(
            partition_by=(_positions.policy_id, _positions.system_id),
            order_by=(_positions.look_at, _positions.asset_id),
        )
        columns = (_positions.policy_id, _positions.step, _positions.asset_id, _positions.due_at)
        waiting = (
            select(*columns, _positions.operation_id, turn.label("turn"))
            .join(policies)
            .where(_positions.look_at <= now, policies.c.enabled)
            .subquery()
        )
        query = select(waiting).order_by(waiting.c.turn, waiting.c.policy_id, waiting.c.asset_id).limit(limit)
        async with self._database.connect() as connection:
            return [Position(*row[:-1]) for row in await connection.execute(query)]

    async def move(self, moves: Sequence[Move]) -> list[RunRecord]:
        """Move positions on, and note the runs that begin by that, in one transaction; return those.

        Who finds a position elsewhere than he saw it has no run: of several servers, one does.
        """
        begun: list[RunRecord] = []
        noting = self._database.insert(policy_runs)
        async with self._database.begin() as connection:
            for move in sorted(moves, key=lambda item: _key(item.position)):  # two servers wait in line
                values: dict[str, Any] = {"due_at": move.due_at, "look_at": move.look_at}
                values |= {"skipped": move.skipped} if move.skipped is not None else {}
                values |= {"operation_id": move.run.operation_id, "skipped": ""} if move.run is not None else {}
                seen = update(policy_positions).where(_is(move.position)).values(**values)
                moved = (await connection.execute(seen)).rowcount
                if moved and move.run is not None:
                    row = {name: getattr(move.run, name) for name in RunRecord.__slots__}
                    noted = noting.values(row).on_conflict_do_nothing().returning(policy_runs.c.operation_id)
                    if (await connection.execute(noted)).first() is not None:
                        begun.append(move.run)
        return begun

    # -- runs --------------------------------------------------------------------------------------------------------
    async def claimed(self, before: datetime | None, limit: int) -> list[RunRecord]:
        """Return runs that were claimed before, None: at any time, and not asked for yet; the first ones first."""
        open_ones = policy_runs.c.state == RunState.CLAIMED.value
        query = select(policy_runs).where(open_ones)
        query = query.where(policy_runs.c.claimed_at <= before) if before is not None else query
        query = query.order_by(policy_runs.c.claimed_at, policy_runs.c.operation_id).limit(limit)
        async with self._database.connect() as connection:
            return [_run(row) for row in await connection.execute(query)]

    async def asked(self, run: RunRecord, snapshot_name: str | None) -> None:
        """Note that a run was asked for, and under which name its snapshot is made.

        On SQLite a crash of the machine may lose that: then the run is asked for again, under the same id.
        """
        await self._end(run, RunState.ASKED, durable=False, snapshot_name=snapshot_name)

    async def refused(self, run: RunRecord, reason: str) -> None:
        """Note that a run cannot be."""
        await self._end(run, RunState.REFUSED, reason=reason)

    async def left_out(self, run: RunRecord, reason: str) -> None:
        """Note that there was nothing to do."""
        mine = and_(
            _positions.policy_id == run.policy_id,
            _positions.step == run.step,
            _positions.asset_id == run.asset_id,
            _positions.operation_id == run.operation_id,
        )
        async with self._database.begin() as connection:
            ended = update(policy_runs).where(policy_runs.c.operation_id == run.operation_id)
            await connection.execute(ended.values(state=RunState.LEFT_OUT.value, reason=reason))
            await connection.execute(update(policy_positions).where(mine).values(skipped=reason))

    async def _end(self, run: RunRecord, state: RunState, *, durable: bool = True, **values: Any) -> None:
        mine = update(policy_runs).where(policy_runs.c.operation_id == run.operation_id)
        async with self._database.single(durable=durable) as connection:
            await connection.execute(mine.values(state=state.value, **values))

    async def purge(self, before: datetime) -> None:
        """Forget runs of long ago of which nothing is there any more."""
        snapshot = select(snapshots.c.id).where(
            snapshots.c.asset_id == policy_runs.c.asset_id,
            snapshots.c.name == policy_runs.c.snapshot_name,
            snapshots.c.gone_at.is_(None),
        )
        backup = select(backups.c.id).where(backups.c.operation_id == policy_runs.c.operation_id)
        unended = select(operations.c.id).where(
            operations.c.id == policy_runs.c.operation_id, operations.c.ended_at.is_(None)
        )
        over = and_(
            policy_runs.c.claimed_at < before,
            policy_runs.c.state != RunState.CLAIMED.value,
            ~snapshot.exists(),
            ~backup.exists(),
            ~unended.exists(),
        )
        async with self._database.single() as connection:
            await connection.execute(delete(policy_runs).where(over))


def _key(position: Position) -> tuple[str, str, str]:
    return position.policy_id, position.step, position.asset_id


def _is(position: Position) -> Any:
    return and_(
        _positions.policy_id == position.policy_id,
        _positions.step == position.step,
        _positions.asset_id == position.asset_id,
        _positions.due_at == position.due_at,
    )


def _run(row: Any) -> RunRecord:
    return RunRecord(**row._asdict())
