"""The end of an operation: its values, its entry in the audit log, and what people are told of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.audit_chain import Entry, Outcome, shortened
from snapkeep.catalog.notices import is_told, notice_of
from snapkeep.catalog.operation_lists import REPOSITORY
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.catalog.tables import assets, systems
from snapkeep.model.notifications import Notice


def ended(state: OperationState, now: datetime, **values: Any) -> dict[str, Any]:
    """Return the values that end an operation."""
    return {"state": state, "ended_at": now, "phase": state.value, "turn": None, **values}


def entry_of_end(operation: OperationRecord) -> Entry:
    """Return what the audit log says of the end of an operation."""
    detail: dict[str, Any] = {"operation": operation.id}
    if operation.state is not OperationState.SUCCEEDED:
        detail |= {"state": operation.state.value, "code": (operation.error or {}).get("code")}
    return Entry(
        actor=operation.requester,
        actor_kind="operation",
        source=operation.worker or "",
        action=f"operation.{operation.kind}",
        subject=shortened(operation.target),
        outcome=Outcome.DONE if operation.state is OperationState.SUCCEEDED else Outcome.FAILED,
        detail=detail,
    )


async def notice_of_end(connection: AsyncConnection, operation: OperationRecord) -> Notice | None:
    """Return what is to be told of the end of an operation, if anything is."""
    if not is_told(operation):
        return None
    system: str | None = operation.system_name
    if operation.system_name.startswith(REPOSITORY):
        of_asset = select(systems.c.name).join(assets).where(assets.c.id == operation.asset_id)
        system = await connection.scalar(of_asset)
    return notice_of(operation, system)
