"""Opening the whole: connections, engine, dispatcher, membership, upkeep, as they need each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa
import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.dispatch import Dispatcher
from snapkeep.operations.engine import Engine, WorkerSettings
from snapkeep.operations.host import Host
from snapkeep.operations.membership import Membership
from snapkeep.operations.mounts import unmount_leftovers
from snapkeep.operations.run import Limits
from snapkeep.operations.runner import Runner
from snapkeep.operations.scratch import remove_leftovers
from snapkeep.operations.service import Operations
from snapkeep.operations.upkeep import Upkeep

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsSettings:
    """How operations are run in this process."""

    engine: sa.URL
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    limits: Limits = field(default_factory=Limits)
    host: Host
    keep_operations: timedelta = timedelta(days=90)
    alone: bool = True
    """No other process of this name can live: a data directory was claimed."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The parts that others use."""

    operations: Operations
    connections: Connections
    engine: Engine
    membership: Membership
    host: Host


@asynccontextmanager
async def open_operations(
    catalog: Catalog,
    settings: OperationsSettings,
    *,
    clock: Clock | None = None,
    on_failure: Callable[[Exception], None] = lambda _: None,
) -> AsyncIterator[Opened]:
    """Run operations over a catalog; what an earlier process, or a dead worker, left unfinished goes on."""
    clock = clock or Clock()
    connections = Connections(catalog.systems, clock, settings.host.references)
    engine = Engine(settings.worker)
    dispatcher = Dispatcher(catalog, engine, clock)
    operations = Operations(catalog, connections, dispatcher, clock, settings.worker.takeover_seconds)
    runner = Runner(catalog, connections, dispatcher, clock, settings.limits, settings.host, operations)
    membership = Membership(catalog, engine, clock, settings.worker)
    upkeep = Upkeep(
        catalog, engine, operations, dispatcher, membership, clock, keep_operations=settings.keep_operations
    )
    crashed = await membership.join(alone=settings.alone)
    try:
        async with upkeep.alive(on_failure):
            await unmount_leftovers(settings.host)
            await remove_leftovers(settings.host)
            async with engine.running(settings.engine, runner):
                if crashed is not None:
                    for system_id in await catalog.operations.systems_of(crashed.name):
                        await operations.reconcile_after_crash(system_id)
                async with upkeep.running(on_failure):
                    yield Opened(operations, connections, engine, membership, settings.host)
                await dispatcher.settle()
                leaving = "leaving; what is under way goes on elsewhere, or at the next start"
                log.info(leaving, worker=settings.worker.name)
        await membership.leave()
    finally:
        await connections.close_all()
