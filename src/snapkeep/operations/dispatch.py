"""From the catalog to the engine: every open operation gets there, those that exclude each other one by one."""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.fencing import OPEN
from snapkeep.catalog.operation_ends import ended
from snapkeep.catalog.operations import OpenOperation
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import SnapkeepError
from snapkeep.operations.clock import Clock
from snapkeep.operations.engine import Engine, Lane, job_id

log = structlog.get_logger(__name__)

MAX_GENERATIONS = 1000
"""How often an operation is begun anew: by people who pause it, or because the engine came to no end with it."""

MOVERS = frozenset({"backup", "recover", "check", "compare", "verify", "drill"})
"""Kinds of operations that move data, or read as much."""

_OPEN_STATES = [OperationState(state) for state in OPEN]


class Dispatcher:
    """Hands operations to the engine. The catalog is the truth: what the engine does not know is handed in again."""

    def __init__(self, catalog: Catalog, engine: Engine, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._engine = engine
        self._under_way: set[asyncio.Task[None]] = set()

    def dispatch(self, operation: OperationRecord) -> None:
        """Hand in an operation that was recorded, or the one that has waited longest for the same turn.

        Nobody waits for it: the intent is recorded, and what goes wrong here is found by `sweep`.
        """
        task = asyncio.create_task(self._dispatch(operation))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def settle(self) -> None:
        """Wait until everything was handed in."""
        await asyncio.gather(*self._under_way)

    async def _dispatch(self, operation: OperationRecord) -> None:
        if operation.not_before is not None:  # the sweep looks whether it is due
            return
        try:
            if operation.exclusive is None or operation.turn is not None:
                await self._submit(operation, operation.generation)
            else:
                await self.next_turn(operation.exclusive)
        except Exception as error:  # noqa: BLE001 - the sweep finds it
            reason = str(error) or type(error).__name__
            log.warning("the engine was not told; it is tried again", operation=operation.id, reason=reason)

    async def next_turn(self, exclusive: str, due: datetime | None = None) -> None:
        """Give the turn to the next operation that waits for it, if it is free."""
        if found := await self._catalog.operations.take_turn(exclusive, due):
            await self._submit(found, found.generation)

    async def pass_turn(self, operation: OperationRecord) -> None:
        """Let the next one go on, now that this operation has ended or waits. A failure is no harm, either."""
        if operation.exclusive is not None:
            try:
                await self.next_turn(operation.exclusive)
            except Exception as error:  # noqa: BLE001 - what was asked of this one is done; the sweep finds the next
                log.warning("the next turn was not given; it is tried again", reason=str(error))

    async def sweep(self) -> None:
        """See that the engine works on every open operation: crashes and lost engines leave gaps."""
        after, due = "", await self._catalog.protections.time.now()
        while found := await self._catalog.operations.open(due, after=after):
            after = found[-1].id
            ready = [item for item in found if item.exclusive is None or item.turn is not None]
            known = await self._engine.jobs([job_id(item.id, item.generation) for item in ready])
            for item in ready:
                has_ended = known.get(job_id(item.id, item.generation))
                if has_ended is None:
                    await self._submit(item, item.generation)
                elif has_ended:
                    await self._begin_anew(item)
            for exclusive in {item.exclusive for item in found if item.exclusive and not item.turn}:
                await self.next_turn(exclusive, due)

    async def _begin_anew(self, item: OpenOperation) -> None:
        """The engine came to an end with it, the catalog did not: whatever happened, it is begun as another job."""
        generation = item.generation + 1
        if generation > MAX_GENERATIONS:
            error = SnapkeepError(f"The engine lost it {MAX_GENERATIONS} times")
            values = ended(OperationState.FAILED, self._clock.now(), error=error.to_dict())
            await self._catalog.operations.change(item.id, _OPEN_STATES, item.generation, **values)
            return
        if await self._catalog.operations.change(item.id, _OPEN_STATES, item.generation, generation=generation):
            log.warning("the engine lost an operation; it is begun anew", operation=item.id)
            await self._submit(item, generation)

    async def _submit(self, item: OperationRecord | OpenOperation, generation: int) -> None:
        lane = Lane.MOVERS if item.kind in MOVERS else Lane.OPERATIONS
        await self._engine.submit(item.id, generation, queue=item.queue, lane=lane, key=item.system_id)
