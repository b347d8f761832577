"""`snapkeep worker`: one more process that runs operations, on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from snapkeep.backup.heap import share_arenas
from snapkeep.catalog.catalog import open_catalog
from snapkeep.model.errors import InvalidInput
from snapkeep.operations.clock import Clock
from snapkeep.operations.open import open_operations
from snapkeep.server import logs
from snapkeep.server.keys import watched_keys
from snapkeep.server.metrics import serve_metrics
from snapkeep.server.opening import leave_in_time, patiently
from snapkeep.server.settings import WorkerProcessSettings

log = structlog.get_logger(__name__)


def run_worker(settings: WorkerProcessSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises Conflict, InvalidInput or Unavailable when it cannot start or go on."""
    os.umask(0o077)
    logs.configure(settings.log_format, settings.log_level)
    settings.protect_process()
    share_arenas()
    if settings.catalog_url().startswith("sqlite"):
        raise InvalidInput(
            "Workers share a catalog on PostgreSQL; on SQLite the server alone runs operations",
            next_step="Give --database-url-file (or SNAPKEEP_DATABASE_URL), to the server too.",
        )
    if not settings.queues:
        raise InvalidInput("A worker without queues would do nothing", next_step="Give it --queues.")
    with contextlib.ExitStack() as stack:
        if settings.metrics_port is not None:
            stack.enter_context(serve_metrics(settings.metrics_port))
        asyncio.run(_work(settings))


async def _work(settings: WorkerProcessSettings) -> None:
    ended = asyncio.Event()
    failed: list[Exception] = []

    def end(error: Exception | None = None) -> None:
        if error is not None:
            failed.append(error)
        leave_in_time(1 if failed else 0)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    clock = Clock()
    keys = settings.keys()

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        operations = settings.operations(settings.name, settings.queues, alone=False)
        async with (
            open_catalog(settings.catalog_url(), keys) as catalog,
            open_operations(catalog, operations, clock=clock, on_failure=end),
            watched_keys(catalog, settings.name, seals=False),
        ):
            yield

    async with patiently(opened, settings, clock):
        gc.freeze()
        log.info("ready", worker=settings.name, queues=",".join(settings.queues))
        await ended.wait()
    if failed:
        raise failed[0]
