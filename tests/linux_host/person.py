"""Somebody who works with the plug-in on whatever the host has, by names of assets."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from snapkeep.model.assets import Asset
from snapkeep.model.exports import AccessMode, BackupHost, Export
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Done, Finding
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.linux_host import PLUGIN

HERE = BackupHost(name="here", address="127.0.0.1")
NAME = "NB17953634250000000001"


class Person:
    """Somebody who works with the plug-in."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles

    async def asset(self, name: str) -> Asset:
        async for batch in self.roles.discover.discover():
            for asset in batch.assets:
                if asset.name == name:
                    return asset
        raise AssertionError(name)

    async def snapshots(self, asset: Asset) -> dict[str, Snapshot]:
        batches = [batch async for batch in self.roles.discover.discover()]
        return {item.name: item for batch in batches for item in batch.snapshots if item.asset_id == asset.id}

    async def create(self, asset: Asset, name: str = NAME) -> Snapshot:
        assert self.roles.create is not None
        made = await self.roles.create.poll_create(await self.roles.create.start_create(asset, name, new_id()))
        assert isinstance(made, Snapshot)
        return made

    async def delete(self, asset: Asset, snapshot: Snapshot) -> None:
        assert self.roles.delete is not None
        ticket = await self.roles.delete.start_delete(asset, snapshot, new_id())
        assert await self.roles.delete.poll_delete(ticket) == Done()

    async def restore(self, asset: Asset, snapshot: Snapshot, request: str) -> None:
        assert self.roles.restore is not None
        ticket = await self.roles.restore.start_restore(asset, snapshot, asset.name, request)
        assert await self.roles.restore.poll_restore(ticket) == Done()

    async def clone(self, asset: Asset, snapshot: Snapshot, name: str) -> Asset:
        assert self.roles.clone is not None
        ticket = await self.roles.clone.start_clone(asset, snapshot, name, asset.name, new_id())
        made = await self.roles.clone.poll_clone(ticket)
        assert isinstance(made, Asset)
        return made

    async def export(self, asset: Asset, snapshot: Snapshot) -> Export:
        role = self.roles.export
        assert role is not None
        ticket = await role.start_export(asset, snapshot, HERE, AccessMode.READ_ONLY, (), new_id())
        export = await role.poll_export(ticket)
        assert isinstance(export, Export)
        return export

    async def deport(self, export: Export) -> None:
        assert self.roles.export is not None
        await self.roles.export.start_deport(export, (), new_id())

    async def check(self) -> dict[str, Finding]:
        return {finding.check: finding async for finding in self.roles.check.check()}


def new_id() -> str:
    return str(uuid.uuid4())


@asynccontextmanager
async def person(**settings: Any) -> AsyncIterator[Person]:
    async with PLUGIN.connect(PLUGIN.settings.parse(settings)) as roles:
        yield Person(roles)
