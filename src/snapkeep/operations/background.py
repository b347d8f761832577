"""What a server or worker does again and again, until it ends; a database that is away stops none of it for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import structlog

from snapkeep.catalog.outages import is_outage

log = structlog.get_logger(__name__)


@asynccontextmanager
async def in_background(*works: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Let all of them run inside; they are cancelled at the end, and waited for."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def again_and_again(
    duty: str,
    do: Callable[[], Awaitable[object]],
    rest: Callable[[], Awaitable[object]],
    *,
    ends: tuple[type[Exception], ...] = (),
) -> None:
    """Do something, rest, and do it again. What it raises goes to the log: an outage of the database once.

    `duty`: what it is, for the log. Raises what it raises of `ends`.
    """
    away = False
    while True:
        try:
            await do()
        except ends:
            raise
        except Exception as error:
            if not is_outage(error):
                log.exception("it failed, and is tried again", duty=duty)
            elif not away:
                log.warning("the database is away", duty=duty, reason=str(error))
            away = is_outage(error)
        else:
            if away:
                log.info("the database is back", duty=duty)
            away = False
        await rest()
