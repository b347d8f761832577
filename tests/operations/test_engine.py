from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from snapkeep.operations.engine import Engine, Lane, WorkerSettings


class Tidy:
    """Work that never ends by itself, and needs a thread to leave nothing behind."""

    def __init__(self, leftover: Path) -> None:
        self.leftover = leftover
        self.begun = asyncio.Event()

    async def start(self, operation_id: str, generation: int) -> dict[str, Any]:
        await asyncio.to_thread(self.leftover.touch)
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(self.leftover.unlink)
        return {}

    async def finish(self, operation_id: str, generation: int, started: dict[str, Any]) -> None:
        raise AssertionError("it never ends")


async def test_what_is_parked_and_what_comes_after_the_engine_has_threads(tmp_path: Path) -> None:
    """Also a second engine in the same loop."""
    database = sa.URL.create("sqlite", database=str(tmp_path / "engine.sqlite"))
    for number in range(2):
        work = Tidy(tmp_path / "leftover")
        engine = Engine(WorkerSettings(name="one"))
        async with engine.running(database, work):
            await engine.submit(f"operation-{number}", 1, queue="default", lane=Lane.OPERATIONS, key="a system")
            await asyncio.wait_for(work.begun.wait(), 20)
        assert not work.leftover.exists()
        assert await asyncio.to_thread(lambda: "done") == "done"
