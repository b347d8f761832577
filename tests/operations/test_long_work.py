"""Work in a thread: as long as it goes on, it is not too long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from snapkeep.catalog.operations import Signals
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import Timeout
from snapkeep.operations import run as running
from snapkeep.operations.clock import Clock
from snapkeep.operations.host import Host
from snapkeep.operations.run import Limits, Run, Unwanted


class Quiet:
    """A catalog in which nobody asks for anything."""

    @property
    def operations(self) -> Quiet:
        return self

    async def report(self, *_: object) -> Signals:
        return Signals(cancel=False, pause=False)

    async def signals(self, *_: object) -> Signals:
        return Signals(cancel=False, pause=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CANCEL_SECONDS", 0.05)


def in_thread(work: Callable[[Callable[[], None]], Any], tmp_path: Path) -> Any:
    """Run it in an operation that may last half a second."""
    operation = OperationRecord(
        id="1", kind="backup", system_id="1", system_name="files1", asset_id=None, target="", request={}, requester="",
        state=OperationState.RUNNING, phase="", progress=None, items=None, cursor=None, result=None, error=None,
        cancel_requested=False, pause_requested=False, queue="default", worker=None, attempt=2, generation=0,
        exclusive=None, turn=None, digest=None, created_at=datetime.now(UTC), started_at=None, ended_at=None,
    )  # fmt: skip
    quiet: Any = Quiet()
    clock = Clock()

    async def unconnected(system_id: str) -> Any:
        raise AssertionError

    async def wait() -> Any:
        run = Run(
            operation, quiet, unconnected, clock, Limits(deadline=0.5), Host(directory=tmp_path), cast("Any", None),
            begun=clock.monotonic(), cancellable=True, pausable=False,
        )  # fmt: skip
        done = await run.in_thread(work, lambda: ("working", None))
        await run.check_cancel()  # there is time for what comes afterwards, too
        return done

    return asyncio.run(wait())


def test_what_goes_on_may_last(tmp_path: Path) -> None:
    def work(stop: Callable[[], None]) -> str:
        for _ in range(30):
            time.sleep(0.05)
            stop()
        return "done"

    assert in_thread(work, tmp_path) == "done"


def test_what_stands_still_is_ended(tmp_path: Path) -> None:
    ended = threading.Event()

    def work(stop: Callable[[], None]) -> None:
        time.sleep(1)
        try:
            stop()
        except Unwanted:
            ended.set()
            raise

    with pytest.raises(Timeout):
        in_thread(work, tmp_path)
    assert ended.is_set()
