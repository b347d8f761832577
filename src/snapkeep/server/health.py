"""Health: does the process live, and can it work? Answers without a token, so they say nothing but that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import WorkerState

T = TypeVar("T")

log = structlog.get_logger(__name__)

WAIT_SECONDS = 2.0
"""How long somebody who asks waits for a check."""

GIVE_UP_SECONDS = 30.0
"""How long a question goes on when nobody waits any more; then it is asked anew, on another connection."""


class Shared(Generic[T]):
    """A question that is asked once at a time, however many want to know: a dead database collects no waiters."""

    def __init__(self, ask: Callable[[], Awaitable[T]], *, wait: float, keep: float = 0.0) -> None:
        """`wait`: longest time for an answer; `keep`: how long it is used again; both in seconds."""
        self._ask = ask
        self._wait = wait
        self._keep = keep
        self._task: asyncio.Task[T] | None = None
        self._good_until = 0.0

    async def answer(self) -> T:
        """Return the answer. Raises TimeoutError, or what asking raised."""
        if self._task is None or (self._task.done() and time.monotonic() >= self._good_until):
            self._task = asyncio.create_task(self._asked())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # somebody looked at it
        task = self._task
        done, _ = await asyncio.wait({task}, timeout=self._wait)
        if not done:
            raise TimeoutError
        return task.result()

    async def _asked(self) -> T:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            answer = await self._ask()
        self._good_until = time.monotonic() + self._keep
        return answer


class Health:
    """The checks of this process."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        engine_runs: Callable[[], Awaitable[bool]],
        worker: Callable[[], tuple[str, str]],
        takeover_seconds: float,
    ) -> None:
        """`worker`: gives name and incarnation of this process, as they are now."""

        async def is_alive() -> bool:
            return any(
                (found.name, found.incarnation) == worker() and found.state(takeover_seconds) is WorkerState.ALIVE
                for found in await catalog.workers.find()
            )

        asked = {"database": catalog.statistics.answers, "engine": engine_runs, "worker": is_alive}
        self._checks = {name: Shared(ask, wait=WAIT_SECONDS) for name, ask in asked.items()}
        self._failed: set[str] = set()

    async def checks(self) -> dict[str, bool]:
        """Return which checks are well, within WAIT_SECONDS."""
        found = await asyncio.gather(*(check.answer() for check in self._checks.values()), return_exceptions=True)
        self._tell(dict(zip(self._checks, found, strict=True)))
        return {name: answer is True for name, answer in zip(self._checks, found, strict=True)}

    def _tell(self, found: dict[str, bool | BaseException]) -> None:
        """Log what changed: who asks is not told why."""
        for name, answer in found.items():
            if answer is not True and name not in self._failed:
                reason = f"{type(answer).__name__}: {answer}" if isinstance(answer, BaseException) else "not alive"
                log.warning("not ready", check=name, reason=reason)
            if answer is True and name in self._failed:
                log.info("ready again", check=name)
        self._failed = {name for name, answer in found.items() if answer is not True}


router = APIRouter(prefix="/health", include_in_schema=False)


@router.get("/live")
async def live() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Say whether the server can work: 200, or 503 naming the checks that failed."""
    health: Health = request.app.state.context.health
    checks = await health.checks()
    well = all(checks.values())
    words = {name: "ok" if good else "failed" for name, good in checks.items()}
    return JSONResponse({"status": "ok" if well else "failed", "checks": words}, 200 if well else 503)
