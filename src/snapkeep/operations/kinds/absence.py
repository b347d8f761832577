"""What is gone for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from snapkeep.model.assets import Asset
from snapkeep.model.snapshots import Snapshot
from snapkeep.operations.run import Run

AT_ONCE = 8
"""How many are asked for at the same time."""
SURE_SECONDS = 3.0
"""A system may deny for a moment what is there: only what it denies twice, with this pause between, is gone."""


async def surely_gone(run: Run, suspects: Sequence[tuple[Asset, Snapshot | None]]) -> list[bool]:
    """Ask the system for each asset, or snapshot of it; say which of them are gone."""
    discover, gate = (await run.roles()).discover, asyncio.Semaphore(AT_ONCE)

    async def is_gone(suspect: tuple[Asset, Snapshot | None]) -> bool:
        async with gate:
            await run.check_cancel()
            return not await run.wait("asking for what was not seen", lambda: discover.exists(*suspect))

    gone = await _all(is_gone(suspect) for suspect in suspects)
    if not any(gone):
        return gone
    await run.pause(SURE_SECONDS)
    again = iter(await _all(is_gone(one) for one, first in zip(suspects, gone, strict=True) if first))
    return [first and next(again) for first in gone]


async def _all(questions: Iterable[Coroutine[Any, Any, bool]]) -> list[bool]:
    """Return the answers; the first error ends the other questions, and is raised as it is."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
