"""Operations under all that may happen to them, in any order: hypothesis chooses it.

The real engine in this process, the real catalog on both stores, the real simulator. A crash closes everything without
a good-bye; the next start has the same name, or another one and takes over.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.operations.harness import (
    KEY,
    LIMITS,
    SHARE,
    SYSTEM,
    Died,
    Job,
    Life,
    QuickClock,
    World,
    add_system,
    make_task,
    reset,
)
from tests.operations.judging import judge

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import Busy, Conflict, NotFound
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.operations.engine import WorkerSettings, engine_url
from snapkeep.operations.host import Host
from snapkeep.operations.open import Opened, OperationsSettings, open_operations
from snapkeep.operations.requester import Requester
from snapkeep.plugins.nutanix_files import tasks
from snapkeep.simulators.kit.process import SimulatorProcess

T = TypeVar("T")

END_SECONDS = 30.0
"""Within which everything must have ended, once nothing goes wrong any more."""

BY = Requester("test")
HOST = Host(directory=Path("/nonexistent"))
PICK = st.integers(0, 9)


class Server:
    """What `snapkeep serve` is made of; it can crash, and be started under another name."""

    def __init__(self, url: str, engine: sa.URL) -> None:
        self._url, self._engine = url, engine
        self._stack = AsyncExitStack()
        self.opened: Opened | None = None
        self.name = "one"

    async def start(self, name: str) -> None:
        self.name = name
        worker = WorkerSettings(name=name, takeover_seconds=0.4)
        catalog = await self._stack.enter_async_context(open_catalog(self._url, KEY))
        self.opened = await self._stack.enter_async_context(
            open_operations(
                catalog,
                OperationsSettings(engine=self._engine, worker=worker, limits=LIMITS, host=HOST),
                clock=QuickClock(),
                on_failure=_fail,
            )
        )

    async def crash(self) -> None:
        """Stop everything without leaving, first the engine: it records nothing of what then dies."""
        self.opened = None
        with suppress(Died):
            await self._stack.__aexit__(Died, Died(), None)
        self._stack = AsyncExitStack()

    async def stop(self) -> None:
        self.opened = None
        await self._stack.aclose()


def _fail(error: Exception) -> None:
    raise AssertionError("the worker gave up") from error


class Operations(RuleBasedStateMachine):
    """Asks, interrupts, breaks; then everything must end, and system and catalog must be as the operations say."""

    simulator: ClassVar[SimulatorProcess]
    url: ClassVar[str]
    engine: ClassVar[sa.URL]
    loop: ClassVar[asyncio.AbstractEventLoop]
    failures: ClassVar[list[Exception]]

    # -- the frame ---------------------------------------------------------------------------------------------------
    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()
        self.server = Server(self.url, self.engine)
        self.sleeper: tuple[Life, asyncio.Task[bool]] | None = None
        self.was_asked_to_sleep = False  # whether it did is a matter of time, which hypothesis must not see
        self.seen: dict[str, tuple[int, int]] = {}
        self.created = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    @initialize()
    def begin(self) -> None:
        reset(self.simulator, task_seconds=0.3, cft_seconds=0.3)
        self.run(self._begin())

    async def _begin(self) -> None:
        """A look from outside goes on when the server does not; then the server, and a discovery."""
        catalog = await self.stack.enter_async_context(open_catalog(self.url, KEY))
        for system in await catalog.systems.find():
            await catalog.systems.remove(system.id)
        await add_system(catalog, self.simulator, QuickClock())
        self.system_id = (await catalog.systems.get(SYSTEM)).id
        self.world = World(self.simulator, catalog)
        for name in ("given-1", "given-2"):
            await self.world.control("POST", f"/file-servers/{SYSTEM}/shares/{SHARE}/snapshots", {"name": name})
        await self.server.start("one")
        await self._ask(self._discover)
        await self._all_ended()
        self.watcher = asyncio.create_task(self._watch())

    def teardown(self) -> None:
        self._note_failure()
        try:
            if hasattr(self, "world"):
                self.settle()
        except Exception:
            self._note_failure()
            raise
        finally:
            self.run(self._close())

    def _note_failure(self) -> None:
        if isinstance(error := sys.exc_info()[1], Exception):
            self.failures.append(error)

    async def _close(self) -> None:
        await self._wake()
        if hasattr(self, "watcher"):
            self.watcher.cancel()
            await asyncio.wait({self.watcher})
        if self.server.opened is not None:
            await self.server.stop()
        if hasattr(self, "world"):
            await self.world.connections.close_all()
        await self.stack.aclose()

    @property
    def catalog(self) -> Catalog:
        return self.world.catalog

    def is_up(self) -> bool:
        return self.server.opened is not None

    def is_down(self) -> bool:
        return not self.is_up()

    async def _ask(self, question: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
        """Ask the service; it may refuse."""
        assert self.server.opened is not None
        with suppress(Busy, Conflict, NotFound):
            await question(self.server.opened.operations)

    async def _all(self) -> list[OperationRecord]:
        found = await self.catalog.operations.find(system=SYSTEM, paging=Paging(limit=1000))
        return [item for item in found if item.system_id == self.system_id]  # those of a removed system are kept

    # -- asking ------------------------------------------------------------------------------------------------------
    async def _discover(self, service: Any) -> None:
        await service.discover(await self.catalog.systems.get(SYSTEM), BY)

    @precondition(is_up)
    @rule(named=st.booleans())
    def create(self, named: bool) -> None:
        self.created += 1

        async def ask(service: Any) -> None:
            await service.create(await self.world.asset(), f"chosen-{self.created}" if named else None, BY)

        self.run(self._ask(ask))

    @precondition(is_up)
    @rule(kind=st.sampled_from(["delete", "export", "export", "diff"]), which=PICK, host=st.integers(1, 2))
    def use(self, kind: str, which: int, host: int) -> None:
        """Something that needs a snapshot."""

        async def ask(service: Any) -> None:
            asset = await self.world.asset()
            if not (found := await self.catalog.inventory.snapshots(asset_id=asset.id)):
                return
            snapshot = found[which % len(found)]
            match kind:
                case "delete":
                    await service.delete(snapshot, BY)
                case "export":
                    to = BackupHost(name=f"host{host}", address=f"10.0.0.{host}")
                    await service.export(snapshot, to, AccessMode.READ_ONLY, BY)
                case "diff":
                    await service.diff(asset, None, snapshot, BY)

        self.run(self._ask(ask))

    @precondition(is_up)
    @rule(which=PICK)
    def crowd(self, which: int) -> None:
        """Several that exclude each other, at once."""
        self.use("export", which, 1)
        self.use("export", which, 2)
        self.use("delete", which + 1, 1)

    @precondition(is_up)
    @rule(which=PICK)
    def deport(self, which: int) -> None:
        async def ask(service: Any) -> None:
            if found := await self.catalog.exports.find():
                await service.deport(found[which % len(found)], BY)

        self.run(self._ask(ask))

    @precondition(is_up)
    @rule()
    def discover(self) -> None:
        self.run(self._ask(self._discover))

    # -- interrupting ------------------------------------------------------------------------------------------------
    @precondition(is_up)
    @rule(verb=st.sampled_from(["cancel", "cancel", "pause", "resume", "retry"]), which=PICK)
    def interrupt(self, verb: str, which: int) -> None:
        async def ask(service: Any) -> None:
            operations = [item for item in await self._all() if item.state.ended == (verb == "retry")]
            if operations:
                operation = operations[which % len(operations)]
                await (service.retry(operation, BY) if verb == "retry" else getattr(service, verb)(operation))

        self.run(self._ask(ask))

    # -- breaking ----------------------------------------------------------------------------------------------------
    @rule(tenths=st.integers(0, 4))
    def time_passes(self, tenths: int) -> None:
        self.run(asyncio.sleep(tenths / 10 + 0.02))

    @precondition(is_up)
    @rule()
    def crash(self) -> None:
        self.run(self.server.crash())

    @precondition(is_up)
    @rule(hundredths=st.integers(0, 15), which=PICK, named=st.booleans())
    def crash_at_work(self, hundredths: int, which: int, named: bool) -> None:
        self.create(named)
        self.use("export", which, 1)
        self.run(asyncio.sleep(hundredths / 100))
        self.run(self.server.crash())

    @precondition(is_down)
    @rule(other=st.booleans())
    def start(self, other: bool) -> None:
        names = {"one": "two", "two": "one"}
        self.run(self.server.start(names[self.server.name] if other else self.server.name))

    @precondition(lambda self: self.is_down() and not self.was_asked_to_sleep)
    @rule(which=PICK, at=st.integers(1, 60))
    def falls_asleep(self, which: int, at: int) -> None:
        """A worker begins a step, and sleeps in the middle of it, until others have long taken over.

        Not export and deport: what it sends to the system when it wakes cannot be refused there.
        """
        self.was_asked_to_sleep = True

        async def sleep() -> None:
            kinds = {"create", "delete", "diff", "discover"}
            found = [item for item in await self._all() if item.state in {"queued", "running"} and item.kind in kinds]
            found = [item for item in found if item.exclusive is None or item.turn]
            if found:
                item = found[which % len(found)]
                life = Life(sleeps_at=at, may_sleep=lambda: not self.world.holds_locks())
                work = asyncio.create_task(self.world.run(Job(item.id, item.generation), life))
                if await life.falls_asleep(work):
                    self.sleeper = life, work

        self.run(sleep())

    @precondition(lambda self: self.was_asked_to_sleep)
    @rule()
    def wakes(self) -> None:
        self.was_asked_to_sleep = False
        self.run(self._wake())

    async def _wake(self) -> None:
        if self.sleeper is not None:
            life, work = self.sleeper
            self.sleeper = None
            life.wake()
            await asyncio.wait_for(work, END_SECONDS)

    @rule(tenths=st.integers(1, 5))
    def system_is_away(self, tenths: int) -> None:
        fault = {"action": "status", "status": 503, "lasting": tenths / 10, "times": None}
        self.simulator.control("POST", "/faults", fault)

    @rule(method=st.sampled_from(["POST", "PUT", "DELETE", "GET"]))
    def answer_is_lost(self, method: str) -> None:
        """The next request of this kind acts, and nobody hears of it."""
        self.simulator.control("POST", "/faults", {"action": "reset", "after_effect": True, "method": method})

    # -- what must be true -------------------------------------------------------------------------------------------
    @invariant()
    def turns_are_kept(self) -> None:
        if hasattr(self, "watcher") and self.watcher.done():
            self.watcher.result()

    async def _watch(self) -> None:
        """Look all the time: one exclusive operation at once, and nothing goes backwards."""
        while True:
            found = await self._all()
            running = Counter(item.exclusive for item in found if item.exclusive and item.state == "running")
            assert all(count == 1 for count in running.values()), _brief(found)
            for item in found:
                assert item.turn is None or not item.state.ended, item
                before = self.seen.get(item.id, (0, 0))
                assert item.attempt >= before[0], item
                assert item.generation >= before[1], item
                self.seen[item.id] = item.attempt, item.generation
            await asyncio.sleep(0.02)

    @rule()
    def settle(self) -> None:
        """Let everything end; then look."""
        self.simulator.control("DELETE", "/faults")
        if self.is_down():
            self.start(other=True)
        self.wakes()
        self.run(self._all_ended())
        operations = self.run(self._all())
        note(f"the operations: {_brief(operations)}")
        self.run(judge(self.world, operations))
        self.turns_are_kept()

    async def _all_ended(self) -> None:
        end = asyncio.get_running_loop().time() + END_SECONDS
        while left := [item for item in await self._all() if not item.state.ended]:
            for item in left:
                if item.state is OperationState.PAUSED or item.pause_requested:
                    await self._ask(_resuming(item))
            assert asyncio.get_running_loop().time() < end, left
            await asyncio.sleep(0.05)


def _resuming(operation: OperationRecord) -> Callable[[Any], Coroutine[Any, Any, object]]:
    async def resume(service: Any) -> None:
        await service.resume(operation)

    return resume


def _brief(operations: list[OperationRecord]) -> str:
    return "".join(
        f"\n{item.created_at:%S.%f} {item.kind} {item.state} attempt {item.attempt} generation {item.generation} "
        f"{item.request} {(item.error or {}).get('code')} {(item.error or {}).get('details')}"
        for item in reversed(operations)
    )


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own: the engine uses another one as soon as this one stands still."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_task_factory(make_task)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


@pytest.fixture
def machine(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Operations]]:
    monkeypatch.setattr(tasks, "ABSENCE", timedelta(seconds=0.2))
    with SimulatorProcess(tmp_path / "simulator", arguments=["--http"]) as simulator, running_loop() as loop:
        Operations.loop = loop
        Operations.simulator, Operations.url = simulator, database_url
        Operations.failures = []
        Operations.engine = engine_url(sa.make_url(database_url), tmp_path / "engine.sqlite")
        yield Operations


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a crash closes no connections
def test_whatever_happens(machine: type[Operations]) -> None:
    """Derandomised: the same stories each time. A failure prints its story, and how to play it again.

    Hypothesis does not look for a shorter one: each takes seconds, and the moments in it are never quite the same.
    """
    chosen = settings(
        max_examples=4 if machine.url.startswith("sqlite") else 2,
        phases=[Phase.generate],
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=True,
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except Flaky as error:
        if not machine.failures:
            raise
        raise machine.failures[0] from error  # played again it ended otherwise, which hides what was wrong
