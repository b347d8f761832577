"""Export and deport: a link on this machine, or an export of the host's kernel NFS server.

**On this machine** a snapshot is exported by a link, `.snapkeep/.exports/<mode>/<address>/<snapshot>` in its asset, and
deported by removing it: who backs up goes by the link. **To others** by exportfs(8), to one address, read-only; such an
export ends with a restart of the host.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from urllib.parse import quote, unquote_to_bytes

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import NotFound, Unavailable, Unsupported
from snapkeep.model.exports import AccessMode, BackupHost, Export, Location, Protocol
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Done, Pending, Ticket
from snapkeep.plugin.guards import require_address, require_same_asset
from snapkeep.plugins.linux_host import mapping
from snapkeep.plugins.linux_host.btrfs import Btrfs
from snapkeep.plugins.linux_host.host import Host, persistent
from snapkeep.plugins.linux_host.places import CONTAINER, Place, Places, make_id, shown
from snapkeep.plugins.linux_host.settings import LinuxHostSettings
from snapkeep.plugins.linux_host.snapshots import Snapshots

_LINKS = b".exports"
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_CLIENT = re.compile(r"(?P<address>[^(]+)\((?P<options>[^)]*)\)")


class Exports:
    """Plays the role `ExportDeport`."""

    def __init__(
        self, host: Host, btrfs: Btrfs, places: Places, snapshots: Snapshots, settings: LinuxHostSettings
    ) -> None:
        self._host = host
        self._btrfs = btrfs
        self._places = places
        self._snapshots = snapshots
        self._settings = settings

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
        doing = f"Exporting {snapshot.name!r} of {asset.name!r} to {host.name}"
        path = await self._snapshots.path(asset, snapshot)
        if path is None or not await self._snapshots.is_there(path, snapshot.id):
            raise NotFound(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")
        place = await self._places.find(asset.id)
        if self._settings.nfs == "exportfs":
            options = f"ro,no_subtree_check,no_root_squash,sec=sys,fsid={snapshot.id}"
            await self._host.do(doing, "exportfs", "-o", options, _client(host.address).encode() + b":" + path)
        elif self._host.commands.is_local:
            link = _link(place, host.address, mode, path)
            await self._host.do(doing, "mkdir", "-p", "--", link.rpartition(b"/")[0])
            await self._host.do(doing, "ln", "-sfnT", "--", path, link)
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
                "live": quote(place.path),
                "host": host.name,
                "address": host.address,
                "mode": mode,
            }
        )

    async def poll_export(self, ticket: Ticket) -> Pending | Export:
        """Return the export as it is shown."""
        host = BackupHost(name=ticket["host"], address=ticket["address"])
        path, mode = unquote_to_bytes(ticket["path"]), AccessMode(ticket["mode"])
        async for export, location in self._open():
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
        """Close it; what is not open is success."""
        async for found, location in self._open():
            if _same(found, export):
                await self._close(found, location)
        return Ticket({"asset": export.asset_id, "snapshot": export.snapshot_id, "address": export.host.address})

    async def poll_deport(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` when it is not shown any more; it was closed at once, or never."""
        async for found, _ in self._open():
            if (found.snapshot_id, found.host.address) == (ticket["snapshot"], ticket["address"]):
                raise Unavailable(
                    f"{self._host.name} still shows the export to {found.host.address} that it closed",
                    next_step="Something else opens it again; try again.",
                )
        return Done()

    async def open_exports(self) -> AsyncIterator[Export]:
        """Yield what is open: all that lies in places of ours."""
        async for export, _ in self._open():
            yield export

    # -- what is open --------------------------------------------------------------------------------------------
    async def _open(self) -> AsyncIterator[tuple[Export, Location]]:
        """Yield the exports with where they are; of snapshots that are gone, too."""
        systems = await self._places.file_systems()
        by_path = {
            path: item.uuid
            for system in systems
            for item in system.subvolumes
            if item.read_only and (path := system.path(item.path)) is not None
        }
        if self._settings.nfs == "exportfs":
            async for path, address in self._exported():
                asset = next(
                    (
                        make_id(system.uuid, item.path)
                        for system in systems
                        for item in system.subvolumes
                        if path.rpartition(b"/")[0] == (system.path(item.path) or b"") + b"/" + CONTAINER
                    ),
                    "",
                )
                name = self._settings.nfs_address or self._settings.host or "localhost"
                options = {"ro": "", "port": str(self._settings.nfs_port)}
                yield (
                    _export(by_path.get(path, ""), asset, address, AccessMode.READ_ONLY),
                    Location(protocol=Protocol.NFS, path="", source=f"{name}:{shown(path)}", options=options),
                )
            return
        if not self._host.commands.is_local:
            return
        for system in systems:
            for item in system.subvolumes:
                top = system.path(item.path)
                if top is None or not mapping.is_asset(item):
                    continue
                async for link in self._links(top.rstrip(b"/") + b"/" + CONTAINER):
                    mode, address = (part.decode() for part in link.split(b"/")[:2])
                    where = top.rstrip(b"/") + b"/" + CONTAINER + b"/" + _LINKS + b"/" + link
                    target = await self._host.marked(where)
                    uuid = by_path.get((target or "").encode("utf-8", "surrogateescape"), "")
                    writes = AccessMode(mode) is AccessMode.READ_WRITE
                    yield (
                        _export(uuid, make_id(system.uuid, item.path), address, AccessMode(mode)),
                        Location(
                            protocol=Protocol.LOCAL,
                            path=where.decode("utf-8", "surrogateescape"),
                            live=top.decode("utf-8", "surrogateescape") if writes else None,
                        ),
                    )

    async def _links(self, container: bytes) -> AsyncIterator[bytes]:
        done = await self._host.run(
            "find", container + b"/" + _LINKS, "-mindepth", "3", "-maxdepth", "3", "-type", "l", "-printf", "%P\\0"
        )
        for link in done.out.split(b"\0")[:-1]:
            with suppress(ValueError):
                AccessMode(link.partition(b"/")[0].decode("ascii", "replace"))
                yield link

    async def _exported(self) -> AsyncIterator[tuple[bytes, str]]:
        """Yield path and address of what `exportfs -s` shows below places of ours."""
        listed = await self._host.do("Listing exports", "exportfs", "-s")
        for line in listed.splitlines():
            path, _, client = line.partition(b"  ")
            match = _CLIENT.fullmatch(client.strip().decode("utf-8", "replace"))
            path = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), path)
            if match and CONTAINER in path.split(b"/"):
                yield path, match["address"].strip("[]")

    async def _close(self, export: Export, location: Location) -> None:
        doing = f"Deporting from {export.host.name}"
        if location.protocol is Protocol.LOCAL:
            await self._host.do(doing, "rm", "-f", "--", location.path.encode("utf-8", "surrogateescape"))
            return
        path = location.source.partition(":")[2]
        await self._host.do(doing, "exportfs", "-u", f"{_client(export.host.address)}:{path}")


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


def _link(place: Place, address: str, mode: AccessMode, snapshot: bytes) -> bytes:
    name = snapshot.rpartition(b"/")[2]
    return b"/".join([place.container, _LINKS, mode.encode(), address.encode(), name])


def _client(address: str) -> str:
    return f"[{address}]" if ":" in address else address
