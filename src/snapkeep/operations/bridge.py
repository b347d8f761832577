"""From a thread to the loop, which has the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import ChangeListRecord
from snapkeep.changes.store import read_blocks
from snapkeep.model.changes import Change

T = TypeVar("T")


def in_loop(loop: asyncio.AbstractEventLoop, ask: Coroutine[Any, Any, T]) -> T:
    """Have the loop do something for a thread, and wait for it."""
    return asyncio.run_coroutine_threadsafe(ask, loop).result()


def changes_for_thread(catalog: Catalog, record: ChangeListRecord) -> Callable[[], Iterator[Change]]:
    """Return what a thread calls to read a change list, which arrives block by block; called again, it begins anew."""
    loop = asyncio.get_running_loop()

    def changes() -> Iterator[Change]:
        blocks = read_blocks(catalog, record)

        async def following() -> list[Change] | None:
            return await anext(blocks, None)

        while (block := in_loop(loop, following())) is not None:
            yield from block

    return changes
