"""Queries on what retention goes over: snapshots and recovery points of some assets, who made them, what keeps them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.observed_time import ObservedTime
from snapkeep.catalog.records import ExportState
from snapkeep.catalog.tables import (
    assets,
    backups,
    chains,
    exports,
    operations,
    policy_runs,
    protections,
    repositories,
    snapshots,
    systems,
)

SNAPSHOT, BACKUP = "snapshot", "backup"


@dataclass(slots=True)
class PointRecord:
    """A snapshot or a recovery point."""

    kind: str
    id: str
    asset_id: str
    reference: str
    taken: datetime | None
    policy: str
    """Which policy has made it; empty: none."""
    step: str
    is_good: bool
    """All of the asset can be restored from it, as far as is known; false of what is being deleted."""
    deleting: bool = False
    due_at: datetime | None = None
    """For which due moment a policy has made it, by our own clock."""
    repository: str | None = None
    kept_by: list[str] = field(default_factory=list)
    """What keeps it, in words."""
    locked_until: datetime | None = None


class PolicyPoints:
    """What there is of some assets."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._time = ObservedTime(database)

    async def of(self, asset_ids: Sequence[str]) -> dict[str, list[PointRecord]]:
        """Return what exists of assets, at most some hundreds of them, in no order."""
        now = await self._time.now()
        found: dict[str, list[PointRecord]] = {asset_id: [] for asset_id in asset_ids}
        by_id: dict[str, PointRecord] = {}
        async with self._database.connect() as connection:
            for point in [*await _snapshots(connection, asset_ids), *await _backups(connection, asset_ids)]:
                found[point.asset_id].append(point)
                by_id[point.id] = point
            await _protect(connection, asset_ids, now, by_id)
            for reasons in (await _exports(connection, asset_ids), await _chains(connection, asset_ids)):
                for point_id, several in reasons.items():
                    if point_id in by_id:
                        by_id[point_id].kept_by += several
            for row in await connection.execute(_unended(asset_ids)):
                for value in row.request.values():
                    if isinstance(value, str) and (used := by_id.get(value)) is not None:
                        if row.kind == "delete":
                            used.deleting, used.is_good = True, False
                        else:
                            used.kept_by.append(f"needed by the {row.kind} {row.id[:8]}")
        return found


async def _snapshots(connection: AsyncConnection, asset_ids: Sequence[str]) -> list[PointRecord]:
    made = and_(
        policy_runs.c.asset_id == snapshots.c.asset_id,
        policy_runs.c.snapshot_name == snapshots.c.name,
        snapshots.c.owned,
    )
    query = (
        select(
            snapshots.c.id,
            snapshots.c.asset_id,
            snapshots.c.name,
            snapshots.c.created_at,
            assets.c.name.label("asset"),
            systems.c.name.label("system"),
            policy_runs.c.policy,
            policy_runs.c.step,
            policy_runs.c.due_at,
        )
        .select_from(
            snapshots.join(assets).join(systems, assets.c.system_id == systems.c.id).outerjoin(policy_runs, made)
        )
        .where(snapshots.c.asset_id.in_(asset_ids), snapshots.c.gone_at.is_(None))
    )
    return [
        PointRecord(
            SNAPSHOT,
            row.id,
            row.asset_id,
            f"{row.system}/{row.asset}@{row.name}",
            row.created_at or row.due_at,
            row.policy or "",
            row.step or "",
            is_good=True,
            due_at=row.due_at,
        )
        for row in await connection.execute(query)
    ]


async def _backups(connection: AsyncConnection, asset_ids: Sequence[str]) -> list[PointRecord]:
    query = (
        select(
            backups,
            repositories.c.name.label("repository"),
            policy_runs.c.policy,
            policy_runs.c.step,
            policy_runs.c.due_at,
        )
        .select_from(
            backups.join(repositories).outerjoin(policy_runs, policy_runs.c.operation_id == backups.c.operation_id)
        )
        .where(backups.c.asset_id.in_(asset_ids))
    )
    return [
        PointRecord(
            BACKUP,
            row.id,
            row.asset_id,
            f"{row.system_name}/{row.asset_name}@{row.snapshot_name} in {row.repository}",
            row.snapshot_at or row.created_at,
            row.policy or "",
            row.step or "",
            is_good=not row.partial and not (row.verification or {}).get("differing"),
            due_at=row.due_at,
            repository=row.repository,
        )
        for row in await connection.execute(query)
    ]


async def _protect(
    connection: AsyncConnection, asset_ids: Sequence[str], now: datetime, by_id: Mapping[str, PointRecord]
) -> None:
    """Note holds and locks that are in force."""
    of_snapshots = select(snapshots.c.id).where(snapshots.c.asset_id.in_(asset_ids))
    of_backups = select(backups.c.id).where(backups.c.asset_id.in_(asset_ids))
    theirs = protections.c.snapshot_id.in_(of_snapshots) | protections.c.backup_id.in_(of_backups)
    in_force = or_(protections.c.until.is_(None), protections.c.until > now)
    query = select(protections).where(theirs, in_force).order_by(protections.c.placed_at, protections.c.id)
    for row in await connection.execute(query):
        if (point := by_id.get(row.snapshot_id or row.backup_id)) is None:
            continue
        what = f"{row.mode} lock" if row.mode else "hold"
        until = f" until {row.until:%Y-%m-%d %H:%M} UTC" if row.until else ""
        point.kept_by.append(f"{what}{until} ({row.reason})")
        if row.mode and row.until:
            point.locked_until = max(row.until, point.locked_until or row.until)


async def _exports(connection: AsyncConnection, asset_ids: Sequence[str]) -> dict[str, list[str]]:
    query = (
        select(exports.c.snapshot_id, exports.c.host_name)
        .join(snapshots)
        .where(snapshots.c.asset_id.in_(asset_ids), exports.c.state != ExportState.ENDED.value)
    )
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in await connection.execute(query):
        found[row.snapshot_id].append(f"exported to {row.host_name}")
    return found


async def _chains(connection: AsyncConnection, asset_ids: Sequence[str]) -> dict[str, list[str]]:
    query = select(chains, repositories.c.name).join(repositories).where(chains.c.asset_id.in_(asset_ids))
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in await connection.execute(query):
        found[row.snapshot_id].append(f"base of the next incremental backup into {row.name}")
        found[row.backup_id].append(f"the next incremental backup into {row.name} goes on from it")
    return found


def _unended(asset_ids: Sequence[str]) -> Any:
    unended = operations.c.ended_at.is_(None)
    columns = operations.c.id, operations.c.kind, operations.c.request
    return select(*columns).where(unended, operations.c.asset_id.in_(asset_ids))
