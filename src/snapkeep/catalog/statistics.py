"""Numbers about the catalog for monitoring: quick to ask for, compared by the clock of the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Float, Select, cast, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.records import ExportState, OperationState
from snapkeep.catalog.tables import (
    assets,
    change_blocks,
    change_lists,
    exports,
    operations,
    snapshots,
    systems,
    workers,
)
from snapkeep.catalog.workers import Workers

_COUNTED = (systems, assets, snapshots, exports, operations, change_lists)
_OPEN = tuple(state for state in OperationState if not state.ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What monitoring shows of the catalog at one moment."""

    open_operations: Mapping[tuple[str, str], int]
    """By (state, queue); zero for every queue that a system or a worker has."""
    oldest_queued_seconds: float
    """Age of the operation that waits longest; 0 when none waits."""
    heartbeat_ages: Mapping[str, float]
    """Seconds, by the name of each worker that has not left."""
    rows: Mapping[str, int]
    """By table."""
    exports_in_force: int
    bytes: int


class Statistics:
    """Numbers about the catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def figures(self) -> Figures:
        """Return all numbers."""
        present = [worker for worker in await Workers(self._database).find() if worker.left_at is None]
        async with self._database.connect() as connection:
            used = (await connection.execute(select(systems.c.queue).distinct())).scalars()
            queues = {*used, *(queue for worker in present for queue in worker.queues)}
            counted = await connection.execute(
                select(operations.c.state, operations.c.queue, func.count())
                .where(operations.c.state.in_([state.value for state in _OPEN]))
                .group_by(operations.c.state, operations.c.queue)
            )
            oldest = await connection.execute(
                select(func.max(self._age(operations.c.created_at))).where(
                    operations.c.state == OperationState.QUEUED.value
                )
            )
            in_force = select(func.count()).select_from(exports).where(exports.c.state != ExportState.ENDED.value)
            return Figures(
                open_operations={(state.value, queue): 0 for state in _OPEN for queue in queues}
                | {(state, queue): number for state, queue, number in counted},
                oldest_queued_seconds=max(0.0, oldest.scalar() or 0.0),
                heartbeat_ages={worker.name: worker.heartbeat_age for worker in present},
                rows={table.name: await _number(connection, _count(table)) for table in _COUNTED},
                exports_in_force=await _number(connection, in_force),
                bytes=await _number(connection, self._size()),
            )

    async def answers(self) -> bool:
        """Read something: say whether the database answers. Raises what the database raises."""
        async with self._database.connect() as connection:
            await connection.execute(select(systems.c.id).limit(1))
        return True

    def _age(self, moment: Column[Any]) -> ColumnElement[float]:
        if self._database.is_postgresql:
            return cast(func.extract("epoch", func.clock_timestamp() - moment), Float)
        return (func.julianday("now") - func.julianday(moment)) * literal_column("86400.0", Float)

    def _size(self) -> Select[Any]:
        if self._database.is_postgresql:
            names = [table.name for table in (*_COUNTED, change_blocks, workers)]
            return (
                select(func.coalesce(func.sum(func.pg_total_relation_size(text("oid"))), 0))
                .select_from(text("pg_class"))
                .where(text("relnamespace = current_schema()::regnamespace and relname = any(:names)"))
                .params(names=names)
            )
        return select(text("page_count * page_size")).select_from(text("pragma_page_count(), pragma_page_size()"))


def _count(table: Any) -> Select[Any]:
    return select(func.count()).select_from(table)


async def _number(connection: AsyncConnection, query: Select[Any]) -> int:
    return int((await connection.execute(query)).scalar_one())
