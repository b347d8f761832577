"""A quiesced create that dies at any await: all is let go, and no snapshot is said to be more than it is."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.operations.harness import KEY, Job, Life, QuickClock, World, add_system, make_task, reset
from tests.quiesce.hosts import Application

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.inventory import asset_row_id
from snapkeep.catalog.records import OperationState
from snapkeep.model.exports import AccessMode
from snapkeep.plugins.linux_host.quiesce import hook_asset
from snapkeep.plugins.linux_host.settings import Hook
from snapkeep.simulators.kit.process import SimulatorProcess

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""Who dies while a program is begun does not close what it has opened."""


@pytest.fixture(autouse=True)
def _buried() -> Iterator[None]:
    """See that what died is gone before the next test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), arguments=["--http"]) as running:
        reset(running)
        yield running


class Quiesced:
    """A share, and an application on this machine that notes in it whether it is held."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.app = Application(directory)

    async def prepare(self) -> None:
        state = Path((await self.world.share())["live"]) / "state"
        self.app.behave(freeze=f"echo frozen >{state}", thaw=f"echo thawed >{state}")
        hooks = {"app": self.app.hook}
        systems, inventory = self.world.catalog.systems, self.world.catalog.inventory
        await systems.add("host1", "host1", "linux-host", {"hooks": hooks}, {}, "default", self.world.clock.now())
        asset = hook_asset("app", Hook.model_validate(self.app.hook))
        await inventory.record_batch("host1", (asset,), (), seen_by="before")

    async def ask(self) -> tuple[str, Job]:
        name, asset = f"chosen-{uuid.uuid4()}", await self.world.asset()
        held = {"quiesce": [asset_row_id("host1", "hook:app")], "quiesce_seconds": 60}
        return name, await self.world.ask("create", asset_id=asset.id, name=name, **held)

    async def let_go(self) -> None:
        """What died may be cleaning up still, as the host would without it."""
        for _ in range(400):
            if not self.app.is_held:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it is held still")

    async def state_in(self, result: dict[str, Any]) -> str:
        """What the application had noted when the snapshot was taken."""
        host = {"name": "host", "address": "127.0.0.1"}
        request = {"snapshot_id": result["snapshot_id"], "host": host, "mode": AccessMode.READ_ONLY.value}
        exported = await self.world.done("export", asset_id=(await self.world.asset()).id, **request)
        assert exported.result is not None
        return (Path(exported.result["locations"][0]["path"]) / "state").read_text().strip()


@asynccontextmanager
async def opened(simulator: SimulatorProcess, directory: Path) -> AsyncIterator[Quiesced]:
    asyncio.get_running_loop().set_task_factory(make_task)
    async with open_catalog(sqlite_url(directory / "catalog.sqlite"), KEY) as catalog:
        await add_system(catalog, simulator, QuickClock())
        world = World(simulator, catalog)
        await world.done("discover")
        made = Quiesced(world, directory)
        await made.prepare()
        try:
            yield made
        finally:
            await world.connections.close_all()


async def test_dies_at_any_await(simulator: SimulatorProcess, tmp_path: Path) -> None:
    seen = set()
    async with opened(simulator, tmp_path) as quiesced:
        world = quiesced.world
        for at in range(2, 1000, 5):
            (name, job), life = await quiesced.ask(), Life(dies_at=at)
            if not await world.run(job, life):
                await quiesced.let_go()
                assert await world.run(job)
            await quiesced.let_go()
            operation = await world.operation(job)
            assert operation.state is OperationState.SUCCEEDED, (at, operation.error)
            assert operation.result is not None
            assert (await world.names()).count(name) == 1
            record = await world.catalog.inventory.snapshot(operation.result["snapshot_id"])
            assert record.consistency == operation.result["consistency"]
            assert (record.consistency_reason is None) == (record.consistency == "application")
            if record.consistency == "application":
                assert await quiesced.state_in(operation.result) == "frozen", at
            seen.add(record.consistency)
            if not life.dead:
                assert record.consistency == "application"
                break
    assert seen == {"application", "crash"}


async def test_dies_at_any_await_and_is_cancelled(simulator: SimulatorProcess, tmp_path: Path) -> None:
    async with opened(simulator, tmp_path) as quiesced:
        world = quiesced.world
        for at in range(4, 1000, 7):
            (name, job), life = await quiesced.ask(), Life(dies_at=at)
            if not await world.run(job, life):
                await world.cancel(job)
                assert await world.run(job)
            await quiesced.let_go()
            operation = await world.operation(job)
            if operation.state is OperationState.SUCCEEDED:  # it died, or would have, behind its end
                assert (await world.names()).count(name) == 1
            else:
                assert operation.state is OperationState.CANCELLED, (at, operation.error)
                assert name not in await world.names()
            if not life.dead:
                break
