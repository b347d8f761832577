"""Asking for operations: names to records, admission before any network call, intent, queue."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.operations import ended
from snapkeep.catalog.records import (
    AssetRecord,
    ExportRecord,
    OperationRecord,
    OperationState,
    SnapshotRecord,
    SystemRecord,
)
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, Conflict, InvalidInput, NotFound, SnapkeepError, Timeout
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.model.snapshots import DEFAULT_PREFIX, is_owned_name, new_snapshot_name
from snapkeep.operations import engine as engines
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.run import Limits
from snapkeep.operations.runner import HANDLERS, Runner
from snapkeep.plugin.guards import require_address, require_confirmation, require_older, require_same_asset

log = structlog.get_logger(__name__)

PER_SYSTEM = 8
"""Operations that run at once on one system."""


class Operations:
    """Starts operations and answers for their life."""

    def __init__(self, catalog: Catalog, connections: Connections, engine: engines.Engine, clock: Clock) -> None:
        self._catalog = catalog
        self._connections = connections
        self._engine = engine
        self._clock = clock

    # -- one method for each kind ----------------------------------------------------------------------------------
    async def discover(self, system: SystemRecord, requester: str) -> OperationRecord:
        """Find what lies on a system. One that is under way already is returned instead."""
        for operation in await self._open_operations(system.name):
            if operation.kind == "discover":
                return operation
        return await self._submit("discover", system.id, system.name, system.name, {}, requester)

    async def create(self, asset: AssetRecord, name: str | None, requester: str) -> OperationRecord:
        """Take a snapshot. Without a name it gets a unique one that carries our mark."""
        asset.asset.require(Capability.CREATE)
        system = await self._catalog.systems.get(asset.system_id)
        prefix = str(system.settings.get("snapshot_prefix", DEFAULT_PREFIX))
        if name is not None and is_owned_name(prefix, name):
            raise InvalidInput(
                f"{name!r} looks like a name that Snapkeep makes: {prefix} and digits",
                next_step="Choose another name, or leave it away.",
            )
        chosen = name or new_snapshot_name(prefix, self._clock.now())
        request = {"asset_id": asset.id, "name": chosen}
        return await self._on_asset("create", asset, f"{asset.reference}@{chosen}", request, requester)

    async def delete(self, snapshot: SnapshotRecord, requester: str) -> OperationRecord:
        """Delete a snapshot. Raises Busy while it is exported or another operation needs it."""
        asset = await self._asset_for(snapshot, Capability.DELETE)
        exports = await self._catalog.exports.find(snapshot_row=snapshot.id)
        if exports:
            raise Busy(
                f"{snapshot.reference} is exported to {', '.join(item.export.host.name for item in exports)}",
                next_step=f"First `snapkeep snapshot deport {snapshot.reference}`.",
                dependents=[item.id for item in exports],
            )
        users = [
            operation
            for operation in await self._open_operations(snapshot.system_name)
            if snapshot.id in operation.request.values() and operation.kind != "delete"
        ]
        if users:
            raise Busy(
                f"{snapshot.reference} is needed by {', '.join(f'{item.kind} {item.id}' for item in users)}",
                next_step="Wait for the operation to end, or cancel it.",
                dependents=[item.id for item in users],
            )
        return await self._on_asset("delete", asset, snapshot.reference, {"snapshot_id": snapshot.id}, requester)

    async def restore(self, snapshot: SnapshotRecord, confirmation: str, requester: str) -> OperationRecord:
        """Turn the asset back to the snapshot. `confirmation` must be the asset's name."""
        asset = await self._asset_for(snapshot, Capability.RESTORE)
        require_confirmation(asset.asset, confirmation)
        request = {"snapshot_id": snapshot.id, "confirmation": confirmation}
        return await self._on_asset("restore", asset, snapshot.reference, request, requester)

    async def clone(self, snapshot: SnapshotRecord, name: str, confirmation: str, requester: str) -> OperationRecord:
        """Make a new asset from the snapshot. `confirmation` must be the source asset's name."""
        asset = await self._asset_for(snapshot, Capability.CLONE)
        require_confirmation(asset.asset, confirmation)
        with contextlib.suppress(NotFound):
            await self._catalog.inventory.find_asset(snapshot.system_name, name)
            raise Conflict(f"System {snapshot.system_name!r} has an asset {name!r} already")
        request = {"snapshot_id": snapshot.id, "name": name, "confirmation": confirmation}
        return await self._on_asset("clone", asset, snapshot.reference, request, requester)

    async def export(
        self,
        snapshot: SnapshotRecord,
        host: BackupHost,
        mode: AccessMode,
        requester: str,
        *,
        renews: str | None = None,
    ) -> OperationRecord:
        """Make a snapshot readable on a backup host; repeated, it renews the access.

        `renews`: id of the operation that only renews an export still in force.
        """
        asset = await self._asset_for(snapshot, Capability.EXPORT)
        require_address(host)
        request = {
            "snapshot_id": snapshot.id,
            "host": {"name": host.name, "address": host.address},
            "mode": mode.value,
            "renews": renews is not None,
        }
        return await self._on_asset(
            "export", asset, f"{snapshot.reference} to {host.name}", request, requester, operation_id=renews
        )

    async def deport(self, export: ExportRecord, requester: str) -> OperationRecord:
        """Take an export back; one that has ended is taken back once more, harmlessly."""
        snapshot = await self._catalog.inventory.snapshot(export.snapshot_id)
        asset = await self._catalog.inventory.asset(snapshot.asset_id)
        target = f"{export.reference} from {export.export.host.name}"
        return await self._on_asset("deport", asset, target, {"export_id": export.id}, requester)

    async def diff(
        self, asset: AssetRecord, base: SnapshotRecord | None, new: SnapshotRecord, requester: str
    ) -> OperationRecord:
        """Fetch and store what changed from `base` to `new`; without base, everything in `new`."""
        asset.asset.require(Capability.DIFF_FILES)
        require_same_asset(asset.asset, base.snapshot if base else None, new.snapshot)
        require_older(base.snapshot if base else None, new.snapshot)
        for snapshot in (base, new):
            if snapshot is not None:
                await self._refuse_deleted(snapshot)
        request = {"asset_id": asset.id, "base_id": base.id if base else None, "new_id": new.id}
        begin = base.snapshot.name if base else "(nothing)"
        target = f"{asset.reference}: {begin} to {new.snapshot.name}"
        return await self._on_asset("diff", asset, target, request, requester)

    # -- life --------------------------------------------------------------------------------------------------------
    async def cancel(self, operation: OperationRecord) -> OperationRecord:
        """Ask for the end of an operation. Raises Conflict when it has ended or cannot be taken back any more."""
        if operation.state.ended:
            raise Conflict(f"The operation has ended: {operation.state}", next_step="There is nothing to cancel.")
        if operation.state is OperationState.RUNNING and not HANDLERS[operation.kind].cancellable:
            raise Conflict(
                f"A {operation.kind} that has begun cannot be taken back",
                next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
            )
        await self._catalog.operations.update(operation.id, cancel_requested=True)
        if operation.state is OperationState.QUEUED:
            await self._catalog.operations.end_queued(
                operation.id, **ended(OperationState.CANCELLED, self._clock.now())
            )
        return await self._catalog.operations.get(operation.id)

    async def resume_all(self) -> None:
        """Hand every open operation to the engine; those that it knows are not begun again."""
        for operation_id in await self._catalog.operations.open_ids():
            if await self._engine.has_ended(operation_id):
                error = SnapkeepError("The operation ended without a record of how")
                values = ended(OperationState.FAILED, self._clock.now(), error=error.to_dict())
                await self._catalog.operations.update(operation_id, **values)
            else:
                await self._enqueue(await self._catalog.operations.get(operation_id))

    async def refresh_exports(self) -> None:
        """Renew the exports that are due. One that cannot be renewed does not keep the others from it."""
        now = self._clock.now()
        for record in await self._catalog.exports.due(now):
            try:
                await self._renew(record, now)
            except SnapkeepError as error:
                log.warning("export cannot be renewed", export=record.id, code=error.code, reason=error.message)
                if record.export.expires_at is not None and record.export.expires_at < now:
                    await self._catalog.exports.ended(record.id, now)

    async def _renew(self, record: ExportRecord, now: datetime) -> None:
        """Start the next try to renew, with back-off after failed ones. Raises Timeout once the export has expired."""
        operation_id = ""
        for attempt in itertools.count():
            due = f"refresh {record.export.refresh_at} {attempt}"
            operation_id = str(uuid.uuid5(uuid.UUID(record.id), due))
            try:
                known = await self._catalog.operations.get(operation_id)
            except NotFound:
                break
            pause = timedelta(seconds=min(60, 2**attempt))
            if known.ended_at is None or (now < known.ended_at + pause and not _expired(record, now)):
                return
        if _expired(record, now):
            raise Timeout("The export expired before it could be renewed")
        snapshot = await self._catalog.inventory.snapshot(record.snapshot_id)
        await self.export(snapshot, record.export.host, record.export.mode, "snapkeep", renews=operation_id)

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _asset_for(self, snapshot: SnapshotRecord, capability: Capability) -> AssetRecord:
        asset = await self._catalog.inventory.asset(snapshot.asset_id)
        asset.asset.require(capability)
        if snapshot.gone_at is not None:
            raise NotFound(f"{snapshot.reference} no longer exists on the system")
        if capability is not Capability.DELETE:
            await self._refuse_deleted(snapshot)
        return asset

    async def _refuse_deleted(self, snapshot: SnapshotRecord) -> None:
        """Raise Busy while a delete of the snapshot is under way."""
        for operation in await self._open_operations(snapshot.system_name):
            if operation.kind == "delete" and operation.request["snapshot_id"] == snapshot.id:
                raise Busy(
                    f"{snapshot.reference} is being deleted",
                    next_step=f"See `snapkeep operation show {operation.id}`; choose another snapshot.",
                    dependents=[operation.id],
                )

    async def _open_operations(self, system: str) -> list[OperationRecord]:
        states = (OperationState.QUEUED, OperationState.RUNNING)
        return await self._catalog.operations.find(system=system, states=states, limit=10_000)

    async def _on_asset(
        self,
        kind: str,
        asset: AssetRecord,
        target: str,
        request: Mapping[str, Any],
        requester: str,
        *,
        operation_id: str | None = None,
    ) -> OperationRecord:
        named = {"asset_id": asset.id, **request}
        return await self._submit(
            kind, asset.system_id, asset.system_name, target, named, requester, operation_id=operation_id
        )

    async def _submit(
        self,
        kind: str,
        system_id: str,
        system_name: str,
        target: str,
        request: dict[str, Any],
        requester: str,
        *,
        operation_id: str | None = None,
    ) -> OperationRecord:
        """Record the intent, then queue it; a crash in between is mended by `resume_all`."""
        operation = await self._catalog.operations.add(
            operation_id=operation_id or self._clock.new_id(),
            kind=kind,
            system_id=system_id,
            system_name=system_name,
            target=target,
            request=request,
            requester=requester,
            now=self._clock.now(),
        )
        await self._enqueue(operation)
        return operation

    async def _enqueue(self, operation: OperationRecord) -> None:
        if operation.kind in {"export", "deport", "delete"}:
            # One access entry serves all exports of an asset, and what is exported is not deleted: one by one.
            await self._engine.submit(operation.id, queue=engines.ONE_BY_ONE, key=operation.request["asset_id"])
        else:
            await self._engine.submit(operation.id, queue=engines.OPERATIONS, key=operation.system_id)


def _expired(record: ExportRecord, now: datetime) -> bool:
    return record.export.expires_at is not None and record.export.expires_at < now


@asynccontextmanager
async def open_operations(
    catalog: Catalog,
    engine_path: Path,
    *,
    executor_id: str,
    clock: Clock | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[Operations, Connections]]:
    """Run the engine over a catalog; what an earlier process left unfinished goes on."""
    clock = clock or Clock()
    connections = Connections(catalog.systems)
    runner = Runner(catalog, connections, clock, limits or Limits())
    try:
        async with engines.launch(engine_path, runner, executor_id=executor_id, per_system=PER_SYSTEM) as engine:
            operations = Operations(catalog, connections, engine, clock)
            await operations.resume_all()
            yield operations, connections
    finally:
        await connections.close_all()
