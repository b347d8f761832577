"""Asking again for what an operation was asked for: from its recorded request back to the question."""

from __future__ import annotations

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import (
    AssetRecord,
    BackupRecord,
    OperationRecord,
    SnapshotRecord,
)
from snapkeep.model.errors import InvalidInput
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.model.snapshots import is_owned_name
from snapkeep.operations.asking import owner_mark
from snapkeep.operations.kinds.quiesce import asked_for
from snapkeep.operations.proving import Proving
from snapkeep.operations.requester import Requester


async def ask_again(
    operations: Proving, catalog: Catalog, operation: OperationRecord, by: Requester
) -> OperationRecord:
    """Ask for the same as a new operation. Raises what the question raises now, NotFound for what is gone."""
    request, inventory = operation.request, catalog.inventory

    async def snapshot(key: str = "snapshot_id") -> SnapshotRecord:
        return await inventory.snapshot(request[key])

    match operation.kind:
        case "discover":
            return await operations.discover(await catalog.systems.get(operation.system_id), by)
        case "reconcile":
            system = await catalog.systems.get(operation.system_id)
            return await operations.reconcile(system, by, apply=request["apply"])
        case "create":
            asset = await inventory.asset(request["asset_id"])
            ours = is_owned_name(owner_mark(await catalog.systems.get(operation.system_id)), request["name"])
            how = await asked_for(catalog, request)
            return await operations.create(asset, None if ours else request["name"], by, **how)
        case "delete":
            return await operations.delete(await snapshot(), by)
        case "restore":
            return await operations.restore(await snapshot(), request["confirmation"], by)
        case "clone":
            return await operations.clone(await snapshot(), request["name"], request["confirmation"], by)
        case "export":
            return await operations.export(
                await snapshot(), BackupHost(**request["host"]), AccessMode(request["mode"]), by
            )
        case "deport":
            return await operations.deport(await catalog.exports.get(request["export_id"]), by)
        case "diff":
            base = await snapshot("base_id") if request["base_id"] else None
            return await operations.diff(await inventory.asset(request["asset_id"]), base, await snapshot("new_id"), by)
        case "compare":
            base = await snapshot("base_id") if request["base_id"] else None
            asset = await inventory.asset(request["asset_id"])
            source, verify = request["source"], request["verify"]
            return await operations.compare(asset, base, await snapshot("new_id"), by, source=source, verify=verify)
    return await _move_again(operations, catalog, operation, by)


async def _move_again(
    operations: Proving, catalog: Catalog, operation: OperationRecord, by: Requester
) -> OperationRecord:
    request = operation.request
    repository = await catalog.repositories.get(request["repository_id"])
    match operation.kind:
        case "backup":
            asset = await catalog.inventory.asset(request["asset_id"])
            how = {"full": request["full"], "keep_base": request["keep_base"], **await asked_for(catalog, request)}
            return await operations.back_up(asset, repository, by, **how)
        case "recover":
            backup = await catalog.backups.get(request["backup_id"])
            if request["target"] is None:
                return await operations.put_back(backup, request["paths"], request["confirmation"], by)
            overwrite = request["overwrite"]  # what it may have refused to replace is somebody's
            return await operations.recover(backup, request["target"], request["paths"], by, overwrite=overwrite)
        case "check":
            return await operations.check_repository(repository, request["data"], by)
        case "verify" | "drill":
            of: AssetRecord | BackupRecord
            if request["backup_id"] is not None:
                of = await catalog.backups.get(request["backup_id"])
            else:
                of = await catalog.inventory.asset(request["asset_id"])
            if operation.kind == "verify":
                return await operations.verify(of, repository, by, data=request["data"])
            how = {"files": request["files"], "most_bytes": request["bytes"], "check": request["check"]}
            return await operations.drill(of, repository, by, **how)
    raise InvalidInput(f"A {operation.kind} cannot be retried; ask for it anew")
