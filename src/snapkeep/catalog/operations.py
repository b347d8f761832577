"""Queries on operations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from snapkeep.catalog.paging import require_cursor
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.catalog.tables import operations
from snapkeep.model.errors import NotFound

_OPEN = [OperationState.QUEUED.value, OperationState.RUNNING.value]


class Operations:
    """Durable pieces of work, their progress and their end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(
        self,
        *,
        operation_id: str,
        kind: str,
        system_id: str,
        system_name: str,
        target: str,
        request: dict[str, Any],
        requester: str,
        now: datetime,
    ) -> OperationRecord:
        """Record the intent. Adding the same id again changes nothing."""
        async with self._engine.begin() as connection:
            known = await connection.execute(select(operations.c.id).where(operations.c.id == operation_id))
            if known.first() is None:
                await connection.execute(
                    insert(operations).values(
                        id=operation_id,
                        kind=kind,
                        system_id=system_id,
                        system_name=system_name,
                        target=target,
                        request=request,
                        requester=requester,
                        state=OperationState.QUEUED.value,
                        phase="queued",
                        cancel_requested=False,
                        created_at=now,
                    )
                )
        return await self.get(operation_id)

    async def get(self, operation_id: str) -> OperationRecord:
        """Return one operation by its id, or by the beginning of it when that is unique. Raises NotFound."""
        query = select(operations).where(operations.c.id == operation_id)
        if len(operation_id) < 36:
            query = select(operations).where(operations.c.id.startswith(operation_id, autoescape=True)).limit(2)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        if len(rows) != 1:
            raise NotFound(
                f"There is {'no' if not rows else 'more than one'} operation {operation_id!r}",
                next_step="See `snapkeep operation list`.",
            )
        return _record(rows[0])

    async def find(
        self,
        *,
        system: str | None = None,
        states: Sequence[OperationState] = (),
        limit: int = 100,
        before: str = "",
    ) -> list[OperationRecord]:
        """Return operations, the newest first; `before` is the id of the last one of the page before."""
        query = select(operations).order_by(operations.c.created_at.desc(), operations.c.id.desc()).limit(limit)
        query = query.where(operations.c.system_name == system) if system else query
        query = query.where(operations.c.state.in_([state.value for state in states])) if states else query
        if before:
            last = select(operations.c.created_at, operations.c.id).where(operations.c.id == before)
            query = query.where(tuple_(operations.c.created_at, operations.c.id) < last.scalar_subquery())
        async with self._engine.connect() as connection:
            await require_cursor(connection, operations, before)
            return [_record(row) for row in await connection.execute(query)]

    async def open_ids(self) -> list[str]:
        """Return the ids of the operations that have not ended, the oldest first."""
        query = select(operations.c.id).where(operations.c.state.in_(_OPEN)).order_by(operations.c.created_at)
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def update(self, operation_id: str, **values: Any) -> None:
        """Change an operation that has not ended; an ended one is never rewritten."""
        async with self._engine.begin() as connection:
            await connection.execute(
                update(operations)
                .where(operations.c.id == operation_id, operations.c.state.in_(_OPEN))
                .values(
                    **{
                        key: value.value if isinstance(value, OperationState) else value
                        for key, value in values.items()
                    }
                )
            )

    async def end_queued(self, operation_id: str, **values: Any) -> None:
        """End an operation, unless it has begun in the meantime."""
        values["state"] = values["state"].value
        async with self._engine.begin() as connection:
            await connection.execute(
                update(operations)
                .where(operations.c.id == operation_id, operations.c.state == OperationState.QUEUED.value)
                .values(**values)
            )

    async def cancel_requested(self, operation_id: str) -> bool:
        """Say whether somebody asked to cancel."""
        query = select(operations.c.cancel_requested).where(operations.c.id == operation_id)
        async with self._engine.connect() as connection:
            return bool((await connection.execute(query)).scalar())


def _record(row: Any) -> OperationRecord:
    values = row._asdict()
    values["state"] = OperationState(row.state)
    return OperationRecord(**values)


def ended(state: OperationState, now: datetime, **values: Any) -> dict[str, Any]:
    """Return the values that end an operation."""
    return {"state": state, "ended_at": now, "phase": state.value, **values}
