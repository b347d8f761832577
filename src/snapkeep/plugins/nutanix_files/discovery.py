"""Discover: the file server, its shares, and the snapshots of each share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import InvalidInput, NotFound
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import DiscoveryBatch
from snapkeep.plugins.nutanix_files import mapping
from snapkeep.plugins.nutanix_files.client import Json, NutanixClient
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings

CONCURRENT_SHARES = 8
"""Shares whose snapshots are listed at the same time; also what is held in memory at once."""


class Discovery:
    """Plays the role `Discover`."""

    def __init__(self, client: NutanixClient, settings: NutanixFilesSettings) -> None:
        self._client = client
        self._settings = settings

    async def discover(self, cursor: str | None = None) -> AsyncIterator[DiscoveryBatch]:
        """Yield a batch for each group of shares, with all their snapshots.

        The cursor is `<page of the share list>:<shares of it that are done>`.
        """
        first_page, done = _parse_cursor(cursor)
        server = await self._client.file_server()
        yield DiscoveryBatch(assets=[mapping.file_server_asset(server)], cursor=f"{first_page}:{done}")
        path = f"{await self._client.base()}/mount-targets"
        pages = self._client.pages(path, doing="Listing shares", order="name", first=first_page)
        page = first_page - 1
        async for page, shares in pages:
            begin = done if page == first_page else 0
            for start in range(begin, len(shares), CONCURRENT_SHARES):
                group = shares[start : start + CONCURRENT_SHARES]
                yield await self._batch(group, str(server["extId"]), f"{page}:{start + len(group)}")
        yield DiscoveryBatch(cursor=f"{page + 1}:0", complete=True)

    async def _batch(self, shares: list[Json], server_id: str, cursor: str) -> DiscoveryBatch:
        assets = [mapping.share_asset(share, server_id) for share in shares]
        found = await asyncio.gather(*(self._snapshots(asset) for asset in assets))
        return DiscoveryBatch(
            assets=[asset for asset, snapshots in zip(assets, found, strict=True) if snapshots is not None],
            snapshots=[snapshot for snapshots in found for snapshot in snapshots or ()],
            cursor=cursor,
        )

    async def _snapshots(self, asset: Asset) -> list[Snapshot] | None:
        """Return the snapshots of a share; None when the share vanished meanwhile."""
        if Capability.DELETE not in asset.capabilities:
            return []
        path = f"{await self._client.share_path(asset.id)}/snapshots"
        try:
            return [
                mapping.snapshot(item, asset.id, self._settings.snapshot_prefix)
                async for _, page in self._client.pages(path, doing=f"Listing snapshots of {asset.name!r}")
                for item in page
            ]
        except NotFound:
            return None


def _parse_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    page, _, done = cursor.partition(":")
    if not (page.isascii() and page.isdigit() and done.isascii() and done.isdigit()):
        raise InvalidInput(f"Not a cursor of this discovery: {cursor!r}")
    return int(page), int(done)
