"""Runs operations: the two steps of the engine, and how each can end."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.fencing import OPEN, Fence, Superseded
from snapkeep.catalog.operation_ends import ended
from snapkeep.catalog.outages import is_outage
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import AuthenticationFailed, SnapkeepError, Timeout, Unavailable, VendorError
from snapkeep.model.work import Ticket
from snapkeep.operations import metrics
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.dispatch import Dispatcher
from snapkeep.operations.host import Host
from snapkeep.operations.kinds.backup import BackupHandler
from snapkeep.operations.kinds.base import Handler
from snapkeep.operations.kinds.compare import CompareHandler
from snapkeep.operations.kinds.diff import DiffHandler
from snapkeep.operations.kinds.discover import DiscoverHandler
from snapkeep.operations.kinds.drill import DrillHandler, VerifyHandler
from snapkeep.operations.kinds.exports import DeportHandler, ExportHandler
from snapkeep.operations.kinds.reconcile import ReconcileHandler
from snapkeep.operations.kinds.recover import CheckHandler, RecoverHandler
from snapkeep.operations.kinds.snapshots import CloneHandler, CreateHandler, DeleteHandler, RestoreHandler
from snapkeep.operations.run import Cancelled, Limits, Outage, Paused, Run

if TYPE_CHECKING:
    from snapkeep.operations.service import Operations

T = TypeVar("T")

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
        CompareHandler(),
        ReconcileHandler(),
        BackupHandler(),
        RecoverHandler(),
        CheckHandler(),
        VerifyHandler(),
        DrillHandler(),
    )
}
"""Every kind of operation."""

log = structlog.get_logger(__name__)

DATABASE_SECONDS = (0.5, 15.0)
"""First and longest pause before a step is run again, when the catalog's database was away."""

MAX_ATTEMPTS = 200
"""Steps of one operation that are begun, before it is held to be what ends the processes that run it."""


class _Again(Exception):
    """The step is to be run once more."""


class Runner:
    """The work that the engine runs: every end of an operation is recorded in the catalog."""

    def __init__(
        self,
        catalog: Catalog,
        connections: Connections,
        dispatcher: Dispatcher,
        clock: Clock,
        limits: Limits,
        host: Host,
        operations: Operations,
    ) -> None:
        self._catalog = catalog
        self._connections = connections
        self._dispatcher = dispatcher
        self._clock = clock
        self._limits = limits
        self._host = host
        self._operations = operations
        self._worker = host.name
        self._begun: dict[tuple[str, int], float] = {}

    async def start(self, operation_id: str, generation: int) -> dict[str, Any]:
        """Run the handler's `start`; return {"ticket", "phase"}, or {} when there is nothing to finish."""
        started = await self._step(operation_id, generation, "starting", self._start)
        if started is None:
            self._begun.pop((operation_id, generation), None)
        return started or {}

    async def finish(self, operation_id: str, generation: int, started: dict[str, Any]) -> None:
        """Run the handler's `finish` and record the result."""
        if "ticket" in started:
            ticket = Ticket(started["ticket"])
            try:
                await self._step(operation_id, generation, started["phase"], lambda run: self._finish(run, ticket))
            finally:
                self._begun.pop((operation_id, generation), None)

    # -- a step ------------------------------------------------------------------------------------------------------
    async def _step(
        self, operation_id: str, generation: int, phase: str, work: Callable[[Run], Awaitable[T]]
    ) -> T | None:
        """Run a step; once more from its beginning whenever the database was away.

        None when there is nothing to do any more. Ends like a process that died when another worker runs the step.
        """
        with bound_contextvars(operation=operation_id, worker=self._worker):
            for attempt in itertools.count():
                try:
                    return await self._claimed(operation_id, generation, phase, work)
                except _Again:
                    continue
                except Superseded:
                    await self._give_way(operation_id, generation)
                    return None
                except Exception as error:  # noqa: BLE001 - a defect is recorded, an outage waited for
                    if not is_outage(error):
                        await self._give_up(operation_id, generation, error)
                        return None
                    metrics.retried("database_away")
                    log.warning("the database is away; the step is run again", reason=str(error))
                    first, longest = DATABASE_SECONDS
                    await self._clock.sleep(min(longest, first * 2 ** min(attempt, 8)) * random.uniform(0.8, 1.2))
        raise AssertionError("unreachable")  # pragma: no cover

    async def _claimed(
        self, operation_id: str, generation: int, phase: str, work: Callable[[Run], Awaitable[T]]
    ) -> T | None:
        """Claim the operation, so that nobody else may write for it, and work."""
        operation = await self._catalog.operations.claim(
            operation_id, generation, self._worker, self._clock.now(), phase=phase
        )
        if operation is None:
            return None
        run = self._run(operation)
        with bound_contextvars(kind=operation.kind, system=operation.system_name):
            if operation.attempt == 1:
                metrics.operation_begun(operation)
                log.info("operation begun")
            if operation.attempt > MAX_ATTEMPTS:
                error = SnapkeepError(f"It was begun {MAX_ATTEMPTS} times and came to no end: it may end its workers")
                await self._end(run, OperationState.FAILED, error=_what_may_be_there(run, error.to_dict()))
                return None
            try:
                return await work(run)
            except (Superseded, _Again):
                raise
            except Exception as error:
                if is_outage(error):
                    raise
                await self._end(run, OperationState.FAILED, error=_defect(run, error).to_dict())
                return None

    async def _give_up(self, operation_id: str, generation: int, error: Exception) -> None:
        """Record a defect of ours outside of any handler: left open, the operation would be begun again for ever."""
        log.error("a step cannot be run", exc_info=error)
        data = SnapkeepError(f"{type(error).__name__}: {error}").to_dict()
        values = ended(OperationState.FAILED, self._clock.now(), error=data)
        states = [OperationState(state) for state in OPEN]
        await self._catalog.operations.change(operation_id, states, generation, **values)

    async def _give_way(self, operation_id: str, generation: int) -> None:
        """Return when the operation needs this job no more. Else another worker runs it: leave no record of ours."""
        current = await self._catalog.operations.known(operation_id)
        if current is None or current.state.value not in OPEN or current.generation != generation:
            return
        log.warning("another worker runs the operation", other=current.worker)
        raise asyncio.CancelledError

    def _run(self, operation: OperationRecord) -> Run:
        catalog = self._catalog.behind(Fence(operation.id, operation.attempt))
        handler = HANDLERS[operation.kind]
        return Run(
            operation,
            catalog,
            self._connections.roles,
            self._clock,
            self._limits,
            self._host,
            self._operations,
            begun=self._begun.setdefault((operation.id, operation.generation), self._clock.monotonic()),
            cancellable=handler.cancellable,
            pausable=handler.pausable,
        )

    async def _start(self, run: Run) -> dict[str, Any] | None:
        handler, ticket = HANDLERS[run.operation.kind], None
        outage = Outage(run)

        async def begin() -> None:
            nonlocal ticket
            if not run.uncertain:  # else first learn what an earlier run did; `finish` sees the cancel
                await run.look_for_signals()
            while ticket is None:
                try:
                    ticket = await run.call(handler.start(run), interruptible=False)
                except Unavailable as error:
                    if not handler.patient:
                        raise
                    run.uncertain = True
                    await outage.wait_or_raise(error)
                except AuthenticationFailed:
                    if not await self._has_new_secrets(run):
                        raise

        await self._guarded(run, begin, None)
        return {"ticket": dict(ticket.data), "phase": handler.finishing} if ticket is not None else None

    async def _finish(self, run: Run, ticket: Ticket) -> None:
        async def end() -> None:
            try:
                result = await HANDLERS[run.operation.kind].finish(run, ticket)
            except AuthenticationFailed:
                if not await self._has_new_secrets(run):
                    raise
                result = await HANDLERS[run.operation.kind].finish(run, ticket)
            await self._end(run, OperationState.SUCCEEDED, result=result, progress=1.0)

        await self._guarded(run, end, ticket)

    async def _has_new_secrets(self, run: Run) -> bool:
        """Say whether a system that refuses the login may take what its references lead to by now."""
        if not await self._connections.renew(run.operation.system_id):
            return False
        log.info("the secret of the system has changed; it is used from now on")
        return True

    # -- how it can end ----------------------------------------------------------------------------------------------
    async def _guarded(self, run: Run, work: Callable[[], Awaitable[None]], ticket: Ticket | None) -> None:
        """Run `work`; record how it ended otherwise than well.

        What gets out: Superseded, and that the database is away.
        """
        try:
            await work()
        except Cancelled:
            await self._cancelled(run, ticket)
        except Paused:
            if not await run.catalog.operations.park(run.operation.id):
                raise _Again from None  # it was resumed, or cancelled, in the same moment
        except SnapkeepError as error:
            await self._failed(run, ticket, error)
        except (Superseded, _Again):
            raise
        except Exception as error:
            if is_outage(error):
                raise
            await self._failed(run, ticket, _defect(run, error))  # no operation runs for ever because of a defect

    async def _cancelled(self, run: Run, ticket: Ticket | None) -> None:
        await run.report("cancelling")
        error = await self._undo(run, ticket)
        if error is None:
            await self._end(run, OperationState.CANCELLED)
            return
        error = error.with_context("Cancelled, but what was begun could not be undone")
        await self._end(run, OperationState.FAILED, error=_what_may_be_there(run, error.to_dict()))

    async def _undo(self, run: Run, ticket: Ticket | None) -> SnapkeepError | None:
        """Undo; return why it could not be done."""
        try:
            async with run.undoing():
                await HANDLERS[run.operation.kind].undo(run, ticket)
        except SnapkeepError as error:
            return error
        except Superseded:
            raise
        except Exception as error:
            if is_outage(error):
                raise
            return _defect(run, error)
        return None

    async def _failed(self, run: Run, ticket: Ticket | None, error: SnapkeepError) -> None:
        """Record the failure; where it is not known whether the system did the work, say what may be there."""
        data = error.to_dict()
        if ticket is not None or run.uncertain or isinstance(error, Unavailable | Timeout | VendorError):
            data = _what_may_be_there(run, data)
        if HANDLERS[run.operation.kind].undone_on_failure and (second := await self._undo(run, ticket)) is not None:
            data["details"] |= {"not_undone": second.to_dict()}
        await self._end(run, OperationState.FAILED, error=data)

    async def _end(self, run: Run, state: OperationState, **values: Any) -> None:
        operation = run.operation
        values = ended(state, self._clock.now(), **values)
        await run.catalog.operations.update(operation.id, **values)
        record = replace(operation, **values)
        metrics.operation_ended(record)
        seconds = round((values["ended_at"] - (operation.started_at or operation.created_at)).total_seconds(), 3)
        log.info("operation ended", state=state.value, seconds=seconds, code=(record.error or {}).get("code"))
        await self._dispatcher.pass_turn(operation)


def _what_may_be_there(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """Add to an error what may be on the system although its operation did not succeed."""
    if run.operation.kind != "create" or run.unasked:
        return data
    name, system = run.request["name"], run.operation.system_name
    return {
        **data,
        "details": {**data["details"], "may_exist": name},
        "next_step": f"{data['next_step']} The snapshot {name} may exist: `snapkeep reconcile {system}` says so.",
    }


def _defect(run: Run, error: Exception) -> SnapkeepError:
    """Return the error for a defect of ours: it must not leave an operation running for ever."""
    log.error("operation failed unexpectedly", operation=run.operation.id, exc_info=error)
    return SnapkeepError(f"{type(error).__name__}: {error}")
