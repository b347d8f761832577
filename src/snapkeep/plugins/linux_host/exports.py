"""Export and deport: a link on this machine, or an export of the host's kernel NFS server.

**On this machine** a snapshot is exported by a link, and deported by removing it: who backs up goes by the link. Its
kind of file system says where it is. **To others** by the host's own NFS server (`nfs.py`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote, unquote_to_bytes

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import SnapkeepError, Unavailable, Unsupported
from snapkeep.model.exports import AccessMode, BackupHost, Export, Location, Protocol
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Done, Pending, Ticket
from snapkeep.plugin.guards import require_address, require_same_asset
from snapkeep.plugins.linux_host.file_systems.kind import Kind, Kinds
from snapkeep.plugins.linux_host.host import Host, persistent
from snapkeep.plugins.linux_host.nfs import Exportfs
from snapkeep.plugins.linux_host.places import shown
from snapkeep.plugins.linux_host.settings import LinuxHostSettings


class Exports:
    """Plays the role `ExportDeport`."""

    def __init__(self, host: Host, kinds: Kinds, settings: LinuxHostSettings) -> None:
        self._host = host
        self._kinds = kinds
        self._nfs = Exportfs(host, settings) if settings.nfs == "exportfs" else None

    @persistent
    async def start_export(
        self,
        asset: Asset,
        snapshot: Snapshot,
        host: BackupHost,
        mode: AccessMode,
        others: Sequence[Export],
        request_id: str,
    ) -> Ticket:
        """Open it; what is open already stays so."""
        asset.require(Capability.EXPORT)
        require_same_asset(asset, snapshot)
        require_address(host)
        kind = self._kinds.of(asset.id)
        doing = f"Exporting {snapshot.name!r} of {asset.name!r} to {host.name}"
        path = await kind.path(asset, snapshot)
        if self._nfs is not None:
            try:
                await kind.show(asset.id, snapshot.id)
                await self._nfs.open(doing, path, host.address, mode, kind.fsid(snapshot))
            except SnapkeepError:
                await self._hide(kind, asset.id, snapshot.id)
                raise
        elif self._host.commands.is_local:
            link = await kind.link(asset, snapshot, host.address, mode)
            await self._host.do(doing, "mkdir", "-p", "--", link.rpartition(b"/")[0])
            await self._host.do(doing, "ln", "-sfnT", "--", path, link)
            try:  # after the link: who takes back the last one hides it
                await kind.show(asset.id, snapshot.id)
            except SnapkeepError:
                await self._host.do(doing, "rm", "-f", "--", link)
                await self._hide(kind, asset.id, snapshot.id)
                raise
        else:
            raise Unsupported(
                f"{self._host.name} has no NFS server that Snapkeep may use",
                next_step="Install an NFS server on the host and set `nfs` to exportfs.",
            )
        return Ticket(
            {
                "asset": asset.id,
                "snapshot": snapshot.id,
                "path": quote(path),
                "host": host.name,
                "address": host.address,
                "mode": mode,
            }
        )

    async def poll_export(self, ticket: Ticket) -> Pending | Export:
        """Return the export as it is shown."""
        host = BackupHost(name=ticket["host"], address=ticket["address"])
        path, mode = unquote_to_bytes(ticket["path"]), AccessMode(ticket["mode"])
        async for export, location in self._open(await self._of(ticket["asset"])):
            if (export.snapshot_id, export.host.address) == (ticket["snapshot"], host.address):
                return Export(
                    snapshot_id=ticket["snapshot"],
                    asset_id=ticket["asset"],
                    host=host,
                    mode=mode,
                    locations=(location,),
                )
        raise Unavailable(
            f"{self._host.name} does not show the export of {shown(path)} that it took",
            next_step="Something else changes its exports; try again.",
        )

    @persistent
    async def start_deport(self, export: Export, others: Sequence[Export], request_id: str) -> Ticket:
        """Close it; what is not open is success. With the last one the snapshot is hidden."""
        async for found, location in self._open(await self._of(export.asset_id)):
            if _same(found, export):
                await self._close(found, location)
        if export.asset_id:
            await self._hide(self._kinds.of(export.asset_id), export.asset_id, export.snapshot_id)
        return Ticket({"asset": export.asset_id, "snapshot": export.snapshot_id, "address": export.host.address})

    async def poll_deport(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` when it is not shown any more; it was closed at once, or never."""
        async for found, _ in self._open(await self._of(ticket["asset"])):
            if (found.snapshot_id, found.host.address) == (ticket["snapshot"], ticket["address"]):
                raise Unavailable(
                    f"{self._host.name} still shows the export to {found.host.address} that it closed",
                    next_step="Something else opens it again; try again.",
                )
        return Done()

    async def open_exports(self) -> AsyncIterator[Export]:
        """Yield what is open: all that lies in places of ours."""
        async for export, _ in self._open(await self._kinds.present()):
            yield export

    # -- what is open --------------------------------------------------------------------------------------------
    async def _open(self, kinds: Sequence[Kind]) -> AsyncIterator[tuple[Export, Location]]:
        """Yield the exports with where they are; of snapshots that are gone, too."""
        if self._nfs is not None:
            indexes = [await kind.index() for kind in kinds]
            async for path, address in self._nfs.exported():
                if found := next(filter(None, (index(path) for index in indexes)), None):
                    export = _export(found.snapshot_id, found.asset_id, address, AccessMode.READ_ONLY)
                    yield export, self._nfs.location(path)
            return
        if not self._host.commands.is_local:
            return
        for kind in kinds:
            for link in await kind.links():
                writes = link.mode is AccessMode.READ_WRITE and link.live is not None
                location = Location(
                    protocol=Protocol.LOCAL,
                    path=os.fsdecode(link.path),
                    live=os.fsdecode(link.live) if writes and link.live else None,
                )
                yield _export(link.snapshot_id, link.asset_id, link.address, link.mode), location

    async def _of(self, asset_id: str) -> Sequence[Kind]:
        """Return the kind of an asset; all of them when it is not known any more."""
        return [self._kinds.of(asset_id)] if asset_id else await self._kinds.present()

    async def _hide(self, kind: Kind, asset_id: str, snapshot_id: str) -> None:
        """Undo `show` when no export needs it any more; also what a worker that died has left."""
        if not kind.shows or await self._is_open(kind, asset_id, snapshot_id):
            return
        await kind.hide(asset_id, snapshot_id)
        if await self._is_open(kind, asset_id, snapshot_id):  # somebody opened it meanwhile, and found it shown
            await kind.show(asset_id, snapshot_id)

    async def _is_open(self, kind: Kind, asset_id: str, snapshot_id: str) -> bool:
        async for found, _ in self._open([kind]):
            if (found.asset_id, found.snapshot_id) == (asset_id, snapshot_id):
                return True
        return False

    async def _close(self, export: Export, location: Location) -> None:
        doing = f"Deporting from {export.host.name}"
        if self._nfs is not None:
            await self._nfs.close(doing, location, export.host.address)
        else:
            await self._host.do(doing, "rm", "-f", "--", os.fsencode(location.path))


def _export(snapshot: str, asset: str, address: str, mode: AccessMode) -> Export:
    return Export(
        snapshot_id=snapshot, asset_id=asset, host=BackupHost(name=address, address=address), mode=mode, locations=()
    )


def _same(found: Export, wanted: Export) -> bool:
    return (found.host.address, found.asset_id, found.snapshot_id) == (
        wanted.host.address,
        wanted.asset_id,
        wanted.snapshot_id,
    )
