"""A diff that finds an attack dies at any await of its end: one signal, one hold, told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from tests.operations.harness import KEY, Job, Life, QuickClock, World, add_system, make_task, reset

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import SnapshotRecord
from snapkeep.catalog.signals import DIFFS
from snapkeep.catalog.tables import deliveries, operations, protections, signals, snapshots
from snapkeep.model.notifications import ChannelKind
from snapkeep.model.protections import ProtectionKind
from snapkeep.plugins.nutanix_files import tasks
from snapkeep.signals.features import Features
from snapkeep.signals.scoring import MINIMUM, judge
from snapkeep.simulators.kit.process import SimulatorProcess

FILES = 120
LAST = 150
"""Awaits at the end among which it dies: the list is there, and is judged."""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), arguments=["--http"]) as running:
        reset(running)
        yield running


@asynccontextmanager
async def attacked(
    database_url: str, simulator: SimulatorProcess
) -> AsyncIterator[tuple[World, SnapshotRecord, SnapshotRecord]]:
    """A share with a quiet past, and two snapshots between which its files were written anew."""
    asyncio.get_running_loop().set_task_factory(make_task)
    async with open_catalog(database_url, KEY) as catalog:
        await add_system(catalog, simulator, QuickClock())
        world = World(simulator, catalog)
        await world.done("discover")
        await catalog.channels.add(
            "ops", name="ops", kind=ChannelKind.WEBHOOK, settings={}, secrets={"url": "u"}, now=world.clock.now(),
            events=["change.suspicious"], systems=[], per_minute=20, enabled=True,
        )  # fmt: skip
        live = Path((await world.share())["live"])
        for number in range(FILES):
            (live / f"f{number}").write_text("x")
        base = await world.given_snapshot(f"base-{world.clock.new_id()}")
        for number in range(FILES):
            (live / f"f{number}").write_text(f"encrypted {world.clock.new_id()}")
        new = await world.given_snapshot(f"new-{world.clock.new_id()}")
        await live_quietly(world, base)
        try:
            yield world, base, new
        finally:
            await world.connections.close_all()


async def live_quietly(world: World, base: SnapshotRecord) -> None:
    history: list[Features] = []
    assert base.snapshot.created_at is not None
    for day in range(MINIMUM):
        at = base.snapshot.created_at - timedelta(days=MINIMUM - day)
        one = Features(at=at, counts={"modify": 3})
        await world.catalog.signals.record(
            f"day-{day}", asset_id=base.asset_id, series=DIFFS, backup_id=None, snapshot_id=f"s-{day}", at=at,
            features=one.to_dict(), verdict=judge(one, history).to_dict(),
        )  # fmt: skip
        history.append(one)


async def forget(world: World) -> None:
    """Forget what earlier tries have found."""
    async with world.catalog.database.begin() as connection:
        await connection.execute(delete(protections))
        await connection.execute(delete(deliveries))
        await connection.execute(delete(signals).where(signals.c.suspicious))


async def begin(world: World, base: SnapshotRecord, new: SnapshotRecord) -> Job:
    job = await world.ask("diff", asset_id=new.asset_id, base_id=base.id, new_id=new.id)
    await world.begin(job)
    return job


async def is_right(world: World, job: Job, base: SnapshotRecord) -> None:
    operation = await world.operation(job)
    assert operation.state == "succeeded", operation.error
    signal = await world.catalog.signals.get(job.id)
    assert signal.suspicious
    assert signal.reasons == [f"{FILES} objects modified; usually 3"]
    assert operation.result is not None
    assert operation.result["signal"] == {"suspicious": True, "reasons": signal.reasons, "held": base.reference}
    (hold,) = await world.catalog.protections.find(Paging())
    assert (hold.snapshot_id, hold.kind, hold.placed_by) == (base.id, ProtectionKind.HOLD, "signals")
    (told,) = await world.catalog.deliveries.find()
    assert told.event == "change.suspicious"
    assert told.data["details"]["operation"] == job.id
    lines = await world.catalog.audit.find(action="hold.place", limit=1000)
    assert sum(line.entry.detail["operation"] == job.id for line in lines) == 1


async def test_dies_at_any_await_of_its_end(
    database_url: str, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ABSENCE", timedelta(seconds=0.2))
    async with attacked(database_url, simulator) as (world, base, new):
        whole = Life()
        job = await begin(world, base, new)
        assert await world.run(job, whole)
        await is_right(world, job, base)
        step = 7 if database_url.startswith("sqlite") else 23
        for at in range(max(1, whole.awaits - LAST), whole.awaits + 1, step):
            await forget(world)
            job, life = await begin(world, base, new), Life(dies_at=at)
            if not await world.run(job, life):
                assert await world.run(job), at
            await is_right(world, job, base)


async def test_a_part_of_another_operation_is_not_judged_twice(simulator: SimulatorProcess, tmp_path: Path) -> None:
    async with attacked(sqlite_url(tmp_path / "catalog.sqlite"), simulator) as (world, base, new):
        job = await world.ask("diff", asset_id=new.asset_id, base_id=base.id, new_id=new.id)
        async with world.catalog.database.begin() as connection:
            asked = update(operations).where(operations.c.id == job.id)
            await connection.execute(asked.values(requester=f"backup {world.clock.new_id()}"))
        assert await world.run(job)
        assert "signal" not in ((await world.operation(job)).result or {})
        assert await world.catalog.signals.known(job.id) is None


async def test_what_is_being_deleted_is_not_held_but_the_one_before(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    async with attacked(sqlite_url(tmp_path / "catalog.sqlite"), simulator) as (world, base, new):
        assert base.snapshot.created_at is not None
        older = await world.given_snapshot(f"older-{world.clock.new_id()}")
        async with world.catalog.database.begin() as connection:
            before = base.snapshot.created_at - timedelta(microseconds=1)
            await connection.execute(update(snapshots).where(snapshots.c.id == older.id).values(created_at=before))
        deleting = await world.ask("delete", asset_id=base.asset_id, snapshot_id=base.id)
        await world.catalog.protections.begin_deletion(base, deleting.id, by="test")
        job = await world.ask("diff", asset_id=new.asset_id, base_id=base.id, new_id=new.id)
        assert await world.run(job)
        assert ((await world.operation(job)).result or {})["signal"]["held"] == older.reference


async def test_of_snapshots_our_own_is_held(simulator: SimulatorProcess, tmp_path: Path) -> None:
    async with attacked(sqlite_url(tmp_path / "catalog.sqlite"), simulator) as (world, base, new):
        assert base.snapshot.created_at is not None
        ours = await world.given_snapshot(f"ours-{world.clock.new_id()}")
        async with world.catalog.database.begin() as connection:
            values = {"created_at": base.snapshot.created_at - timedelta(hours=1), "owned": True}
            await connection.execute(update(snapshots).where(snapshots.c.id == ours.id).values(values))
        job = await world.ask("diff", asset_id=new.asset_id, base_id=base.id, new_id=new.id)
        assert await world.run(job)
        assert ((await world.operation(job)).result or {})["signal"]["held"] == ours.reference


async def test_no_operation_fails_because_of_a_signal(simulator: SimulatorProcess, tmp_path: Path) -> None:
    async with attacked(sqlite_url(tmp_path / "catalog.sqlite"), simulator) as (world, base, new):
        async with world.catalog.database.begin() as connection:  # a past that nobody can read
            await connection.execute(update(signals).values(features={"something": "else"}))
        job = await world.ask("diff", asset_id=new.asset_id, base_id=base.id, new_id=new.id)
        assert await world.run(job)
        operation = await world.operation(job)
        assert (operation.state, (operation.result or {})["signal"]) == ("succeeded", None)
