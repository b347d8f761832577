"""Bad days: the database away, killed, crowded or full; clocks that jump; calls that hang; an engine that forgot."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from pydantic import SecretStr
from tests.support.installation import Installation, Server, Worker, installed, until
from tests.support.postgres import Postgres

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.model.errors import Timeout, Unavailable
from snapkeep.operations.clock import Clock
from snapkeep.operations.engine import Engine, Work, WorkerSettings
from snapkeep.operations.host import Host
from snapkeep.operations.membership import Membership
from snapkeep.operations.open import open_operations
from snapkeep.operations.run import Limits, Run
from snapkeep.operations.runner import Runner
from snapkeep.server.opening import patiently
from snapkeep.server.settings import WorkerProcessSettings

Json = dict[str, Any]
TAKEOVER = "3"
AWAY = "The database of the catalog does not answer"


def slow(installation: Installation, seconds: float) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": seconds})


def begin(installation: Installation, count: int, seconds: float) -> list[Json]:
    """Begin creates that take so long; return when each waits for its task on the system."""
    slow(installation, seconds)
    begun = [installation.ask_create() for _ in range(count)]
    until(lambda: all(installation.operation(item)["phase"] == "taking the snapshot" for item in begun), 20)
    return begun


def made_once(installation: Installation, begun: list[Json]) -> None:
    names = [installation.wait(item)["result"]["snapshot"].partition("@")[2] for item in begun]
    assert sorted(item["name"] for item in installation.vendor_snapshots()) == sorted(names)


def ready(installation: Installation) -> int:
    url, trust = f"{installation.rest.url}/health/ready", installation.trust
    return httpx2.get(url, timeout=10, verify=trust).status_code


# -- PostgreSQL ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def shared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server and a worker, both at work."""
    root = tmp_path_factory.mktemp("postgresql")
    env = {"SNAPKEEP_DATABASE_URL": postgres.create_database(), "SNAPKEEP_TAKEOVER_SECONDS": TAKEOVER}
    with installed(root, **env) as installation:
        installation.add_worker("w1", SNAPKEEP_OUTAGE_SECONDS="60")
        yield installation


@pytest.fixture
def two(shared: Installation, postgres: Postgres) -> Iterator[Installation]:
    shared.reset()
    yield shared
    if not postgres.running:
        postgres.start()


def test_the_database_is_killed_in_the_middle(two: Installation, postgres: Postgres) -> None:
    asks: tuple[Callable[[], Json], ...] = (lambda: two.operation(begun[0]), two.ask_create)
    begun = begin(two, 6, 2.0)
    postgres.kill()
    asked = time.monotonic()
    assert ready(two) == 503
    assert time.monotonic() - asked < 3
    for ask in asks:
        asked = time.monotonic()
        with pytest.raises(Unavailable, match=AWAY):
            ask()
        assert time.monotonic() - asked < 8
    time.sleep(float(TAKEOVER) + 1)
    postgres.start()
    until(lambda: ready(two) == 200, 20)
    made_once(two, begun)
    slow(two, 0.0)
    made_once_before = len(two.vendor_snapshots())
    two.snapshot()
    assert len(two.vendor_snapshots()) == made_once_before + 1
    said = two.server.said() + two.workers["w1"].said()
    assert "a worker has died" not in said, "nobody died: the database was away"
    assert "Traceback" not in said


def test_the_database_hangs(two: Installation, postgres: Postgres) -> None:
    """Stopped, not ended: nothing is refused, nothing answers."""
    with frozen(postgres):
        asked = time.monotonic()
        assert ready(two) == 503
        assert time.monotonic() - asked < 3
        assert httpx2.get(f"{two.rest.url}/health/live", timeout=5, verify=two.trust).status_code == 200
    until(lambda: ready(two) == 200, 20)
    assert two.snapshot()["owned"]


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    child = postgres._child
    assert child is not None
    family = [child.pid, *map(int, Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split())]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


def test_who_is_told_to_end_while_the_database_is_away_leaves_in_time(two: Installation, postgres: Postgres) -> None:
    begun = begin(two, 4, 2.0)
    postgres.kill()
    for process in (two.workers["w1"], two.server):
        asked = time.monotonic()
        assert process.end(signal.SIGTERM) in {0, 13, -signal.SIGTERM}
        assert time.monotonic() - asked < 10
        assert "Traceback" not in process.said()
    postgres.start()
    two.server.start()
    two.workers["w1"].start()
    made_once(two, begun)


def test_a_database_that_is_away_at_the_start_is_waited_for_then_said(two: Installation, postgres: Postgres) -> None:
    two.server.end(signal.SIGTERM)
    two.workers["w1"].end(signal.SIGTERM)
    postgres.kill()
    for process in (Server(two.server.data_dir, two.server.env), Worker(two.server, "w2")):
        process.log = two.server.log.with_name("away.log")
        process.env = process.env | {"SNAPKEEP_DATABASE_SECONDS": "1"}
        process.begin()
        assert process.wait() == Unavailable.exit_code
        assert "Traceback" not in process.said()
        assert "it is tried again" in process.said()
    two.server.begin()
    two.workers["w1"].begin()
    until(lambda: "it is tried again" in two.server.said(), 20)
    postgres.start()
    two.server.until_ready()
    until(lambda: two.worker("w1")["state"] == "alive", 20)
    assert two.snapshot()["owned"]


@pytest.mark.parametrize("opened", ["catalog", "membership"])
async def test_a_database_that_dies_while_a_process_starts_is_waited_for(postgres: Postgres, opened: str) -> None:
    postgresql_url = postgres.create_database()
    settings = WorkerProcessSettings(database_url=SecretStr(postgresql_url), name="w1")
    tries = 0

    @asynccontextmanager
    async def opener() -> AsyncIterator[str]:
        nonlocal tries
        tries += 1
        if tries == 3:
            postgres.start()
        operations = settings.operations("w1", ("default",), alone=False)
        async with open_catalog(postgresql_url, bytes(32)) as catalog:
            if tries == 1 and opened == "membership":  # what is next opens the engine's connections
                await Membership(catalog, Engine(operations.worker), Clock(), operations.worker).join(alone=False)
                postgres.kill()
                async with Engine(operations.worker).running(operations.engine, cast(Work, None)):
                    raise AssertionError("the engine runs without a database")
            if tries == 1:
                postgres.kill()
            async with open_operations(catalog, operations):
                yield "open"

    async with patiently(opener, settings, Clock()) as found:
        assert found == "open"
    assert tries == 3


def test_a_database_with_too_many_connections_is_waited_for(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database()
    name = url.rpartition("/")[2]
    with closing(postgres.connect()) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'".encode())
        admin.execute(f"ALTER DATABASE {name} OWNER TO {name}".encode())
        own = f"postgresql+psycopg://{name}:secret@127.0.0.1:{postgres.port}/{name}"
        with installed(tmp_path, SNAPKEEP_DATABASE_URL=own) as one:
            one.reset()
            begun = begin(one, 3, 2.0)
            admin.execute(f"ALTER ROLE {name} CONNECTION LIMIT 0".encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
            with pytest.raises(Unavailable, match=AWAY):
                one.operation(begun[0])
            time.sleep(3)
            admin.execute(f"ALTER ROLE {name} CONNECTION LIMIT 30".encode())
            until(lambda: ready(one) == 200, 20)
            made_once(one, begun)


# -- SQLite ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("sqlite"), SNAPKEEP_CALL_SECONDS="3") as installation:
        yield installation


@pytest.fixture
def own(running: Installation) -> Installation:
    running.reset()
    return running


def test_a_full_disk_is_said_and_work_goes_on_when_there_is_room(own: Installation) -> None:
    begun = begin(own, 2, 3.0)
    limits = resource.prlimit(own.server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(own.server.pid, resource.RLIMIT_FSIZE, (1024, limits[1]))  # no file may grow, as on a full disk
    try:
        with pytest.raises(Unavailable, match=r"cannot (be written|write)"):
            while True:
                own.ask_create()
        time.sleep(4)
        assert own.operation(begun[0])["state"] == "running", "reading goes on"
    finally:
        resource.prlimit(own.server.pid, resource.RLIMIT_FSIZE, limits)
    slow(own, 0.0)
    assert {own.wait(item)["state"] for item in begun} == {"succeeded"}
    assert own.snapshot()["owned"]


def test_an_engine_that_was_deleted_is_filled_again_from_the_catalog(own: Installation) -> None:
    begun = begin(own, 3, 3.0)
    own.server.end(signal.SIGKILL)
    for path in own.server.data_dir.glob("engine.sqlite*"):
        path.unlink()
    own.server.start()
    made_once(own, begun)


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "CANCELLED"])
def test_what_only_the_engine_ended_is_begun_anew(own: Installation, status: str) -> None:
    begun = begin(own, 2, 2.0)
    own.server.end(signal.SIGKILL)
    with closing(sqlite3.connect(own.server.data_dir / "engine.sqlite", isolation_level=None)) as engine:
        changed = engine.execute("UPDATE workflow_status SET status = ? WHERE status = 'PENDING'", [status])
        assert changed.rowcount >= 2
    own.server.start()
    made_once(own, begun)


def test_a_call_that_hangs_ends_typed(own: Installation) -> None:
    own.rest.request("PATCH", "/systems/files1", json={"settings": {"request_seconds": 60, "retry_seconds": 60}})
    own.fault("hang", method="GET", times=None)
    with pytest.raises(Unavailable, match="did not answer within 3 s"):
        own.discover()
    own.simulator.control("DELETE", "/faults")
    own.discover()


# -- clocks ----------------------------------------------------------------------------------------------------------
class SetByHand(Clock):
    """A clock whose two times are moved by the test."""

    def __init__(self) -> None:
        self.wall = self.passed = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.wall)

    def monotonic(self) -> float:
        return self.passed


class NoJobs(Engine):
    """An engine from which nothing is handed over."""

    async def hand_over(self, name: str) -> list[str]:
        return [f"of {name}"]

    async def rescue_stranded(self) -> list[str]:
        return []


async def test_a_clock_that_jumps_ends_no_operation_and_time_that_passes_does(database_url: str) -> None:
    clock, limits = SetByHand(), Limits(deadline=100.0)
    async with open_catalog(database_url, bytes(32)) as catalog:
        operation = clock.new_id()
        await catalog.operations.add(
            operation_id=operation,
            kind="discover",
            system_id=clock.new_id(),
            system_name="files1",
            queue="default",
            target="files1",
            request={},
            requester="test",
            exclusive=None,
            now=clock.now(),
        )
        unused: Any = None
        none: Any = SimpleNamespace(roles=None)  # nothing is asked of a system here
        runner = Runner(catalog, none, none, clock, limits, Host(name="w", directory=Path("/nonexistent")), unused)

        async def step() -> Run:
            claimed = await catalog.operations.claim(operation, 0, "w", clock.now(), phase="starting")
            assert claimed is not None
            return runner._run(claimed)

        for _ in range(2):
            run = await step()
            for clock.wall in (86_400.0, -86_400.0, 0.0, 86_400.0):
                clock.passed += 10.0
                await run.check_cancel()
        clock.passed += 30.0
        with pytest.raises(Timeout, match="did not end within 100 s"):
            await (await step()).check_cancel()


async def look(member: Membership) -> list[str]:
    """Do what a worker does again and again; return what it has taken over from the dead."""
    await member.beat()
    return await member.look_after_others()


async def beats(catalog: Catalog, name: str, clock: Clock) -> Membership:
    membership = Membership(catalog, NoJobs(WorkerSettings()), clock, WorkerSettings(name=name, takeover_seconds=15))
    await membership.join(alone=False)
    await look(membership)
    return membership


@pytest.mark.parametrize("shift", [-86_400, 86_400])
async def test_a_clock_of_the_database_that_jumps_kills_nobody_and_hides_no_death(
    database_url: str, shift: int
) -> None:
    clock = SetByHand()
    async with open_catalog(database_url, bytes(32)) as catalog:
        one, two = await beats(catalog, "one", clock), await beats(catalog, "two", clock)

        async def jump() -> None:
            """Move the past, as what is stored looks after a jump of the clock."""
            for item in await catalog.workers.find():
                moved = item.heartbeat_at - timedelta(seconds=shift)
                await catalog.workers._change(item.name, item.incarnation, heartbeat_at=moved)

        for _ in range(20):
            await jump()
            clock.passed += one.pause
            assert await look(one) == []
            await look(two)
        await jump()
        for _ in range(4):  # `two` gives no sign any more, but not for long enough
            clock.passed += one.pause
            assert await look(one) == []
        clock.passed += 2 * one.pause
        assert await look(one) == ["of two"]


async def test_nobody_is_dead_because_the_database_was_away(database_url: str) -> None:
    clock = SetByHand()
    async with open_catalog(database_url, bytes(32)) as catalog:
        one, two = await beats(catalog, "one", clock), await beats(catalog, "two", clock)
        [record] = [item for item in await catalog.workers.find() if item.name == "two"]
        away = record.heartbeat_at - timedelta(seconds=60)
        await catalog.workers._change("two", record.incarnation, heartbeat_at=away)
        assert await look(one) == []
        clock.passed += 60  # nobody could read or write
        assert await look(one) == []
        await look(two)
        assert await look(one) == []
