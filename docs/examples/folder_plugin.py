"""A whole plug-in in one file: the folders in one directory are the assets, a snapshot is a copy of a folder."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import Conflict, InvalidInput, NotFound
from snapkeep.model.snapshots import Snapshot, SnapshotKind, is_owned_name
from snapkeep.model.work import DiscoveryBatch, Done, Finding, Outcome, Pending, Ticket
from snapkeep.plugin.guards import require_same_asset
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.roles import Roles
from snapkeep.plugin.settings import SystemSettings

CAPABILITIES = frozenset({Capability.CREATE, Capability.DELETE})
END = "end"
HOST = Asset(id="/", kind=AssetKind.HOST, name="folders", capabilities=frozenset({Capability.DISCOVER}))


class FolderSettings(SystemSettings):
    """One directory on the machine of the server."""

    directory: Path = Field(description="Directory whose folders are the assets.")
    snapshots: Path = Field(description="Directory below which the copies are kept.")


class Folders:
    """Plays the roles `Check`, `Discover`, `Create` and `Delete`."""

    def __init__(self, settings: FolderSettings) -> None:
        self._settings = settings

    async def check(self) -> AsyncIterator[Finding]:
        """Say whether the directory can be read."""
        if await asyncio.to_thread(self._settings.directory.is_dir):
            yield Finding(check="directory", outcome=Outcome.OK, message="The directory is there")
            return
        yield Finding(
            check="directory",
            outcome=Outcome.FAILED,
            message=f"There is no directory {self._settings.directory}",
            next_step="Make it, or correct the setting `directory`.",
        )

    async def discover(self, cursor: str | None = None) -> AsyncIterator[DiscoveryBatch]:
        """Yield the host with everything below it: it is little, so one batch will do."""
        if cursor == END:
            yield DiscoveryBatch(cursor=END, complete=True)
            return
        if cursor is not None:
            raise InvalidInput(f"Not a cursor of this discovery: {cursor!r}")
        assets = await asyncio.to_thread(self._assets)
        snapshots = [one for asset in assets for one in await asyncio.to_thread(self._snapshots, asset)]
        yield DiscoveryBatch(assets=(HOST, *assets), snapshots=snapshots, cursor=END, complete=True)

    async def exists(self, asset: Asset, snapshot: Snapshot | None = None) -> bool:
        """Say whether the folder, or this copy of it, is still there."""
        if snapshot is not None:
            return snapshot.id in {one.id for one in await asyncio.to_thread(self._snapshots, asset)}
        return asset.id in {HOST.id, *(one.id for one in await asyncio.to_thread(self._assets))}

    async def start_create(self, asset: Asset, name: str, request_id: str) -> Ticket:
        """Copy the folder. Called again after a crash, it finds the copy that this request made."""
        asset.require(Capability.CREATE)
        if "/" in name or name.startswith(".") or not name.isprintable():
            raise InvalidInput(f"{name!r:.120} is not a name for a snapshot here")
        await asyncio.to_thread(self._copy, asset, name, request_id)
        return Ticket({"asset": asset.id, "name": name})

    async def poll_create(self, ticket: Ticket) -> Pending | Snapshot:
        """Return the snapshot; a system that takes its time would answer `Pending` first."""
        return await asyncio.to_thread(self._snapshot, self._place(ticket["asset"]) / ticket["name"])

    async def start_delete(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Ticket:
        """Delete the copy. One that is gone already is success."""
        asset.require(Capability.DELETE)
        require_same_asset(asset, snapshot)
        await asyncio.to_thread(shutil.rmtree, self._place(asset.id) / snapshot.name, ignore_errors=True)
        return Ticket({"asset": asset.id, "name": snapshot.name})

    async def poll_delete(self, ticket: Ticket) -> Pending | Done:
        """Look whether it is gone, instead of trusting the deletion."""
        left = await asyncio.to_thread((self._place(ticket["asset"]) / ticket["name"]).exists)
        return Pending() if left else Done()

    # -- the directories -----------------------------------------------------------------------------------------
    def _assets(self) -> list[Asset]:
        return [
            Asset(
                id=folder.name,
                kind=AssetKind.FILE_SYSTEM,
                name=folder.name,
                parent_id=HOST.id,
                capabilities=CAPABILITIES,
            )
            for folder in sorted(self._settings.directory.iterdir())
            if folder.is_dir()
        ]

    def _copy(self, asset: Asset, name: str, request_id: str) -> None:
        source, target = self._settings.directory / asset.id, self._place(asset.id) / name
        mark = self._place(asset.id) / f".{name}.request"
        if not source.is_dir():
            raise NotFound(f"There is no folder {asset.name!r} any more")
        if target.exists():
            if mark.exists() and mark.read_text() == request_id:
                return
            raise Conflict(f"{asset.name!r} has a snapshot {name!r} already")
        half = target.with_name(f".{name}.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half, symlinks=True)
        mark.write_text(request_id)
        half.rename(target)

    def _place(self, asset_id: str) -> Path:
        return self._settings.snapshots / asset_id

    def _snapshots(self, asset: Asset) -> list[Snapshot]:
        return [self._snapshot(path) for path in sorted(self._place(asset.id).glob("[!.]*"))]

    def _snapshot(self, path: Path) -> Snapshot:
        if not path.is_dir():
            raise NotFound(f"There is no snapshot {path.name!r}")
        return Snapshot(
            id=f"{path.parent.name}@{path.name}",
            asset_id=path.parent.name,
            name=path.name,
            kind=SnapshotKind.USER,
            owned=is_owned_name(self._settings.snapshot_prefix, path.name),
            created_at=datetime.fromtimestamp(path.stat().st_ctime, UTC),
        )


@asynccontextmanager
async def connect(settings: FolderSettings) -> AsyncIterator[Roles]:
    """Open the system; a plug-in with connections closes them behind the `yield`."""
    folders = Folders(settings)
    yield Roles(check=folders, discover=folders, create=folders, delete=folders)


PLUGIN = Plugin(
    name="folder",
    title="Folders of the server's machine (an example)",
    settings=FolderSettings,
    capabilities={AssetKind.HOST: frozenset({Capability.DISCOVER}), AssetKind.FILE_SYSTEM: CAPABILITIES},
    connect=connect,
    permissions={
        Capability.DISCOVER: ("read the directory",),
        Capability.CREATE: ("read the directory", "write below `snapshots`"),
        Capability.DELETE: ("write below `snapshots`",),
    },
)
