"""Assets, snapshots and exports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from snapkeep.catalog.exports import EXPORT_ORDERS
from snapkeep.catalog.inventory import ASSET_ORDERS, SNAPSHOT_ORDERS
from snapkeep.catalog.records import AssetRecord, ExportRecord, SnapshotRecord
from snapkeep.model.access import Action, Visible
from snapkeep.model.assets import AssetKind, Capability
from snapkeep.model.exports import BackupHost
from snapkeep.server.access import Allowed, listed, on_asset, on_export, on_snapshot
from snapkeep.server.conditional import Expected, Known, answered, tag_of
from snapkeep.server.context import Parts
from snapkeep.server.lists import Labels, Name, Part, Since, Until, Wanted, wanted
from snapkeep.server.requester import WOULD, Asker, Cautious
from snapkeep.server.routes_systems import labels_of
from snapkeep.server.schemas import LabelsIn, LabelsOut, Page
from snapkeep.server.schemas_assets import AssetOut
from snapkeep.server.schemas_exports import ExportIn, ExportOut
from snapkeep.server.schemas_operations import OperationOut
from snapkeep.server.schemas_snapshots import CloneIn, ProgramsIn, RestoreIn, SnapshotIn, SnapshotOut

router = APIRouter(tags=["assets"])

Gone = Annotated[bool, Query(description="Also what no longer exists on the system.")]


@router.get("/assets", response_model=Page[AssetOut])
async def list_assets(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.ASSET_READ)],
    page: Annotated[Wanted, wanted(AssetOut, ASSET_ORDERS)],
    system: Name = None,
    name: Name = None,
    q: Part = "",
    kind: AssetKind | None = None,
    label: Labels = None,
    capability: Annotated[Capability | None, Query(description="Only those that can do this.")] = None,
    gone: Gone = False,
) -> Response:
    """List assets."""
    found = await parts.catalog.inventory.assets(
        system,
        name,
        part=q,
        kind=kind,
        labelled=label or (),
        capability=capability,
        gone=gone,
        paging=page.paging,
        visible=visible,
    )
    labels = await parts.catalog.identities.labels_of(item.id for item in found)
    return page.answer([AssetOut.of(item, labels[item.id]) for item in found], found)


@router.get("/assets/{asset_id}")
async def show_asset(
    asset: Annotated[AssetRecord, on_asset(Action.ASSET_READ, counted=True)], parts: Parts
) -> AssetOut:
    """Show one asset."""
    return AssetOut.of(asset, (await parts.catalog.identities.labels_of([asset.id]))[asset.id])


@router.get("/assets/{asset_id}/labels", response_model=LabelsOut)
async def show_asset_labels(
    asset: Annotated[AssetRecord, on_asset(Action.ASSET_READ)], parts: Parts, known: Known
) -> Response:
    """Show the labels of an asset."""
    labels = await labels_of(asset.id, parts)
    return known.answer(labels, tag_of(labels))


@router.put("/assets/{asset_id}/labels", response_model=AssetOut)
async def label_asset(
    expected: Expected,
    asset: Annotated[AssetRecord, on_asset(Action.ASSET_LABEL, counted=True)],
    body: LabelsIn,
    parts: Parts,
) -> Response:
    """Give an asset these labels, and no others. The ETag is that of the labels."""
    expected.require(tag_of(await labels_of(asset.id, parts)))
    await parts.identities.set_labels(asset.id, body.labels)
    labels = await labels_of(asset.id, parts)
    return answered(AssetOut.of(asset, labels.labels), tag_of(labels))


@router.post("/assets/{asset_id}/snapshots", status_code=status.HTTP_202_ACCEPTED)
async def create_snapshot(
    asset: Annotated[AssetRecord, on_asset(Action.SNAPSHOT_CREATE)],
    body: SnapshotIn,
    parts: Parts,
    access: Allowed,
    caller: Asker,
) -> OperationOut:
    """Take a snapshot of an asset; hold others at a consistent point, and run programs before and after, if wanted."""
    operation = await parts.operations.create(
        asset,
        body.name,
        caller,
        quiesce=await access.quiesced(body.quiesce),
        quiesce_seconds=body.quiesce_seconds,
        programs=await access.programs(ProgramsIn.named(body.programs)),
    )
    return OperationOut.of(operation)


@router.get("/snapshots", response_model=Page[SnapshotOut])
async def list_snapshots(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.SNAPSHOT_READ)],
    page: Annotated[Wanted, wanted(SnapshotOut, SNAPSHOT_ORDERS)],
    system: Name = None,
    asset_id: Name = None,
    name: Name = None,
    q: Part = "",
    owned: Annotated[bool | None, Query(description="Only those made by Snapkeep; false: by others.")] = None,
    since: Since = None,
    until: Until = None,
    gone: Gone = False,
) -> Response:
    """List snapshots; `since` and `until` go by when they were created."""
    found = await parts.catalog.inventory.snapshots(
        system,
        asset_id,
        name,
        part=q,
        owned=owned,
        since=since,
        until=until,
        gone=gone,
        paging=page.paging,
        visible=visible,
    )
    return page.answer([SnapshotOut.of(item) for item in found], found)


@router.get("/snapshots/{snapshot_id}")
async def show_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.SNAPSHOT_READ)],
) -> SnapshotOut:
    """Show one snapshot."""
    return SnapshotOut.of(snapshot)


@router.delete("/snapshots/{snapshot_id}", status_code=status.HTTP_202_ACCEPTED, responses=WOULD)
async def delete_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.SNAPSHOT_DELETE)], parts: Parts, caller: Cautious
) -> OperationOut:
    """Delete a snapshot, with proof."""
    return OperationOut.of(await parts.operations.delete(snapshot, caller))


@router.post("/snapshots/{snapshot_id}/restore", status_code=status.HTTP_202_ACCEPTED, responses=WOULD)
async def restore_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.SNAPSHOT_RESTORE)],
    body: RestoreIn,
    parts: Parts,
    caller: Cautious,
) -> OperationOut:
    """Turn the asset back to this snapshot, in place."""
    return OperationOut.of(await parts.operations.restore(snapshot, body.confirmation, caller))


@router.post("/snapshots/{snapshot_id}/clone", status_code=status.HTTP_202_ACCEPTED, responses=WOULD)
async def clone_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.SNAPSHOT_CLONE)],
    body: CloneIn,
    parts: Parts,
    caller: Cautious,
) -> OperationOut:
    """Make a new asset from this snapshot."""
    return OperationOut.of(await parts.operations.clone(snapshot, body.name, body.confirmation, caller))


@router.post("/snapshots/{snapshot_id}/exports", status_code=status.HTTP_202_ACCEPTED)
async def export_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.EXPORT_OPEN)], body: ExportIn, parts: Parts, caller: Asker
) -> OperationOut:
    """Make this snapshot readable on a backup host."""
    host = BackupHost(name=body.host.name, address=body.host.address)
    return OperationOut.of(await parts.operations.export(snapshot, host, body.mode, caller))


@router.get("/exports", response_model=Page[ExportOut])
async def list_exports(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.EXPORT_READ)],
    page: Annotated[Wanted, wanted(ExportOut, EXPORT_ORDERS)],
    system: Name = None,
    snapshot_id: Name = None,
    host: Annotated[str | None, Query(max_length=253, description="Name or address of a backup host.")] = None,
    ended: Annotated[bool, Query(description="Also those that have ended.")] = False,
) -> Response:
    """List exports."""
    found = await parts.catalog.exports.find(
        system=system, snapshot_row=snapshot_id, host=host, ended=ended, paging=page.paging, visible=visible
    )
    return page.answer([ExportOut.of(item) for item in found], found)


@router.get("/exports/{export_id}")
async def show_export(export: Annotated[ExportRecord, on_export(Action.EXPORT_READ)]) -> ExportOut:
    """Show one export."""
    return ExportOut.of(export)


@router.delete("/exports/{export_id}", status_code=status.HTTP_202_ACCEPTED, responses=WOULD)
async def deport(
    export: Annotated[ExportRecord, on_export(Action.EXPORT_CLOSE)], parts: Parts, caller: Cautious
) -> OperationOut:
    """Take an export back (deport)."""
    return OperationOut.of(await parts.operations.deport(export, caller))
