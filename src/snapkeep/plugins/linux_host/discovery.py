"""Discover: the host, its btrfs file systems, their subvolumes and snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator

from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.errors import InvalidInput, Unavailable
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import DiscoveryBatch
from snapkeep.plugins.linux_host import mapping
from snapkeep.plugins.linux_host.places import Places, read_id
from snapkeep.plugins.linux_host.settings import LinuxHostSettings


class Discovery:
    """Plays the role `Discover`."""

    def __init__(self, places: Places, settings: LinuxHostSettings) -> None:
        self._places = places
        self._settings = settings
        self._host = mapping.host_asset(settings.host or "localhost")

    async def discover(self, cursor: str | None = None) -> AsyncIterator[DiscoveryBatch]:
        """Yield a batch for each file system, in the order of their UUIDs. The cursor is that of the last one."""
        if cursor is not None and not cursor.startswith("after:"):
            raise InvalidInput(f"Not a cursor of this discovery: {cursor!r}")
        last = cursor.removeprefix("after:") if cursor else ""
        for system in sorted(await self._places.file_systems(), key=lambda system: system.uuid):
            if system.uuid <= last:
                continue
            last = system.uuid
            volumes = [mapping.volume_asset(system, item) for item in system.subvolumes if mapping.is_asset(item)]
            known = {volume.id for volume in volumes}
            yield DiscoveryBatch(
                assets=[self._host, mapping.file_system_asset(system), *volumes],
                snapshots=[
                    item for item in mapping.snapshots(system, self._settings.snapshot_prefix) if item.asset_id in known
                ],
                cursor=f"after:{last}",
            )
        yield DiscoveryBatch(assets=[self._host], cursor=f"after:{last}", complete=True)

    async def exists(self, asset: Asset, snapshot: Snapshot | None = None) -> bool:
        """Look for one in all that is mounted. Raises Unavailable where its file system is not: it may be there."""
        if asset.kind is AssetKind.HOST:
            return asset.id == self._host.id
        wanted, inside = read_id(asset.id)
        for system in await self._places.file_systems():
            if system.uuid != wanted:
                continue
            if asset.kind is AssetKind.FILE_SYSTEM:
                return True
            if snapshot is not None:
                found = mapping.snapshots(system, self._settings.snapshot_prefix)
                return any((item.id, item.asset_id) == (snapshot.id, asset.id) for item in found)
            return any(item.path == inside and mapping.is_asset(item) for item in system.subvolumes)
        raise Unavailable(
            f"The file system {wanted} of {asset.name!r} is not mounted",
            next_step="Mount it on the host; or, if it is gone for good, remove the system.",
        )
