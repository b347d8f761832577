"""What server and worker have in common: waiting for the database at the start, and leaving in time at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.model.errors import Unavailable
from snapkeep.operations.clock import Clock
from snapkeep.server.settings import ProcessSettings

LEAVE_SECONDS = 9.0
"""Longest way to the end. What was not parked by then goes on as after a crash."""

RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_catalog_patiently(settings: ProcessSettings, key: bytes, clock: Clock) -> AsyncIterator[Catalog]:
    """Open the catalog; a database that cannot be reached yet is waited for. Raises Unavailable and what it raises."""
    until = clock.monotonic() + settings.database_seconds
    async with AsyncExitStack() as stack:
        catalog: Catalog | None = None
        while catalog is None:
            try:
                catalog = await stack.enter_async_context(open_catalog(settings.catalog_url(), key))
            except Unavailable as error:
                if clock.monotonic() >= until:
                    raise
                log.warning("the database cannot be reached; it is tried again", reason=str(error))
                await clock.sleep(RETRY_SECONDS)
        yield catalog


def leave_in_time(status: int = 0) -> None:
    """End the process after `LEAVE_SECONDS`, if it has not ended by then."""

    def end() -> None:
        log.error("the end took too long; what was under way goes on at the next start")
        os._exit(status)

    timer = threading.Timer(LEAVE_SECONDS, end)
    timer.daemon = True
    timer.start()
