"""Discover: the host, its file systems, what can be protected in them, and the snapshots of that."""

from __future__ import annotations

from collections.abc import AsyncIterator

from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.errors import InvalidInput
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import DiscoveryBatch
from snapkeep.plugins.linux_host import mapping
from snapkeep.plugins.linux_host.file_systems.kind import Kinds
from snapkeep.plugins.linux_host.mounts import PREFIX, Mounts
from snapkeep.plugins.linux_host.quiesce import HOOK_PREFIX, hook_asset
from snapkeep.plugins.linux_host.settings import LinuxHostSettings


class Discovery:
    """Plays the role `Discover`."""

    def __init__(self, kinds: Kinds, mounts: Mounts, settings: LinuxHostSettings) -> None:
        self._kinds = kinds
        self._mounts = mounts
        self._applications = [hook_asset(name, hook) for name, hook in settings.hooks.items()]
        self._host = mapping.host_asset(settings.host or "localhost")

    async def discover(self, cursor: str | None = None) -> AsyncIterator[DiscoveryBatch]:
        """Yield a batch for each file system, pool and volume group, in the order of their ids; then what can be held.

        The cursor is that of the last one.
        """
        if cursor is not None and not cursor.startswith("after:"):
            raise InvalidInput(f"Not a cursor of this discovery: {cursor!r}")
        last = cursor.removeprefix("after:") if cursor else ""
        groups = [group for kind in await self._kinds.present() for group in await kind.groups()]
        for group in sorted(groups, key=lambda group: group.key):
            if group.key <= last:
                continue
            last = group.key
            yield DiscoveryBatch(assets=[self._host, *group.assets], snapshots=group.snapshots, cursor=f"after:{last}")
        held = [*await self._mounts.assets(), *self._applications]
        yield DiscoveryBatch(assets=[self._host, *held], cursor=f"after:{last}", complete=True)

    async def exists(self, asset: Asset, snapshot: Snapshot | None = None) -> bool:
        """Look for one in all that there is. Raises Unavailable where that cannot be seen now: it may be there."""
        if asset.kind is AssetKind.HOST:
            return asset.id == self._host.id
        if asset.id.startswith(HOOK_PREFIX):
            return any(known.id == asset.id for known in self._applications)
        if asset.id.startswith(PREFIX):  # nothing of it is lost while it is not mounted
            return any(mounted.id == asset.id for mounted in await self._mounts.mounted())
        return await self._kinds.of(asset.id).exists(asset, snapshot)
