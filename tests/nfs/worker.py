"""Somebody who exports snapshots of a mounted file system by NFS."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from tests.linux_host.worker import Worker

from snapkeep.model.assets import Asset
from snapkeep.model.exports import AccessMode, BackupHost, Export
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Done, Pending


class Exporter(Worker):
    """Calls assets by short names, as `Worker` does, and remembers them."""

    def __init__(self, mount: Path, **settings: Any) -> None:
        super().__init__(mount, **settings)
        self._known: dict[str, Asset] = {}

    async def asset(self, name: str) -> Asset:
        if name not in self._known:
            self._known[name] = await super().asset(name)
        return self._known[name]

    async def export(
        self, name: str, snapshot: Snapshot, address: str, mode: AccessMode = AccessMode.READ_ONLY
    ) -> Export:
        role = self.roles.export
        assert role is not None
        asset, host = await self.asset(name), BackupHost(name="backup1", address=address)
        made = await role.poll_export(await role.start_export(asset, snapshot, host, mode, [], str(uuid.uuid4())))
        assert not isinstance(made, Pending)
        return made

    async def deport(self, export: Export) -> None:
        role = self.roles.export
        assert role is not None
        ticket = await role.start_deport(export, [], str(uuid.uuid4()))
        assert isinstance(await role.poll_deport(ticket), Done)

    async def opened(self) -> list[tuple[str, str]]:
        """Return snapshot and address of each export."""
        role = self.roles.export
        assert role is not None
        return sorted([(export.snapshot_id, export.host.address) async for export in role.open_exports()])
