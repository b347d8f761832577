"""What has to be done again and again, while a worker runs. Each process does it; doing it twice is harmless."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.model.errors import Conflict
from snapkeep.operations.background import again_and_again, in_background
from snapkeep.operations.clock import Clock
from snapkeep.operations.dispatch import Dispatcher
from snapkeep.operations.engine import Engine
from snapkeep.operations.membership import Membership
from snapkeep.operations.renewal import Renewal
from snapkeep.operations.service import Operations
from snapkeep.operations.timekeeper import Timekeeper

RENEW_SECONDS = 1.0
SWEEP_SECONDS = 3.0
TIME_SECONDS = 5.0
PURGE_SECONDS = 600.0
RESCUE_SECONDS = 10.0
JOBS_KEPT = timedelta(hours=1)
WORKERS_KEPT = 86_400.0
SIGNALS_KEPT = timedelta(days=1000)
"""What is usual of an asset that is backed up once a week, too."""
DRILLS_KEPT = timedelta(days=400)
"""What was proved last of an asset is kept beyond that."""

log = structlog.get_logger(__name__)


class Upkeep:
    """The recurring duties of a worker."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        operations: Operations,
        dispatcher: Dispatcher,
        membership: Membership,
        clock: Clock,
        *,
        keep_operations: timedelta,
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._operations = operations
        self._renewal = Renewal(catalog, operations)
        self._dispatcher = dispatcher
        self._timekeeper = Timekeeper(catalog, clock)
        self._membership = membership
        self._clock = clock
        self._keep = keep_operations

    @asynccontextmanager
    async def alive(self, on_failure: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Give signs of life in the background, also while this worker begins and ends; otherwise as `running`."""
        async with in_background(self._do(self._membership.beat, self._membership.pause, on_failure)):
            yield

    @asynccontextmanager
    async def running(self, on_failure: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Do the duties in the background; `on_failure` gets the reason when this worker must end."""
        duties = (
            (self._look_after_others, self._membership.pause),
            (self._membership.rescue, max(RESCUE_SECONDS, self._membership.pause)),
            (self._renewal.refresh_exports, RENEW_SECONDS),
            (self._dispatcher.sweep, SWEEP_SECONDS),
            (self._timekeeper.keep_time, TIME_SECONDS),
            (self._purge, PURGE_SECONDS),
        )
        async with in_background(*(self._do(duty, pause, on_failure) for duty, pause in duties)):
            yield

    async def _do(
        self, duty: Callable[[], Awaitable[None]], pause: float, on_failure: Callable[[Exception], None]
    ) -> None:
        rest = partial(self._clock.sleep, pause)
        try:
            await again_and_again(duty.__name__.strip("_"), duty, rest, ends=(Conflict,))
        except Conflict as error:
            on_failure(error)

    async def _look_after_others(self) -> None:
        for system_id in await self._systems_of(await self._membership.look_after_others()):
            await self._operations.reconcile_after_crash(system_id)

    async def _systems_of(self, operation_ids: list[str]) -> set[str]:
        known = [await self._catalog.operations.known(operation_id) for operation_id in operation_ids]
        return {item.system_id for item in known if item is not None}

    async def _purge(self) -> None:
        """Forget what nobody will ask for."""
        now = await self._catalog.database.now()
        await self._engine.purge(now - JOBS_KEPT)
        await self._catalog.operations.purge(now - self._keep)
        await self._catalog.approvals.purge(now - self._keep)
        await self._catalog.signals.purge(now - SIGNALS_KEPT)
        await self._catalog.drills.purge(now - DRILLS_KEPT)
        await self._catalog.cooling.purge()
        await self._catalog.answers.purge(now)
        await self._catalog.workers.forget(WORKERS_KEPT)
