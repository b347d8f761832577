"""What is told of the ends of operations: pure."""

from __future__ import annotations

from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import SnapkeepError
from snapkeep.model.notifications import Event, Notice


def is_told(operation: OperationRecord) -> bool:
    """Say whether anybody is told of such an end."""
    return operation.state is OperationState.FAILED or _is_partial(operation)


def notice_of(operation: OperationRecord, system: str | None) -> Notice:
    """Return what is told of an operation that failed, or was done in part; `system`: by which people see it."""
    if operation.state is OperationState.FAILED:
        return _failure(operation, system)
    return _partial(operation, system)


def _is_partial(operation: OperationRecord) -> bool:
    return operation.state is OperationState.SUCCEEDED and bool((operation.result or {}).get("partial"))


def _failure(operation: OperationRecord, system: str | None) -> Notice:
    error = operation.error or {}
    return Notice(
        event=Event.OPERATION_FAILED,
        message=f"{operation.kind} {operation.target} failed: {SnapkeepError.from_dict(error)}",
        next_step=str(error.get("next_step") or ""),
        system=system,
        subject=operation.target,
        actor=operation.requester,
        details={"operation": operation.id, "kind": operation.kind, "code": error.get("code")},
    )


def _partial(operation: OperationRecord, system: str | None) -> Notice:
    return Notice(
        event=Event.BACKUP_PARTIAL,
        message=f"{operation.kind} {operation.target} lacks files that could not be read",
        next_step=f"See `snapkeep operation show {operation.id[:8]}`.",
        system=system,
        subject=operation.target,
        actor=operation.requester,
        details={"operation": operation.id, "backup": (operation.result or {}).get("backup_id")},
    )
