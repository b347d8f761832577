"""Operations for reports, and numbers that the database counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, and_, cast, func, select

from snapkeep.catalog.audit_chain import Outcome
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.operation_lists import OPERATION_ORDERS, is_about, is_visible_operation, record_of
from snapkeep.catalog.paging import Listed, Paging
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.catalog.tables import audit, operations
from snapkeep.model.access import Visible


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which operations: those that were asked for, or that ended, from `since` on, before `until`."""

    since: datetime
    until: datetime
    system: str | None
    """Name of the only system; None: all."""
    visible: Visible
    ended: bool = False
    """Whether the period is that in which they ended: what has not is none of them."""

    @property
    def condition(self) -> ColumnElement[bool]:
        """Return it as a condition."""
        moment = operations.c.ended_at if self.ended else operations.c.created_at
        mine = [moment >= self.since, moment < self.until]
        mine += [is_about(self.system)] if self.system is not None else []
        return and_(is_visible_operation(self.visible), *mine)


class ReportFigures:
    """The operations and the numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, wanted: Wanted, paging: Paging) -> Listed[OperationRecord]:
        """Return operations, by `OPERATION_ORDERS`."""
        query = select(operations).where(wanted.condition)
        async with self._database.connect() as connection:
            return await OPERATION_ORDERS.read(connection, query, record_of, paging)

    async def failed(self, wanted: Wanted, limit: int) -> list[OperationRecord]:
        """Return those that have failed, the last ones."""
        failed = operations.c.state == OperationState.FAILED.value
        query = select(operations).where(wanted.condition, failed)
        query = query.order_by(operations.c.ended_at.desc(), operations.c.id.desc()).limit(limit)
        async with self._database.connect() as connection:
            return [record_of(row) for row in await connection.execute(query)]

    async def operations(self, wanted: Wanted) -> Sequence[tuple[str, OperationState, int]]:
        """Return the kinds and states of operations, and how many of each there are."""
        keys = (operations.c.kind, operations.c.state)
        query = select(*keys, func.count()).where(wanted.condition).group_by(*keys).order_by(*keys)
        async with self._database.connect() as connection:
            return [(kind, OperationState(state), count) for kind, state, count in await connection.execute(query)]

    async def bytes_added(self, wanted: Wanted) -> int:
        """Return how many bytes backups have added to their repositories."""
        added = cast(operations.c.result[("counts", "bytes_added")].as_string(), BigInteger)
        done = and_(operations.c.kind == "backup", operations.c.state == OperationState.SUCCEEDED.value)
        query = select(func.coalesce(func.sum(added), 0)).where(wanted.condition, done)
        async with self._database.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def forgotten(self, since: datetime, until: datetime) -> int:
        """Return how many recovery points were forgotten, of all systems: that is no operation, but it is on record."""
        mine = (audit.c.action == "backup.forget", audit.c.outcome == Outcome.DONE.value)
        really = audit.c.detail["dry_run"].as_boolean().is_not(True)
        query = select(func.count()).where(*mine, really, audit.c.at >= since, audit.c.at < until)
        async with self._database.connect() as connection:
            return int((await connection.execute(query)).scalar_one())
