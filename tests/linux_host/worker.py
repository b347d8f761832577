"""Somebody who works with the plug-in on a mounted file system, by short names of its subvolumes."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from snapkeep.model.assets import Asset
from snapkeep.model.changes import Change
from snapkeep.model.snapshots import Snapshot, new_snapshot_name
from snapkeep.model.work import ChangeBatch, Pending
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.linux_host import PLUGIN


class Worker:
    """Connects for as long as its context lasts."""

    def __init__(self, mount: Path, **settings: Any) -> None:
        self._mount = mount
        self._settings = PLUGIN.settings.parse({"only": [str(mount)], **settings})
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.roles: Roles = await self._stack.enter_async_context(PLUGIN.connect(self._settings))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def everything(self) -> tuple[list[Asset], list[Snapshot]]:
        assets: dict[str, Asset] = {}
        snapshots: list[Snapshot] = []
        async for batch in self.roles.discover.discover():
            assets.update((asset.id, asset) for asset in batch.assets)
            snapshots += batch.snapshots
        return list(assets.values()), snapshots

    async def asset(self, name: str) -> Asset:
        wanted = str(self._mount / name).strip("/")
        return next(asset for asset in (await self.everything())[0] if asset.name == wanted)

    async def create(self, name: str, called: str | None = None) -> Snapshot:
        role = self.roles.create
        assert role is not None
        chosen = called or new_snapshot_name("NB", datetime.now(UTC))
        made = await role.poll_create(await role.start_create(await self.asset(name), chosen, str(uuid.uuid4())))
        assert not isinstance(made, Pending)
        return made

    async def diff(self, name: str, base: Snapshot | None, new: Snapshot) -> list[Change]:
        role = self.roles.diff_files
        assert role is not None
        ticket = await role.start_diff(await self.asset(name), base, new, str(uuid.uuid4()))
        found: list[Change] = []
        async for batch in role.read_diff(ticket):
            assert isinstance(batch, ChangeBatch)
            found += batch.changes
        return found

    def path(self, name: str, snapshot: Snapshot) -> Path:
        return self._mount / name / ".snapkeep" / snapshot.name
