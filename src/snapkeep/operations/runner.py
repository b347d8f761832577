"""Runs operations: the two steps of the engine, and how each can end."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.operations import ended
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import SnapkeepError, Timeout, Unavailable, VendorError
from snapkeep.model.work import Ticket
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.kinds.base import Handler
from snapkeep.operations.kinds.diff import DiffHandler
from snapkeep.operations.kinds.discover import DiscoverHandler
from snapkeep.operations.kinds.exports import DeportHandler, ExportHandler
from snapkeep.operations.kinds.snapshots import CloneHandler, CreateHandler, DeleteHandler, RestoreHandler
from snapkeep.operations.run import Cancelled, Limits, Run

HANDLERS: Mapping[str, Handler] = {
    handler.kind: handler
    for handler in (
        DiscoverHandler(),
        CreateHandler(),
        DeleteHandler(),
        RestoreHandler(),
        CloneHandler(),
        ExportHandler(),
        DeportHandler(),
        DiffHandler(),
    )
}
"""Every kind of operation."""

log = structlog.get_logger(__name__)


class Runner:
    """The work that the engine runs: every end of an operation is recorded in the catalog."""

    def __init__(self, catalog: Catalog, connections: Connections, clock: Clock, limits: Limits) -> None:
        self._catalog = catalog
        self._connections = connections
        self._clock = clock
        self._limits = limits

    async def start(self, operation_id: str) -> dict[str, Any]:
        """Run the handler's `start`; return {"ticket": ...}, or {} when the operation has ended."""
        operation = await self._catalog.operations.get(operation_id)
        if operation.state.ended:
            return {}
        await self._catalog.operations.update(
            operation_id, state=OperationState.RUNNING, started_at=operation.started_at or self._clock.now()
        )
        run = self._run(await self._catalog.operations.get(operation_id))
        ticket: Ticket | None = None

        async def begin() -> None:
            nonlocal ticket
            if operation.started_at is None:  # else first learn what an earlier run did; `finish` sees the cancel
                await run.check_cancel()
            ticket = await HANDLERS[operation.kind].start(run)

        await self._guarded(run, begin, None)
        return {"ticket": dict(ticket.data)} if ticket is not None else {}

    async def finish(self, operation_id: str, started: dict[str, Any]) -> None:
        """Run the handler's `finish` and record the result."""
        operation = await self._catalog.operations.get(operation_id)
        if "ticket" not in started or operation.state.ended:
            return
        run, ticket = self._run(operation), Ticket(started["ticket"])

        async def end() -> None:
            result = await HANDLERS[operation.kind].finish(run, ticket)
            await self._end(operation, OperationState.SUCCEEDED, result=result, progress=1.0)

        await self._guarded(run, end, ticket)

    def _run(self, operation: OperationRecord) -> Run:
        async def connect() -> Any:
            return await self._connections.roles(await self._catalog.systems.get(operation.system_id))

        cancellable = HANDLERS[operation.kind].cancellable
        return Run(operation, self._catalog, connect, self._clock, self._limits, cancellable=cancellable)

    async def _guarded(self, run: Run, work: Callable[[], Awaitable[None]], ticket: Ticket | None) -> None:
        """Run `work`; record how it ended otherwise than well. Nothing but the death of the process gets out."""
        try:
            await work()
        except Cancelled:
            await self._cancelled(run, ticket)
        except SnapkeepError as error:
            await self._failed(run, ticket, error)
        except Exception as error:  # noqa: BLE001 - no operation may run for ever because of a defect of ours
            await self._failed(run, ticket, _defect(run, error))

    async def _cancelled(self, run: Run, ticket: Ticket | None) -> None:
        await run.report("cancelling")
        error = await self._undo(run, ticket)
        if error is None:
            await self._end(run.operation, OperationState.CANCELLED)
            return
        error = error.with_context("Cancelled, but what was begun could not be undone")
        await self._end(run.operation, OperationState.FAILED, error=error.to_dict())

    async def _undo(self, run: Run, ticket: Ticket | None) -> SnapkeepError | None:
        """Undo; return why it could not be done."""
        try:
            async with run.undoing():
                await HANDLERS[run.operation.kind].undo(run, ticket)
        except SnapkeepError as error:
            return error
        except Exception as error:  # noqa: BLE001 - likewise
            return _defect(run, error)
        return None

    async def _failed(self, run: Run, ticket: Ticket | None, error: SnapkeepError) -> None:
        """Record the failure; where it is not known whether the system did the work, say what may be there."""
        data = error.to_dict()
        unknown = ticket is not None or isinstance(error, Unavailable | Timeout | VendorError)
        if run.operation.kind == "create" and unknown:
            data["details"] |= {"may_exist": run.request["name"]}
            data["next_step"] += f" The snapshot {run.request['name']} may exist: `snapkeep discover` will show it."
        if HANDLERS[run.operation.kind].undone_on_failure and (second := await self._undo(run, ticket)) is not None:
            data["details"] |= {"not_undone": second.to_dict()}
        await self._end(run.operation, OperationState.FAILED, error=data)

    async def _end(self, operation: OperationRecord, state: OperationState, **values: Any) -> None:
        for attempt in itertools.count():
            try:
                await self._catalog.operations.update(operation.id, **ended(state, self._clock.now(), **values))
                break
            except Exception:  # disk full, database locked: the end must be recorded, however long it takes
                log.exception("the end of an operation cannot be recorded; it is tried again", operation=operation.id)
                await self._clock.sleep(min(30.0, 0.5 * 2 ** min(attempt, 8)))
        log.info("operation ended", operation=operation.id, kind=operation.kind, state=state.value)


def _defect(run: Run, error: Exception) -> SnapkeepError:
    """Return the error for a defect of ours: it must not leave an operation running for ever."""
    log.error("operation failed unexpectedly", operation=run.operation.id, exc_info=error)
    return SnapkeepError(f"{type(error).__name__}: {error}")
