"""One operation while it runs: its context, and how it waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.operations import Signals
from snapkeep.catalog.records import AssetRecord, OperationRecord, OperationState, SnapshotRecord
from snapkeep.model.errors import Conflict, SnapkeepError, Timeout, Unavailable
from snapkeep.model.work import Pending
from snapkeep.operations import metrics
from snapkeep.operations.clock import Clock
from snapkeep.operations.host import Host
from snapkeep.operations.requester import Requester
from snapkeep.plugin.roles import Roles

if TYPE_CHECKING:
    from snapkeep.operations.service import Operations

T = TypeVar("T")
Told = tuple[str, float | None]
"""Phase and progress."""

log = structlog.get_logger(__name__)

CANCEL_SECONDS = 1.0
"""How often a waiting operation looks whether it was cancelled."""

PART_SECONDS = 0.25
"""How often it is looked at an operation that does a part of another one."""

REPORT_SECONDS = 1.0
"""How often its progress is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, in seconds."""

    deadline: float = 6 * 3600.0
    """The whole operation; where it moves data, without a sign of life."""
    outage: float = 300.0
    """A system that cannot be reached while its work goes on."""
    stall: float = 1800.0
    """Work that is pending without any progress."""
    undo: float = 300.0
    """Cleaning up after a cancel or a failure."""
    call: float = 120.0
    """One call to a plug-in."""


class Unwanted(Exception):
    """Ends the work of a thread that nobody waits for any more."""


class Cancelled(Exception):
    """Somebody asked to cancel this operation."""


class Paused(Exception):
    """Somebody asked to pause this operation."""


class Run:
    """What a handler needs: the operation, the catalog, the connected system, this host, and how to wait."""

    def __init__(
        self,
        operation: OperationRecord,
        catalog: Catalog,
        connect: Callable[[str], Awaitable[Roles]],
        clock: Clock,
        limits: Limits,
        host: Host,
        operations: Operations,
        *,
        begun: float,
        cancellable: bool,
        pausable: bool,
    ) -> None:
        """`connect`: gives the roles of a system. `begun`: when this process began, by the clock that cannot jump."""
        self.operation = operation
        self.catalog = catalog
        self.clock = clock
        self.limits = limits
        self.host = host
        self.operations = operations
        """For those that have other operations do a part of their work."""
        self.uncertain = operation.attempt > 1
        """Whether the system may have done what was asked, although no answer came."""
        self.unasked = False
        """Whether it is known that the system was not asked for anything yet."""
        self._connect = connect
        self._deadline = begun + limits.deadline
        self._cancellable = cancellable
        self._pausable = pausable
        asked = operation.cancel_requested or operation.pause_requested  # known from the claim: no need to look now
        self._next_look = clock.monotonic() + (0.0 if asked else CANCEL_SECONDS)
        self._reported: tuple[str, float | None] = (operation.phase, None)
        self._next_report = clock.monotonic() + REPORT_SECONDS
        self._heard: Signals | None = None

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for."""
        return self.operation.request

    async def roles(self, system_id: str | None = None) -> Roles:
        """Return the connected system, or another one."""
        return await self.call(self._connect(system_id or self.operation.system_id))

    async def asset(self) -> AssetRecord:
        """Return the asset that the request names."""
        return await self.catalog.inventory.asset(self.request["asset_id"])

    async def snapshot(self, key: str = "snapshot_id") -> SnapshotRecord:
        """Return the snapshot that the request names."""
        return await self.catalog.inventory.snapshot(self.request[key])

    def request_id(self, label: str) -> str:
        """Return an idempotency id: the same whenever this operation makes this call."""
        return str(uuid.uuid5(uuid.UUID(self.operation.id), label))

    async def report(self, phase: str, progress: float | None = None) -> None:
        """Show people what goes on: another phase at once, progress within it from time to time."""
        now = self.clock.monotonic()
        if (phase, progress) == self._reported or (phase == self._reported[0] and now < self._next_report):
            return
        self._reported, self._next_report = (phase, progress), now + REPORT_SECONDS
        self._heard = await self.catalog.operations.report(self.operation.id, phase, progress)
        asked = self._heard.cancel or self._heard.pause
        self._next_look = self.clock.monotonic() + (0.0 if asked else CANCEL_SECONDS)
        self._heard = self._heard if asked else None

    async def check_cancel(self) -> None:
        """Raise `Cancelled` or `Paused` when somebody asked for it, Timeout when the deadline has passed. Cheap."""
        if self.clock.monotonic() >= self._deadline:
            raise Timeout(f"The operation did not end within {self.limits.deadline:g} s")
        await self.look_for_signals()

    async def look_for_signals(self) -> None:
        """Raise `Cancelled` when somebody asked for it and it can be taken back, `Paused` likewise.

        Raises Superseded when another worker runs the operation meanwhile.
        """
        now = self.clock.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + CANCEL_SECONDS
        signals = self._heard or await self.catalog.operations.signals(self.operation.id)
        self._heard = None
        if signals.cancel and self._cancellable:
            raise Cancelled
        if signals.pause and self._pausable:
            raise Paused

    def past_cancel(self) -> None:
        """From here on a cancel comes too late: what was asked for is there, and the rest of the work is done."""
        self._cancellable = False

    @asynccontextmanager
    async def undoing(self) -> AsyncIterator[None]:
        """Inside, nobody is asked any more for cancel or pause, and the deadline is the one for cleaning up."""
        before = self._deadline, self._cancellable, self._pausable
        self._deadline = self.clock.monotonic() + self.limits.undo
        self._cancellable = self._pausable = False
        try:
            yield
        finally:
            self._deadline, self._cancellable, self._pausable = before

    async def call(self, call: Awaitable[T], *, interruptible: bool = True, more_seconds: float = 0.0) -> T:
        """Await one call to a plug-in, at most `limits.call` seconds, and those that it may take on purpose.

        A cancel or a pause ends it at once, unless it is not `interruptible`: it has an effect that must be known.
        Raises what the call raises, Unavailable when it hangs, and what `check_cancel` raises.
        """
        task = asyncio.ensure_future(call)
        seconds = self.limits.call + more_seconds
        end = self.clock.monotonic() + seconds
        try:
            while not (await asyncio.wait({task}, timeout=CANCEL_SECONDS))[0]:
                if self.clock.monotonic() >= end:
                    raise Unavailable(f"The system did not answer within {seconds:g} s")
                if interruptible:
                    await self.check_cancel()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CANCEL_SECONDS)

    async def persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the system answers, as long as an outage may last. Raises what `call` and the answer raise."""
        outage = Outage(self)
        while True:
            try:
                return await self.call(ask())
            except Unavailable as error:
                await outage.wait_or_raise(error)

    async def each(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield what a plug-in yields; the way to each item is one `call`."""
        try:
            while (item := await self.call(_next(items))) is not None:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                with contextlib.suppress(RuntimeError):  # it hangs in its last call, and was left there
                    await items.aclose()

    async def wait(self, phase: str, poll: Callable[[], Awaitable[Pending | T]]) -> T:
        """Poll until there is a result; survive an outage; look at cancel and deadlines in between.

        Raises whatever the poll raises, Unavailable after an outage that is too long, Timeout.
        """
        outage = Outage(self)
        stalled_since: tuple[float | None, float] = (None, self.clock.monotonic())
        while True:
            await self.look_for_signals()  # the deadline comes after a poll: what ended long ago is no failure
            try:
                answer = await self.call(poll())
            except Unavailable as error:
                await outage.wait_or_raise(error)
                continue
            outage.over()
            if not isinstance(answer, Pending):
                return answer
            if answer.progress != stalled_since[0]:
                stalled_since = (answer.progress, self.clock.monotonic())
            elif self.clock.monotonic() - stalled_since[1] > self.limits.stall:
                raise Timeout(
                    f"{phase}: the system made no progress for {self.limits.stall:g} s",
                    next_step="Look at the task on the system itself; it may be stuck.",
                )
            await self.check_cancel()
            await self.report(phase, answer.progress)
            await self.pause(answer.after)

    async def part(self, label: str, ask: Callable[[Requester], Awaitable[OperationRecord]]) -> OperationRecord:
        """Have another operation do a part of this one, and wait for its end; asked again, it is found again.

        A cancel of this one cancels it. Raises what it failed with, Conflict when somebody cancelled it.
        """
        name = f"{self.operation.kind} {self.operation.id}"
        asked = await ask(Requester(name, self.request_id(label), is_operation=True))
        try:
            while not asked.state.ended:
                await self.report(f"{label}: {asked.phase}", asked.progress)
                await self.pause(PART_SECONDS)
                asked = await self.catalog.operations.get(asked.id)
        except (Cancelled, Timeout):
            with contextlib.suppress(Conflict):
                await self.operations.cancel(asked)
            raise
        if asked.state is OperationState.CANCELLED:
            raise Conflict(f"{label}: operation {asked.id} was cancelled", next_step="Ask for this one again.")
        if asked.error is not None:
            raise SnapkeepError.from_dict(asked.error).with_context(label)
        return asked

    async def ended_part(self, label: str) -> OperationRecord | None:
        """Return an operation that `part` has asked for, once it has ended; None when it was never asked for."""
        asked = await self.catalog.operations.known(self.request_id(label))
        while asked is not None and not asked.state.ended:
            await self.pause(PART_SECONDS)
            asked = await self.catalog.operations.known(asked.id)
        return asked

    async def in_thread(self, work: Callable[[Callable[[], None]], T], tell: Callable[[], Told]) -> T:
        """Run long work of ours in a thread. It is given a function to call often, that raises when it is to end.

        `tell` says from time to time how far it is. Raises what the work raises, and what `check_cancel` raises. The
        deadline counts from that function's last call: data that is moved takes the time that it takes.
        """
        unwanted = threading.Event()
        alive = threading.Event()

        def stop() -> None:
            alive.set()
            if unwanted.is_set():
                raise Unwanted

        thread = ThreadPoolExecutor(1, "mover")  # of its own: those of the loop are for what is short
        task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(thread, work, stop))
        try:
            while not (await asyncio.wait({task}, timeout=CANCEL_SECONDS))[0]:
                await self.report(*tell())
                if alive.is_set():
                    alive.clear()
                    self._deadline = self.clock.monotonic() + self.limits.deadline
                await self.check_cancel()
            return task.result()
        finally:
            if not task.done():
                unwanted.set()
                await asyncio.wait({task})
            thread.shutdown(wait=False)

    async def pause(self, seconds: float) -> None:
        """Sleep, in pieces short enough to notice a cancel."""
        until = self.clock.monotonic() + seconds
        while (left := until - self.clock.monotonic()) > 0:
            await self.clock.sleep(min(left, CANCEL_SECONDS))
            await self.check_cancel()


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


class Outage:
    """Counts how long a system cannot be reached, and waits with back-off and jitter."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._since: float | None = None
        self._tries = 0

    def over(self) -> None:
        """The system answered."""
        self._since, self._tries = None, 0

    async def wait_or_raise(self, error: Unavailable) -> None:
        """Wait before the next try; raise `error` when the outage is too long."""
        now = self._run.clock.monotonic()
        self._since = self._since or now
        left = self._run.limits.outage - (now - self._since)
        if left <= 0:
            raise error
        self._tries += 1
        wanted = error.details.get("retry_after")
        seconds = min(left, float(wanted) if wanted is not None else min(30.0, 0.5 * 2 ** min(self._tries, 8)))
        metrics.retried("system_unavailable")
        log.warning("the system cannot be reached; tried again", reason=error.message, code=error.code)
        await self._run.report(f"the system cannot be reached, trying again: {error.message}")
        await self._run.pause(seconds * random.uniform(0.8, 1.2))
