"""The JSON of operations, and of the workers that run them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from snapkeep.catalog.records import OperationRecord, WorkerRecord
from snapkeep.server.schemas import Out


class OperationOut(Out):
    """An operation. `progress` is 0 to 1, null when unknown; `items` counts what was handled so far.

    `items_per_second` is their rate since the begin; `attempt` counts the steps begun: two where all goes well.
    `not_before`: when it begins, of a deletion that is one of many and cools.
    """

    id: str
    kind: str
    system: str
    target: str
    requester: str
    state: str
    phase: str
    progress: float | None
    items: int | None
    items_per_second: float | None
    cancel_requested: bool
    pause_requested: bool
    queue: str
    worker: str | None
    attempt: int
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    not_before: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, record: OperationRecord, phase: str | None = None) -> OperationOut:
        """Map the record; `phase`: better words than those recorded."""
        return cls(
            id=record.id,
            kind=record.kind,
            system=record.system_name,
            target=record.target,
            requester=record.requester,
            state=record.state.value,
            phase=phase or record.phase,
            progress=record.progress,
            items=record.items,
            items_per_second=_rate(record),
            cancel_requested=record.cancel_requested,
            pause_requested=record.pause_requested,
            queue=record.queue,
            worker=record.worker,
            attempt=record.attempt,
            result=record.result,
            error=record.error,
            not_before=record.not_before,
            created_at=record.created_at,
            started_at=record.started_at,
            ended_at=record.ended_at,
        )


def _rate(record: OperationRecord) -> float | None:
    if not record.items or record.started_at is None:
        return None
    seconds = ((record.ended_at or datetime.now(UTC)) - record.started_at).total_seconds()
    return round(record.items / seconds, 1) if seconds > 0 else None


class WorkerOut(Out):
    """A process that runs operations."""

    name: str
    state: str
    queues: list[str]
    host: str
    pid: int
    version: str
    heartbeat_age_seconds: float
    started_at: datetime
    left_at: datetime | None

    @classmethod
    def of(cls, record: WorkerRecord, takeover_seconds: float) -> WorkerOut:
        """Map the record."""
        return cls(
            name=record.name,
            state=record.state(takeover_seconds).value,
            queues=list(record.queues),
            host=record.host,
            pid=record.pid,
            version=record.version,
            heartbeat_age_seconds=round(record.heartbeat_age, 1),
            started_at=record.started_at,
            left_at=record.left_at,
        )
