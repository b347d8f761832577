"""Operations that die, are cancelled, taken over or overslept at any await: always one effect, always an end."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operations.harness import KEY, SHARE, SYSTEM, Job, Life, QuickClock, World, add_system, make_task, reset

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.exports import export_row_id
from snapkeep.catalog.records import ChangeListState, ExportState, OperationRecord, SnapshotRecord
from snapkeep.changes import blocks
from snapkeep.changes.store import read_changes
from snapkeep.model.errors import NotFound
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.model.snapshots import Snapshot
from snapkeep.plugins.nutanix_files import tasks
from snapkeep.simulators.kit.process import SimulatorProcess


@pytest.fixture(scope="module")
def running_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), arguments=["--http"]) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch) -> SimulatorProcess:
    monkeypatch.setattr(tasks, "ABSENCE", timedelta(seconds=0.2))
    monkeypatch.setattr(blocks, "BLOCK", 2)
    reset(running_simulator, cft_page_entries=1)
    return running_simulator


@asynccontextmanager
async def opened(database_url: str, simulator: SimulatorProcess) -> AsyncIterator[World]:
    asyncio.get_running_loop().set_task_factory(make_task)
    async with open_catalog(database_url, KEY) as catalog:
        await add_system(catalog, simulator, QuickClock())
        world = World(simulator, catalog)
        await world.done("discover")
        try:
            yield world
        finally:
            await world.connections.close_all()


# -- what is asked for, and how it must end ----------------------------------------------------------------------------
@dataclass
class Case:
    """One operation, and what must be true when it has succeeded, or else has left nothing."""

    job: Job
    succeeded: Callable[[OperationRecord], Awaitable[None]]
    left_nothing: Callable[[], Awaitable[None]] | None = None


async def create(world: World) -> Case:
    asset, name, since = await world.asset(), f"chosen-{uuid.uuid4()}", await world.requests()

    async def succeeded(operation: OperationRecord) -> None:
        assert (await world.names()).count(name) == 1
        assert await world.effects("POST", "/snapshots", since) == 1
        found = await world.catalog.inventory.find_snapshot(asset, name)
        assert found.snapshot.owned
        assert operation.result is not None
        assert operation.result["snapshot_id"] == found.id

    async def left_nothing() -> None:
        assert name not in await world.names()
        assert await world.catalog.inventory.snapshots(asset_id=asset.id, name=name) == []

    return Case(await world.ask("create", asset_id=asset.id, name=name), succeeded, left_nothing)


async def delete(world: World) -> Case:
    snapshot = await world.given_snapshot(f"given-{uuid.uuid4()}")
    since = await world.requests()

    async def succeeded(operation: OperationRecord) -> None:
        assert snapshot.snapshot.name not in await world.names()
        assert await world.effects("DELETE", snapshot.snapshot.id, since) == 1
        assert (await world.catalog.inventory.snapshot(snapshot.id)).gone_at is not None

    return Case(await world.ask("delete", asset_id=snapshot.asset_id, snapshot_id=snapshot.id), succeeded)


async def shared(world: World, name: str = "given") -> SnapshotRecord:
    """The snapshot that all cases share."""
    try:
        return await world.catalog.inventory.find_snapshot(await world.asset(), name)
    except NotFound:
        return await world.given_snapshot(name)


def export_request(snapshot: SnapshotRecord) -> dict[str, Any]:
    """Each to an address of its own."""
    address = f"fd00::{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}"
    host = {"name": "host", "address": str(ipaddress.ip_address(address))}
    return {"asset_id": snapshot.asset_id, "snapshot_id": snapshot.id, "host": host, "mode": AccessMode.READ_ONLY.value}


async def export(world: World) -> Case:
    snapshot = await shared(world)
    request = export_request(snapshot)
    row = export_row_id(snapshot.id, BackupHost(**request["host"]))

    async def succeeded(operation: OperationRecord) -> None:
        assert (await world.catalog.exports.get(row)).state is ExportState.ACTIVE
        assert await world.open_to(request["host"]["address"]) == 1
        await world.done("deport", asset_id=snapshot.asset_id, export_id=row)

    async def left_nothing() -> None:
        assert await world.open_to(request["host"]["address"]) == 0
        assert row not in [item.id for item in await world.catalog.exports.find()]

    return Case(await world.ask("export", **request), succeeded, left_nothing)


async def deport(world: World) -> Case:
    snapshot = await shared(world)
    request = export_request(snapshot)
    done = await world.done("export", **request)
    assert done.result is not None
    row = done.result["export_id"]

    async def succeeded(operation: OperationRecord) -> None:
        assert (await world.catalog.exports.get(row)).state is ExportState.ENDED
        assert await world.open_to(request["host"]["address"]) == 0

    return Case(await world.ask("deport", asset_id=snapshot.asset_id, export_id=row), succeeded)


async def diff(world: World) -> Case:
    live = Path((await world.share())["live"])
    base = await shared(world, "base")
    if not (live / "n0").exists():
        for number in range(5):
            (live / f"n{number}").write_text("x")
    new = await shared(world, "new")
    job = await world.ask("diff", asset_id=new.asset_id, base_id=base.id, new_id=new.id)

    async def succeeded(operation: OperationRecord) -> None:
        record = await world.catalog.change_lists.get(job.id)
        paths = [change.path async for _, change in read_changes(world.catalog, record)]
        assert sorted(paths) == [f"n{number}".encode() for number in range(5)]
        assert operation.items == record.entries == 5

    async def left_nothing() -> None:
        try:
            record = await world.catalog.change_lists.get(job.id)
        except NotFound:
            return
        assert (record.state, record.entries) == (ChangeListState.INCOMPLETE, 0)
        assert [block async for block in world.catalog.change_lists.blocks(job.id)] == []

    return Case(job, succeeded, left_nothing)


async def discover(world: World) -> Case:
    asset = await world.asset()
    ghost = Snapshot(id=str(uuid.uuid4()), asset_id=asset.asset.id, name="ghost", created_at=world.clock.now())
    await world.catalog.inventory.record_batch(asset.system_id, (), (ghost,), seen_by="before")
    there = await shared(world)

    async def succeeded(operation: OperationRecord) -> None:
        names = [item.snapshot.name for item in await world.catalog.inventory.snapshots(asset_id=asset.id)]
        assert sorted(names) == sorted(await world.names())
        assert (await world.catalog.inventory.snapshot(there.id)).gone_at is None

    return Case(await world.ask("discover"), succeeded)


async def restore(world: World) -> Case:
    snapshot = await shared(world)
    file = Path((await world.share())["live"]) / "file"
    file.write_text("to be undone")
    since = await world.requests()

    async def succeeded(operation: OperationRecord) -> None:
        assert not file.exists()
        assert await world.effects("POST", "/$actions/restore", since) == 1

    request = {"asset_id": snapshot.asset_id, "snapshot_id": snapshot.id, "confirmation": SHARE}
    return Case(await world.ask("restore", **request), succeeded)


async def clone(world: World) -> Case:
    snapshot, name, since = await shared(world), f"clone-{uuid.uuid4()}", await world.requests()

    async def succeeded(operation: OperationRecord) -> None:
        assert (await world.share(name))["name"] == name
        assert await world.effects("POST", "/$actions/clone", since) == 1
        await world.catalog.inventory.find_asset(SYSTEM, name)

    request = {"asset_id": snapshot.asset_id, "snapshot_id": snapshot.id, "name": name, "confirmation": SHARE}
    return Case(await world.ask("clone", **request), succeeded)


CASES = {case.__name__: case for case in (create, delete, export, deport, diff, discover, restore, clone)}


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what was tried when it goes wrong."""
    try:
        yield
    except Exception as error:
        raise AssertionError(what) from error


async def judge(world: World, case: Case) -> OperationRecord:
    """Whatever happened to it: it has ended, holds nothing, and the system is as it says."""
    operation = await world.operation(case.job)
    assert operation.state.ended, operation
    assert operation.turn is None
    if operation.state == "succeeded":
        await case.succeeded(operation)
    else:
        assert operation.state == "cancelled", operation.error
        assert case.left_nothing is not None
        await case.left_nothing()
    return operation


LAST = 15
"""Awaits at the end that are tried one by one: there the work is done, and not yet said to be."""


def awaits(kind: str, database_url: str, part: int) -> range:
    """The awaits to try: each one of `part`, each time others for each kind; all where SNAPKEEP_EVERY_AWAIT is set."""
    step = 1 if os.environ.get("SNAPKEEP_EVERY_AWAIT") else part if database_url.startswith("sqlite") else part * 10
    return range(1 + len(kind) % step, 1000, step)


@pytest.mark.parametrize("kind", CASES)
async def test_dies_at_any_await(kind: str, database_url: str, simulator: SimulatorProcess) -> None:
    async with opened(database_url, simulator) as world:
        for at in awaits(kind, database_url, 10):
            case, life = await CASES[kind](world), Life(dies_at=at)
            with told(f"{kind} died at await {at}"):
                if not await world.run(case.job, life):
                    assert await world.run(case.job)
                assert (await judge(world, case)).state == "succeeded"
            if not life.dead:
                return


@pytest.mark.parametrize("kind", ["create", "export", "diff"])
@pytest.mark.parametrize("begun", [False, True], ids=["from-the-beginning", "in-its-end"])
async def test_dies_at_any_await_and_is_cancelled(
    kind: str, begun: bool, database_url: str, simulator: SimulatorProcess
) -> None:
    """Cancelled after its death; or when it had begun, and it dies while it is undone."""
    async with opened(database_url, simulator) as world:
        tried = deque(awaits(kind, database_url, 11))
        while tried:
            at = tried.popleft()
            case, life = await CASES[kind](world), Life(dies_at=at)
            with told(f"{kind} died at await {at}"):
                if begun:
                    await world.begin(case.job)
                    await world.cancel(case.job)
                    await world.run(case.job, life)
                else:
                    await world.run(case.job, life)
                    await world.cancel(case.job)
                assert case.job.over or await world.run(case.job)
                operation = await judge(world, case)
                assert not begun or operation.state == "cancelled"
            if not life.dead and len(tried) > LAST:  # it came to its end: now all of the last awaits
                tried = deque(range(max(1, life.awaits - LAST), life.awaits + 1))


@pytest.mark.parametrize("kind", CASES)
async def test_falls_asleep_at_any_await_and_is_taken_over(
    kind: str, database_url: str, simulator: SimulatorProcess
) -> None:
    """It wakes when another worker has ended the operation, and goes on as if nothing had been."""
    async with opened(database_url, simulator) as world, open_catalog(database_url, KEY) as own:
        sleeper = World(simulator, own)
        for at in awaits(kind, database_url, 24):
            case = await CASES[kind](world)
            life = Life(sleeps_at=at, may_sleep=lambda: not sleeper.holds_locks())
            with told(f"{kind} fell asleep at await {at}"):
                sleeping = asyncio.create_task(sleeper.run(case.job, life))
                if not await life.falls_asleep(sleeping):
                    await judge(world, case)
                    break
                assert await world.run(replace(case.job))
                life.wake()
                await sleeping
                assert (await judge(world, case)).state == "succeeded"
        await sleeper.connections.close_all()


@pytest.mark.parametrize("kind", CASES)
async def test_wakes_at_any_await_while_another_worker_runs_it(
    kind: str, database_url: str, simulator: SimulatorProcess
) -> None:
    """Both are in the middle of the same operation. The one that was taken over writes nothing any more.

    It may take the operation back, when it wakes before it claims its next step: then the other one gives way.
    """
    async with opened(database_url, simulator) as world, open_catalog(database_url, KEY) as own:
        sleeper = World(simulator, own)
        for at in awaits(kind, database_url, 24):
            case = await CASES[kind](world)
            first = Life(sleeps_at=at, may_sleep=lambda: not sleeper.holds_locks())
            second = Life(sleeps_at=3 + at * 7 % 31, may_sleep=lambda: not world.holds_locks())
            with told(f"{kind} fell asleep at await {at}, the other one at {second.sleeps_at}"):
                sleeping = asyncio.create_task(sleeper.run(case.job, first))
                if not await first.falls_asleep(sleeping):
                    break
                taken = replace(case.job)
                taking = asyncio.create_task(world.run(taken, second))
                await second.falls_asleep(taking)
                before = await world.operation(taken)
                first.wake()
                await sleeping
                after = await world.operation(taken)
                if after.attempt == before.attempt:
                    assert after == before, "what was taken over has written"
                second.wake()
                await taking
                assert case.job.over or taken.over or await world.run(taken)
                assert (await judge(world, case)).state == "succeeded"
        await sleeper.connections.close_all()


def test_dies_again_and_again(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """Several deaths, with a cancel somewhere between them or none."""
    kinds = st.sampled_from(sorted(CASES))
    deaths = st.lists(st.integers(1, 120), min_size=2, max_size=4)

    async def live(world: World, kind: str, deaths: list[int], cancelled_after: int) -> None:
        case = await CASES[kind](world)
        for number, at in enumerate(deaths):
            if await world.run(case.job, Life(dies_at=at)):
                break
            if number == cancelled_after and case.left_nothing is not None:
                await world.cancel(case.job)
        assert case.job.over or await world.run(case.job)
        await judge(world, case)

    with asyncio.Runner() as runner:
        entered = opened(sqlite_url(tmp_path / "catalog.sqlite"), simulator)
        world = runner.run(entered.__aenter__())

        @given(kinds, deaths, st.integers(0, 8))
        @settings(max_examples=25, deadline=None, derandomize=True, print_blob=True, database=None)
        def check(kind: str, deaths: list[int], cancelled_after: int) -> None:
            runner.run(live(world, kind, deaths, cancelled_after))

        try:
            check()
        finally:
            runner.run(entered.__aexit__(None, None, None))
