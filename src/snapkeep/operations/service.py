"""The life of operations: cancel, pause, resume, retry; and what they wait for."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

from snapkeep.catalog.operation_ends import ended
from snapkeep.catalog.records import (
    OperationRecord,
    OperationState,
    WorkerState,
)
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.operations import metrics
from snapkeep.operations.proving import Proving
from snapkeep.operations.requester import Requester
from snapkeep.operations.retrying import ask_again
from snapkeep.operations.runner import HANDLERS

RECONCILE_AGAIN = timedelta(minutes=10)
"""After a crash a system is looked at once in this time, however many crashes there are."""

_WAITING = [OperationState.QUEUED, OperationState.PAUSED]


class Operations(Proving):
    """Starts operations and answers for their life."""

    async def cancel(self, operation: OperationRecord) -> OperationRecord:
        """Ask for the end of an operation. Raises Conflict when it has ended or cannot be taken back any more."""
        operations = self._catalog.operations
        while True:  # until it was told in the state in which it is: it may begin, pause or end meanwhile
            _require_open(operation, "cancel")
            if not operation.attempt:
                cancelled = ended(OperationState.CANCELLED, self._clock.now())
                if await operations.change(operation.id, _WAITING, operation.generation, unbegun=True, **cancelled):
                    metrics.operation_ended(await operations.get(operation.id))
                    await self._dispatcher.pass_turn(operation)
                    return await operations.get(operation.id)
            elif not HANDLERS[operation.kind].cancellable:
                raise Conflict(
                    f"A {operation.kind} that has begun cannot be taken back",
                    next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
                )
            elif operation.state is OperationState.PAUSED:  # it goes on, to undo what it has begun
                await self._go_on(operation, cancel_requested=True)
            else:
                await operations.update(operation.id, cancel_requested=True)
            operation = await operations.get(operation.id)
            if operation.cancel_requested or operation.state.ended:
                return operation

    async def pause(self, operation: OperationRecord) -> OperationRecord:
        """Hold an operation back until it is resumed. Raises Conflict when it has ended or is not ours to hold."""
        _require_open(operation, "pause")
        if operation.state is OperationState.PAUSED:
            return operation
        operations = self._catalog.operations
        held: dict[str, Any] = {"state": OperationState.PAUSED, "phase": "paused", "turn": None}  # holds up no other
        if await operations.change(operation.id, [OperationState.QUEUED], **held):
            await self._dispatcher.pass_turn(operation)
            return await operations.get(operation.id)
        if not HANDLERS[operation.kind].pausable:
            raise Conflict(
                f"A {operation.kind} that has begun cannot be paused: the system works, not Snapkeep",
                next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
            )
        await operations.update(operation.id, pause_requested=True)
        return await operations.get(operation.id)

    async def resume(self, operation: OperationRecord) -> OperationRecord:
        """Let a paused operation go on; one that was asked to pause and has not yet, is not. Raises Conflict."""
        _require_open(operation, "resume")
        await self._catalog.operations.update(operation.id, pause_requested=False)
        now = await self._catalog.operations.get(operation.id)
        if now.state is OperationState.PAUSED:
            await self._go_on(now)
        return await self._catalog.operations.get(operation.id)

    async def _go_on(self, operation: OperationRecord, **values: Any) -> None:
        values |= {
            "state": OperationState.QUEUED,
            "phase": "queued",
            "pause_requested": False,
            "generation": operation.generation + 1,
        }
        paused = [OperationState.PAUSED]
        if await self._catalog.operations.change(operation.id, paused, operation.generation, **values):
            self._dispatcher.dispatch(await self._catalog.operations.get(operation.id))

    async def retry(self, operation: OperationRecord, by: Requester) -> OperationRecord:
        """Ask once more for what failed or was cancelled, as a new operation. Raises Conflict for the others."""
        if operation.state not in {OperationState.FAILED, OperationState.CANCELLED}:
            raise Conflict(
                f"The operation is {operation.state}: only one that failed or was cancelled can be retried",
                next_step=f"See `snapkeep operation show {operation.id}`.",
            )
        return await ask_again(self, self._catalog, operation, by)

    async def explain(self, operation: OperationRecord) -> str:
        """Return the phase of an operation; of one that waits, what it waits for."""
        if operation.state is OperationState.RUNNING and operation.queue not in await self.served_queues():
            return f"begun; to go on, it waits for a worker that serves the queue {operation.queue!r}"
        if operation.state is not OperationState.QUEUED:
            return operation.phase
        if operation.not_before and operation.not_before > await self._catalog.protections.time.now():
            begin = operation.not_before.strftime("%Y-%m-%d %H:%M")
            return f"cooling until {begin} UTC: many deletions were asked for within an hour"
        if operation.exclusive and not operation.turn:
            holder = await self._catalog.operations.holder(operation.exclusive)
            return f"queued behind {holder.kind} {holder.id}" if holder else operation.phase
        if operation.queue not in await self.served_queues():
            return f"queued: no living worker serves the queue {operation.queue!r}"
        return operation.phase

    async def served_queues(self) -> set[str]:
        """Return the queues that a living worker serves."""
        workers = await self._catalog.workers.find()
        alive = [item for item in workers if item.state(self.takeover_seconds) is WorkerState.ALIVE]
        return {queue for item in alive for queue in item.queues}

    async def reconcile_after_crash(self, system_id: str) -> None:
        """Report what a crash may have left on a system, unless that was looked at a moment ago."""
        with contextlib.suppress(NotFound):  # it may have been removed meanwhile
            system = await self._catalog.systems.get(system_id)
            since = self._clock.now() - RECONCILE_AGAIN
            if not await self._catalog.operations.asked_since("reconcile", system.id, since):
                await self.reconcile(system, Requester("snapkeep"), apply=False)


def _require_open(operation: OperationRecord, verb: str) -> None:
    if operation.state.ended:
        raise Conflict(f"The operation has ended: {operation.state}", next_step=f"There is nothing to {verb}.")
