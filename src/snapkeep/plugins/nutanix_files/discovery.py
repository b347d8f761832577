"""Discover: the file server, its shares, and the snapshots of each share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import InvalidInput, NotFound
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import DiscoveryBatch
from snapkeep.plugins.nutanix_files import mapping
from snapkeep.plugins.nutanix_files.client import Json, NutanixClient
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings

CONCURRENT_SHARES = 8
"""Shares whose snapshots are listed at the same time."""


class Discovery:
    """Plays the role `Discover`."""

    def __init__(self, client: NutanixClient, settings: NutanixFilesSettings) -> None:
        self._client = client
        self._settings = settings

    async def discover(self, cursor: str | None = None) -> AsyncIterator[DiscoveryBatch]:
        """Yield a batch for each page of shares, with all their snapshots. The cursor is the next page's number."""
        first = _page_number(cursor)
        server = await self._client.file_server()
        top = [mapping.file_server_asset(server)]
        path = f"{await self._client.base()}/mount-targets"
        following = first
        async for page, shares in self._client.pages(path, doing="Listing shares", order="name", first=first):
            following = page + 1
            yield await self._batch(top, shares, str(following))
        yield DiscoveryBatch(assets=top, cursor=str(following), complete=True)

    async def exists(self, asset: Asset, snapshot: Snapshot | None = None) -> bool:
        """Ask for the one entity: only 404 says that it is gone."""
        if asset.kind is AssetKind.FILE_SERVER:
            return asset.id == (await self._client.file_server()).get("extId")
        path = await self._client.share_path(asset.id)
        if snapshot is not None:
            path = await self._client.snapshot_path(asset.id, snapshot.id)
        try:
            await self._client.entity(path, doing=f"Looking for {snapshot.name if snapshot else asset.name!r}")
        except NotFound:
            return False
        return True

    async def _batch(self, top: list[Asset], shares: list[Json], cursor: str) -> DiscoveryBatch:
        assets = top + [mapping.share_asset(share, top[0].id) for share in shares]
        gate = asyncio.Semaphore(CONCURRENT_SHARES)
        asked = [asyncio.ensure_future(self._snapshots(asset, gate)) for asset in assets]
        try:
            found = await asyncio.gather(*asked)
        finally:  # when one is refused, the others end before the session does
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return DiscoveryBatch(
            assets=[asset for asset, snapshots in zip(assets, found, strict=True) if snapshots is not None],
            snapshots=[snapshot for snapshots in found for snapshot in snapshots or ()],
            cursor=cursor,
        )

    async def _snapshots(self, asset: Asset, gate: asyncio.Semaphore) -> list[Snapshot] | None:
        """Return the snapshots of a share; None when the share vanished meanwhile."""
        if Capability.DELETE not in asset.capabilities:
            return []
        path = f"{await self._client.share_path(asset.id)}/snapshots"
        doing = f"Listing snapshots of {asset.name!r}"
        try:
            async with gate:
                return [
                    mapping.snapshot(item, asset.id, self._settings.snapshot_prefix)
                    async for _, page in self._client.pages(path, doing=doing, order="name")
                    for item in page
                ]
        except NotFound:
            return None


def _page_number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidInput(f"Not a cursor of this discovery: {cursor!r}")
    return int(cursor)
