"""What server and worker have in common: waiting for the database at the start, and leaving in time at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from snapkeep.catalog.database_url import address_of, parse_url
from snapkeep.catalog.outages import explained, is_outage
from snapkeep.model.errors import SnapkeepError, Unavailable
from snapkeep.operations.clock import Clock
from snapkeep.server.settings import ProcessSettings

T = TypeVar("T")

LEAVE_SECONDS = 9.0
"""Longest way to the end. What was not parked by then goes on as after a crash."""

RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def patiently(
    opener: Callable[[], AbstractAsyncContextManager[T]], settings: ProcessSettings, clock: Clock
) -> AsyncIterator[T]:
    """Open what needs the database. While that is away it is tried again, all of it. Raises Unavailable in the end."""
    async with AsyncExitStack() as stack:
        yield await _enter(stack, opener, settings, clock)


async def _enter(
    stack: AsyncExitStack, opener: Callable[[], AbstractAsyncContextManager[T]], settings: ProcessSettings, clock: Clock
) -> T:
    until = clock.monotonic() + settings.database_seconds
    while True:
        try:
            return await stack.enter_async_context(opener())
        except Exception as error:
            if not isinstance(error, Unavailable) and not is_outage(error):
                raise
            if clock.monotonic() >= until:
                raise await _explained(error, settings) from error
            log.warning("the database cannot be reached; it is tried again", reason=str(error))
        await clock.sleep(RETRY_SECONDS)


async def _explained(error: Exception, settings: ProcessSettings) -> SnapkeepError:
    if isinstance(error, Unavailable):
        return error
    url = parse_url(settings.catalog_url())
    if isinstance(error, SQLAlchemyError):
        return await explained(error, url)
    return Unavailable(  # the engine's own connection, in the driver's words
        f"The database at {address_of(url)} went away", vendor_message=" ".join(str(error).split())
    )


def leave_in_time(status: int = 0) -> None:
    """End the process after `LEAVE_SECONDS`, if it has not ended by then."""

    def end() -> None:
        log.error("the end took too long; what was under way goes on at the next start")
        os._exit(status)

    timer = threading.Timer(LEAVE_SECONDS, end)
    timer.daemon = True
    timer.start()
