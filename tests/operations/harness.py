"""Operations whose process dies, or falls asleep, at any await: real catalog, real plug-in, real simulator.

The harness plays the engine's part: a step that returned is recorded, one that died is run again by another worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import json
import types
import uuid
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import AssetRecord, OperationRecord, SnapshotRecord
from snapkeep.model.snapshots import Snapshot, SnapshotKind
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.dispatch import Dispatcher
from snapkeep.operations.engine import Engine, Lane, WorkerSettings
from snapkeep.operations.host import Host
from snapkeep.operations.references import References
from snapkeep.operations.run import Limits
from snapkeep.operations.runner import HANDLERS, Runner
from snapkeep.operations.service import Operations
from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

T = TypeVar("T")
Json = dict[str, Any]

KEY = bytes(32)
SYSTEM = "files1"
SHARE = "projects"
THREADS = ThreadPoolExecutor(4)
"""Ours: the engine puts its own below the loop, and closes it at its end."""
RATE = 20.0
"""How much faster than the real one the clock of the tests goes."""


class QuickClock(Clock):
    """A clock on which pauses pass quickly."""

    def monotonic(self) -> float:
        return super().monotonic() * RATE

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / RATE)


# -- lives -------------------------------------------------------------------------------------------------------------
class Died(BaseException):
    """The process is no more."""


class Life:
    """What one process does: all tasks that come from it. It ends, or falls asleep, at its n-th await."""

    def __init__(
        self,
        *,
        dies_at: int | None = None,
        sleeps_at: int | None = None,
        may_sleep: Callable[[], bool] = lambda: True,
    ) -> None:
        self.dies_at = dies_at
        self.sleeps_at = sleeps_at
        self.awaits = 0
        self.dead = False
        self.asleep = asyncio.Event()
        self.may_sleep = may_sleep
        self.tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()

    async def lead(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the work; None when the life ended before, or when the work was given up."""
        context = contextvars.copy_context()
        context.run(_LIFE.set, self)
        main = asyncio.get_running_loop().create_task(work, context=context)
        await asyncio.wait({main})
        while left := self.tasks - {main}:
            await asyncio.gather(*left, return_exceptions=True)
            self.tasks -= left
        if self.dead:
            gc.collect(1)  # cursors in the traceback hold the lock of SQLite, as no dead process does
        if main.cancelled() or isinstance(main.exception(), Died):
            return None
        return main.result()

    async def falls_asleep(self, leading: asyncio.Task[Any]) -> bool:
        """Wait until it sleeps; false when it came to its end before."""
        asleep = asyncio.create_task(self.asleep.wait())
        await asyncio.wait({asleep, leading}, return_when=asyncio.FIRST_COMPLETED)
        asleep.cancel()
        return self.asleep.is_set()

    def wake(self) -> None:
        """Go on after the sleep, as if nothing had been."""
        self._wake.set()

    async def after_await(self) -> None:
        """Called by every task of this life, whenever what it awaited has come."""
        self.awaits += 1
        if self.awaits == self.dies_at:
            self.dead = True
        if self.dead:
            raise Died
        if self.sleeps_at is not None and self.awaits >= self.sleeps_at and self.may_sleep():
            self.asleep.set()
        if self.asleep.is_set():
            await self._wake.wait()


_LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


def make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task; one that is made in a life belongs to it."""
    context = options.get("context")
    life = context.get(_LIFE) if context is not None else _LIFE.get()
    if life is None or life.dead:  # what is begun after its death is cleaning up
        return asyncio.Task(work, loop=loop, **options)
    task = asyncio.Task(_mortal(work, life), loop=loop, **options)
    life.tasks.add(task)
    return task


async def _mortal(work: Coroutine[Any, Any, T], life: Life) -> T:
    with suppress(Died):
        result: T = await _drive(work, life)
        return result
    raise Died


@types.coroutine
def _drive(work: Coroutine[Any, Any, Any], life: Life) -> Generator[Any, Any, Any]:
    """Run `work` await by await; what its life has to say comes after each. Cleaning up after its death is free."""
    error: BaseException | None = None
    told = False
    while True:
        try:
            awaited = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        try:
            yield awaited
            if not told:
                yield from life.after_await().__await__()
        except BaseException as caught:
            error, told = caught, told or isinstance(caught, Died)


# -- the world ---------------------------------------------------------------------------------------------------------
@dataclass
class Job:
    """An operation as the engine knows it: what its first step returned, and whether it came to its end."""

    id: str
    generation: int = 0
    started: Json | None = None
    over: bool = False


class _NoEngine(Engine):
    """Takes operations and leaves it to the harness to run them."""

    async def submit(self, operation_id: str, generation: int, *, queue: str, lane: Lane, key: str) -> None:
        pass


LIMITS = Limits(outage=200.0, stall=600.0, undo=200.0)


class World:
    """One catalog with one system, discovered, and workers that run operations on it without an engine."""

    def __init__(self, simulator: SimulatorProcess, catalog: Catalog) -> None:
        self.simulator = simulator
        self.catalog = catalog
        self.clock = QuickClock()
        self.connections = Connections(catalog.systems, self.clock, References())
        self.dispatcher = Dispatcher(catalog, _NoEngine(WorkerSettings()), self.clock)
        self._numbers = itertools.count(1)

    # -- operations ------------------------------------------------------------------------------------------------
    async def ask(self, kind: str, **request: Any) -> Job:
        """Record the intent, and give it its turn."""
        system = await self.catalog.systems.get(SYSTEM)
        operation = await self.catalog.operations.add(
            operation_id=self.clock.new_id(),
            kind=kind,
            system_id=system.id,
            system_name=system.name,
            queue=system.queue,
            target=kind,
            request=request,
            requester="test",
            exclusive=HANDLERS[kind].turn_key(request),
            now=self.clock.now(),
        )
        if operation.exclusive is not None:
            await self.dispatcher.next_turn(operation.exclusive)
        return Job(operation.id)

    async def run(self, job: Job, life: Life | None = None) -> bool:
        """Run what is left of a job in a new worker; say whether it came to its end."""
        worker = f"w{next(self._numbers)}"
        runner = self._runner(worker)

        async def work() -> bool:
            started = job.started
            if started is None:
                started = json.loads(json.dumps(await runner.start(job.id, job.generation)))
                await asyncio.sleep(0)  # a process may die between the end of a step and its record
                job.started = started
            await runner.finish(job.id, job.generation, started)
            await asyncio.sleep(0)
            job.over = True
            return True

        return await (life or Life()).lead(work()) or False

    def _runner(self, worker: str) -> Runner:
        operations = Operations(self.catalog, self.connections, self.dispatcher, self.clock, 15.0)
        host = Host(name=worker, directory=Path("/nonexistent"))
        return Runner(self.catalog, self.connections, self.dispatcher, self.clock, LIMITS, host, operations)

    async def begin(self, job: Job) -> None:
        """Run the first step of a job only."""
        runner = self._runner("first")
        job.started = json.loads(json.dumps(await runner.start(job.id, job.generation)))

    async def done(self, kind: str, **request: Any) -> OperationRecord:
        """Ask and run to the end, which must be a good one."""
        job = await self.ask(kind, **request)
        assert await self.run(job)
        operation = await self.operation(job)
        assert operation.state == "succeeded", operation.error
        return operation

    async def operation(self, job: Job) -> OperationRecord:
        return await self.catalog.operations.get(job.id)

    async def cancel(self, job: Job) -> None:
        """As the service does for what was begun."""
        await self.catalog.operations.update(job.id, cancel_requested=True)

    def holds_locks(self) -> bool:
        """Whether connections to the database are in use, so that their transactions may hold locks."""
        database = self.catalog.database
        pools = [engine.pool for engine in (database.engine, database._single)]
        return any(isinstance(pool, sa.AsyncAdaptedQueuePool) and pool.checkedout() for pool in pools)

    # -- what there is -----------------------------------------------------------------------------------------------
    async def asset(self) -> AssetRecord:
        return await self.catalog.inventory.find_asset(SYSTEM, SHARE)

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.get_running_loop().run_in_executor(THREADS, self.simulator.control, method, path, body)

    async def share(self, name: str = SHARE) -> Json:
        return dict(await self.control("GET", f"/file-servers/{SYSTEM}/shares/{name}"))

    async def names(self) -> list[str]:
        """The snapshots that the system has."""
        return [item["name"] for item in (await self.share())["snapshots"]]

    async def open_to(self, address: str) -> int:
        """How many entries open something to an address."""
        return sum(item["client"] == address for item in (await self.control("GET", "/access"))["access"])

    async def given_snapshot(self, name: str) -> SnapshotRecord:
        """A snapshot that was there before."""
        made = await self.control("POST", f"/file-servers/{SYSTEM}/shares/{SHARE}/snapshots", {"name": name})
        asset = await self.asset()
        snapshot = Snapshot(
            id=made["extId"],
            asset_id=asset.asset.id,
            name=name,
            kind=SnapshotKind.USER,
            created_at=self.clock.now(),
        )
        await self.catalog.inventory.record_batch(asset.system_id, (), (snapshot,), seen_by="before")
        return await self.catalog.inventory.find_snapshot(asset, name)

    async def requests(self) -> int:
        """How many requests the system has had."""
        return int((await self.control("GET", "/requests?after=1000000000"))["count"])

    async def effects(self, method: str, path: str, since: int) -> int:
        """How often the system acted on such requests; those that repeat the id of another one count once."""
        log = (await self.control("GET", f"/requests?after={since}"))["requests"]
        acted = [item for item in log if item["method"] == method and 200 <= item["status"] < 300]
        return len({(item["path"], item["request_id"]) for item in acted if path in item["path"]})


async def add_system(catalog: Catalog, simulator: SimulatorProcess, clock: Clock) -> None:
    settings = {
        "host": "127.0.0.1",
        "port": int(simulator.url.rpartition(":")[2]),
        "plain_http": True,
        "file_server": SYSTEM,
        "username": simulator.username,
        "local_exports": str(simulator.data_dir / "access"),
        "retry_seconds": 0.3,
        "request_seconds": 3.0,
    }
    await catalog.systems.add(
        str(uuid.uuid4()), SYSTEM, "nutanix-files", settings, {"password": simulator.password}, "default", clock.now()
    )


def reset(simulator: SimulatorProcess, **settings: Any) -> None:
    """Put the simulator back to its beginning, with a partner server; everything in it is quick."""
    simulator.control("DELETE", "/faults")
    simulator.control("POST", "/reset")
    api = Api(simulator)
    servers = api.call("GET", "/config/file-servers").data
    server = next(item["extId"] for item in servers if item["name"] == SYSTEM)
    body = {"name": "snapkeep", "vendorName": "Snapkeep", "partnerType": "BACKUP"}
    api.wait(api.call("POST", f"/config/file-servers/{server}/partner-servers", body))
    api.close()
    simulator.control("PATCH", "/settings", {"task_seconds": 0.0, "cft_seconds": 0.0, **settings})
