"""Assets, snapshots and exports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from snapkeep.model.exports import BackupHost
from snapkeep.server.context import Caller, Parts
from snapkeep.server.schemas import (
    AssetOut,
    CloneIn,
    ExportIn,
    ExportOut,
    OperationOut,
    Page,
    RestoreIn,
    SnapshotIn,
    SnapshotOut,
)

router = APIRouter(tags=["assets"])

Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of one page.")]
After = Annotated[str, Query(max_length=36, description="Cursor: `next` of the page before.")]
Gone = Annotated[bool, Query(description="Also what no longer exists on the system.")]


@router.get("/assets")
async def list_assets(
    parts: Parts,
    system: str | None = None,
    name: str | None = None,
    gone: Gone = False,
    limit: Limit = 1000,
    after: After = "",
) -> Page[AssetOut]:
    """List assets, ordered by system and name."""
    found = await parts.catalog.inventory.assets(system, name, gone=gone, limit=limit, after=after)
    return Page(data=[AssetOut.of(item) for item in found], next=found[-1].id if len(found) == limit else None)


@router.get("/assets/{asset_id}")
async def show_asset(asset_id: str, parts: Parts) -> AssetOut:
    """Show one asset."""
    return AssetOut.of(await parts.catalog.inventory.asset(asset_id, counted=True))


@router.post("/assets/{asset_id}/snapshots", status_code=status.HTTP_202_ACCEPTED)
async def create_snapshot(asset_id: str, body: SnapshotIn, parts: Parts, caller: Caller) -> OperationOut:
    """Take a snapshot of an asset."""
    asset = await parts.catalog.inventory.asset(asset_id)
    return OperationOut.of(await parts.operations.create(asset, body.name, caller))


@router.get("/snapshots")
async def list_snapshots(
    parts: Parts,
    system: str | None = None,
    asset_id: str | None = None,
    name: str | None = None,
    gone: Gone = False,
    limit: Limit = 1000,
    after: After = "",
) -> Page[SnapshotOut]:
    """List snapshots, ordered by system, asset and name."""
    found = await parts.catalog.inventory.snapshots(system, asset_id, name, gone=gone, limit=limit, after=after)
    return Page(data=[SnapshotOut.of(item) for item in found], next=found[-1].id if len(found) == limit else None)


@router.get("/snapshots/{snapshot_id}")
async def show_snapshot(snapshot_id: str, parts: Parts) -> SnapshotOut:
    """Show one snapshot."""
    return SnapshotOut.of(await parts.catalog.inventory.snapshot(snapshot_id))


@router.delete("/snapshots/{snapshot_id}", status_code=status.HTTP_202_ACCEPTED)
async def delete_snapshot(snapshot_id: str, parts: Parts, caller: Caller) -> OperationOut:
    """Delete a snapshot, with proof."""
    snapshot = await parts.catalog.inventory.snapshot(snapshot_id)
    return OperationOut.of(await parts.operations.delete(snapshot, caller))


@router.post("/snapshots/{snapshot_id}/restore", status_code=status.HTTP_202_ACCEPTED)
async def restore_snapshot(snapshot_id: str, body: RestoreIn, parts: Parts, caller: Caller) -> OperationOut:
    """Turn the asset back to this snapshot, in place."""
    snapshot = await parts.catalog.inventory.snapshot(snapshot_id)
    return OperationOut.of(await parts.operations.restore(snapshot, body.confirmation, caller))


@router.post("/snapshots/{snapshot_id}/clone", status_code=status.HTTP_202_ACCEPTED)
async def clone_snapshot(snapshot_id: str, body: CloneIn, parts: Parts, caller: Caller) -> OperationOut:
    """Make a new asset from this snapshot."""
    snapshot = await parts.catalog.inventory.snapshot(snapshot_id)
    return OperationOut.of(await parts.operations.clone(snapshot, body.name, body.confirmation, caller))


@router.post("/snapshots/{snapshot_id}/exports", status_code=status.HTTP_202_ACCEPTED)
async def export_snapshot(snapshot_id: str, body: ExportIn, parts: Parts, caller: Caller) -> OperationOut:
    """Make this snapshot readable on a backup host."""
    snapshot = await parts.catalog.inventory.snapshot(snapshot_id)
    host = BackupHost(name=body.host.name, address=body.host.address)
    return OperationOut.of(await parts.operations.export(snapshot, host, body.mode, caller))


@router.get("/exports")
async def list_exports(
    parts: Parts,
    snapshot_id: str | None = None,
    ended: Annotated[bool, Query(description="Also those that have ended.")] = False,
) -> Page[ExportOut]:
    """List exports, the oldest first."""
    found = await parts.catalog.exports.find(snapshot_row=snapshot_id, ended=ended)
    return Page(data=[ExportOut.of(item) for item in found])


@router.get("/exports/{export_id}")
async def show_export(export_id: str, parts: Parts) -> ExportOut:
    """Show one export."""
    return ExportOut.of(await parts.catalog.exports.get(export_id))


@router.delete("/exports/{export_id}", status_code=status.HTTP_202_ACCEPTED)
async def deport(export_id: str, parts: Parts, caller: Caller) -> OperationOut:
    """Take an export back (deport)."""
    export = await parts.catalog.exports.get(export_id)
    return OperationOut.of(await parts.operations.deport(export, caller))
