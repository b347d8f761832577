"""Holds and locks while operations run: those asked for before, those that died in the middle, those that undo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.operations.harness import KEY, SHARE, Job, QuickClock, World, add_system, make_task, reset

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.observed_time import PATIENCE
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import ProtectionRecord, SnapshotRecord
from snapkeep.model.errors import Busy, Locked, NotFound
from snapkeep.model.protections import Cooling, LockMode, ProtectionKind
from snapkeep.operations.clock import Clock
from snapkeep.operations.requester import Requester
from snapkeep.operations.service import Operations
from snapkeep.operations.timekeeper import Timekeeper
from snapkeep.simulators.kit.process import SimulatorProcess

ME = Requester("me")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def running_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), arguments=["--http"]) as simulator:
        yield simulator


@pytest.fixture
async def world(running_simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[World]:
    reset(running_simulator)
    asyncio.get_running_loop().set_task_factory(make_task)
    async with open_catalog(sqlite_url(tmp_path / "catalog.sqlite"), KEY) as catalog:
        await add_system(catalog, running_simulator, QuickClock())
        world = World(running_simulator, catalog)
        await world.done("discover")
        try:
            yield world
        finally:
            await world.connections.close_all()


def operations_of(world: World) -> Operations:
    return Operations(world.catalog, world.connections, world.dispatcher, world.clock, 15.0)


async def lock(world: World, snapshot: SnapshotRecord) -> ProtectionRecord:
    return await world.catalog.protections.place(
        world.clock.new_id(),
        snapshot,
        kind=ProtectionKind.LOCK,
        mode=LockMode.COMPLIANCE,
        until=await world.catalog.database.now() + DAY,
        reason="law",
        by="anna",
    )


async def ask_delete(world: World, snapshot: SnapshotRecord) -> Job:
    return await world.ask("delete", asset_id=snapshot.asset_id, snapshot_id=snapshot.id)


async def error_of(world: World, job: Job) -> dict[str, Any]:
    operation = await world.operation(job)
    assert operation.state == "failed"
    return operation.error or {}


# -- deletions ---------------------------------------------------------------------------------------------------------
async def test_a_lock_that_comes_before_a_deletion_begins_wins(world: World) -> None:
    snapshot = await world.given_snapshot("kept")
    asked = await operations_of(world).delete(snapshot, ME)
    placed = await lock(world, snapshot)
    job, requests = Job(asked.id), await world.requests()
    await world.run(job)
    error = await error_of(world, job)
    assert (error["code"], error["details"]["protections"]) == ("locked", [placed.id])
    assert await world.names() == ["kept"]
    assert await world.effects("DELETE", "", requests) == 0, "the system was not even asked"
    for ask in (
        lambda: operations_of(world).delete(snapshot, ME),
        lambda: operations_of(world).delete(snapshot, Requester("me", world.clock.new_id())),
        lambda: retry(world, job),
    ):
        with pytest.raises(Locked):
            await ask()
    assert await world.names() == ["kept"]


async def retry(world: World, job: Job) -> None:
    await operations_of(world).retry(await world.operation(job), ME)


async def test_a_lock_that_comes_after_a_deletion_began_is_refused(world: World) -> None:
    snapshot = await world.given_snapshot("going")
    job = await ask_delete(world, snapshot)
    await world.begin(job)  # and its process dies
    with pytest.raises(Busy, match="is being deleted already"):
        await lock(world, snapshot)
    assert await world.run(job)
    assert (await world.operation(job)).state == "succeeded"
    with pytest.raises(NotFound):
        await lock(world, snapshot)
    assert list(await world.catalog.protections.find(Paging(), ended=True)) == []


async def test_what_a_cancelled_create_made_stays_when_it_was_locked(world: World) -> None:
    asset = await world.asset()
    job = await world.ask("create", asset_id=asset.id, name="made")
    await world.begin(job)
    await world.done("discover")
    await lock(world, await world.catalog.inventory.find_snapshot(asset, "made"))
    await world.cancel(job)
    await world.run(job)
    error = await error_of(world, job)
    assert error["code"] == "locked"
    assert "could not be undone" in error["message"]
    assert await world.names() == ["made"]
    assert (await world.catalog.inventory.find_snapshot(asset, "made")).gone_at is None


async def test_reconcile_and_restore_leave_what_is_locked(world: World) -> None:
    snapshot = await world.given_snapshot("kept")
    newer = await world.given_snapshot("newer")
    for one in (snapshot, newer):
        await lock(world, one)
    await world.done("reconcile", apply=True)
    await world.done("restore", asset_id=snapshot.asset_id, snapshot_id=snapshot.id, confirmation=SHARE)
    assert await world.names() == ["kept", "newer"]
    for one in (snapshot, newer):
        with pytest.raises(Locked):
            await operations_of(world).delete(one, ME)
    with pytest.raises(Locked):
        await world.catalog.systems.remove(snapshot.system_id)


# -- the time ----------------------------------------------------------------------------------------------------------
class LyingClock(Clock):
    """A clock whose seconds are counted by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_setting_the_clock_ends_no_lock_whatever_restarts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the database lies; so many seconds have passed in truth."""
    snapshot, clock = await world.given_snapshot("kept"), LyingClock()
    await lock(world, snapshot)
    wall = await world.catalog.database.now()

    async def now() -> datetime:
        return wall

    monkeypatch.setattr(world.catalog.database, "now", now)

    async def pass_seconds(keeper: Timekeeper, seconds: float) -> None:
        clock.seconds += seconds
        await keeper.keep_time()

    begin = await world.catalog.protections.time.now()
    for _ in range(20):  # restarts, each after the clock was set forward by ten years
        wall += 3650 * DAY
        keeper = Timekeeper(world.catalog, clock)
        for seconds in (0.0, 5.0, 5.0):
            await pass_seconds(keeper, seconds)
        with pytest.raises(Locked):
            await operations_of(world).delete(snapshot, ME)
    assert await world.catalog.protections.time.now() - begin <= 2 * timedelta(seconds=clock.seconds)
    wall = begin + PATIENCE * 2  # the clock is right again
    keeper = Timekeeper(world.catalog, clock)
    for _ in range(24):
        with pytest.raises(Locked):
            await operations_of(world).delete(snapshot, ME)
        await keeper.keep_time()
        clock.seconds += 3600
        wall += timedelta(hours=1)
    await keeper.keep_time()
    await world.catalog.protections.require_free(snapshot)
    wall -= 3650 * DAY
    for seconds in (5.0, 120.0, 5.0):
        await pass_seconds(Timekeeper(world.catalog, clock), seconds)
    await world.catalog.protections.require_free(snapshot)


# -- the cooling time --------------------------------------------------------------------------------------------------
async def test_a_deletion_that_cools_begins_by_time_that_was_seen_to_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.catalog.cooling.set(Cooling(limit=1, hours=4), by="test")
    time, submitted = world.catalog.protections.time, []

    async def submit(operation_id: str, generation: int, **_: Any) -> None:
        submitted.append(operation_id)

    async def jobs(_: Any) -> dict[str, bool]:
        return {}

    engine = world.dispatcher._engine
    monkeypatch.setattr(engine, "submit", submit)
    monkeypatch.setattr(engine, "jobs", jobs)
    first, second = [await world.given_snapshot(name) for name in ("one", "two")]
    service = operations_of(world)
    begun, cooling = [(await service.delete(one, ME)).id for one in (first, second)]
    await world.dispatcher.settle()
    assert submitted == [begun]
    await world.run(Job(begun))
    begin = await time.now()
    await time.observe("a", 0.0, begin + PATIENCE * 2)
    for wall in (begin + 3650 * DAY, begin - 3650 * DAY):  # somebody sets the clock
        await time.observe("a", 5.0, wall)
        await world.dispatcher.sweep()
    assert submitted == [begun]
    for hours in range(1, 4):
        await time.observe("a", 3600.0, begin + timedelta(hours=hours))
        await world.dispatcher.sweep()
    operation = await world.catalog.operations.get(cooling)
    assert (await service.explain(operation)).startswith("cooling until ")
    assert submitted == [begun]
    await time.observe("a", 3600.0, begin + timedelta(hours=4, minutes=1))
    await world.dispatcher.sweep()
    assert submitted[-1] == cooling
    assert await world.names() == ["two"]
    await world.run(Job(cooling))
    assert await world.names() == []


async def test_the_deletions_of_an_hour_are_counted_for_an_hour(world: World) -> None:
    cooling, time = world.catalog.cooling, world.catalog.protections.time
    await cooling.set(Cooling(limit=2, hours=1), by="test")
    assert [await cooling.admit("s", f"d{number}", by="me") is None for number in (1, 1, 2, 3)] == [
        True, True, True, False,
    ]  # fmt: skip
    begin = await time.now()
    await time.observe("a", 0.0, begin + PATIENCE * 2)
    await time.observe("a", 3600.0, begin + timedelta(hours=1, minutes=1))
    assert await cooling.admit("s", "d4", by="me") is None
    await time.observe("a", 3 * 86400.0, begin + 3 * DAY)
    await cooling.purge()
    await cooling.set(Cooling(limit=None), by="test")
    assert [await cooling.admit("s", f"e{number}", by="me") for number in range(5)] == [None] * 5
