"""Asking for operations: names to records, admission before any network call, intent, queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.operation_lists import REPOSITORY
from snapkeep.catalog.records import (
    AssetRecord,
    BackupRecord,
    ExportRecord,
    OperationRecord,
    OperationState,
    RepositoryRecord,
    SnapshotRecord,
    SystemRecord,
)
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, Conflict, InvalidInput, NotFound
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.model.programs import NO_PROGRAMS, Programs
from snapkeep.model.snapshots import DEFAULT_PREFIX, is_owned_name, new_snapshot_name
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.dispatch import Dispatcher
from snapkeep.operations.requester import Planned, Requester
from snapkeep.operations.runner import HANDLERS
from snapkeep.plugin.guards import require_address, require_confirmation, require_older, require_same_asset

QUIESCE_SECONDS = 60
"""How long assets are held for a snapshot at the longest, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """On what an operation works, where that is no system, or another queue than the system's does the work."""

    id: str
    name: str
    queue: str

    @classmethod
    def of(cls, system: SystemRecord, queue: str) -> _Subject:
        return cls(system.id, system.name, queue)

    @classmethod
    def repository(cls, repository: RepositoryRecord) -> _Subject:
        return cls(repository.id, f"{REPOSITORY}{repository.name}", repository.queue)


class Asking:
    """One method for each kind of operation. Each records the intent and returns at once."""

    def __init__(
        self,
        catalog: Catalog,
        connections: Connections,
        dispatcher: Dispatcher,
        clock: Clock,
        takeover_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._connections = connections
        self._dispatcher = dispatcher
        self._clock = clock
        self.takeover_seconds = takeover_seconds
        """Without a heartbeat for so long, a worker is held to be dead."""
        self._asking_for_backup = asyncio.Lock()

    async def discover(self, system: SystemRecord, by: Requester) -> OperationRecord:
        """Find what lies on a system. One that is under way already is returned instead."""
        if known := await self._known(by):
            return known
        for operation in await self._catalog.operations.unended(system.name):
            if operation.kind == "discover" and operation.state is not OperationState.PAUSED:
                return operation
        return await self._submit("discover", system, system.name, {}, by)

    async def reconcile(self, system: SystemRecord, by: Requester, *, apply: bool) -> OperationRecord:
        """Compare the catalog with a system, about what is ours; `apply` mends it. One under way is returned."""
        if known := await self._known(by):
            return known
        for operation in [] if by.dry_run else await self._catalog.operations.unended(system.name):
            same = operation.kind == "reconcile" and operation.request == {"apply": apply}
            if same and operation.state is not OperationState.PAUSED:
                return operation
        return await self._submit("reconcile", system, system.name, {"apply": apply}, by)

    async def create(
        self,
        asset: AssetRecord,
        name: str | None,
        by: Requester,
        *,
        quiesce: Sequence[AssetRecord] = (),
        quiesce_seconds: int = QUIESCE_SECONDS,
        programs: Programs = NO_PROGRAMS,
    ) -> OperationRecord:
        """Take a snapshot. Without a name it gets a unique one that carries our mark.

        `quiesce`: assets, of any systems, that are held at a consistent point for it, in this order and at most for
        so many seconds. `programs` run before and after, on the worker that takes the snapshot.
        """
        if known := await self._known(by):
            return known
        asset.asset.require(Capability.CREATE)
        system = await self._catalog.systems.get(asset.system_id)
        prefix = owner_mark(system)
        if name is not None and is_owned_name(prefix, name):
            raise InvalidInput(
                f"{name!r} looks like a name that Snapkeep makes: {prefix} and digits",
                next_step="Choose another name, or leave it away.",
            )
        chosen = name or new_snapshot_name(prefix, self._clock.now())
        held = await self._quiesce(system, quiesce, quiesce_seconds)
        request = {"asset_id": asset.id, "name": chosen, **held, **programs.request}
        return await self._submit("create", system, f"{asset.reference}@{chosen}", request, by)

    async def delete(self, snapshot: SnapshotRecord, by: Requester) -> OperationRecord:
        """Delete a snapshot; of many within an hour, those that are too many later: see `catalog.cooling`.

        Raises Locked while it is kept, Busy while it is exported or another operation needs it.
        """
        if known := await self._known(by):
            return known
        asset = await self._asset_for(snapshot, Capability.DELETE)
        await self._catalog.protections.require_free(snapshot)
        exports = await self._catalog.exports.find(snapshot_row=snapshot.id)
        if exports:
            raise Busy(
                f"{snapshot.reference} is exported to {', '.join(item.export.host.name for item in exports)}",
                next_step=f"First `snapkeep snapshot deport {snapshot.reference}`.",
                dependents=[item.id for item in exports],
            )
        if pinned := await self._catalog.backups.chains_from(snapshot.id):
            raise Busy(
                f"{snapshot.reference} is where the next incremental backup starts, into "
                + ", ".join(item.repository_name for item in pinned),
                next_step="Back up again, which deletes it; or forget the recovery point that was made from it.",
                dependents=[item.backup_id for item in pinned],
            )
        users = [
            operation
            for operation in await self._catalog.operations.unended(snapshot.system_name)
            if snapshot.id in operation.request.values() and operation.kind != "delete"
        ]
        if users:
            raise Busy(
                f"{snapshot.reference} is needed by {', '.join(f'{item.kind} {item.id}' for item in users)}",
                next_step="Wait for the operation to end, or cancel it.",
                dependents=[item.id for item in users],
            )
        not_before: datetime | None = None
        if not (by.is_operation or by.dry_run):
            by = replace(by, operation_id=by.operation_id or self._clock.new_id())
            not_before = await self._catalog.cooling.admit(snapshot.id, str(by.operation_id), by=by.name)
        request = {"snapshot_id": snapshot.id}
        return await self._on_asset("delete", asset, snapshot.reference, request, by, not_before=not_before)

    async def restore(self, snapshot: SnapshotRecord, confirmation: str, by: Requester) -> OperationRecord:
        """Turn the asset back to the snapshot. `confirmation` must be the asset's name."""
        if known := await self._known(by):
            return known
        asset = await self._asset_for(snapshot, Capability.RESTORE)
        require_confirmation(asset.asset, confirmation)
        request = {"snapshot_id": snapshot.id, "confirmation": confirmation}
        return await self._on_asset("restore", asset, snapshot.reference, request, by, affects=asset.reference)

    async def clone(self, snapshot: SnapshotRecord, name: str, confirmation: str, by: Requester) -> OperationRecord:
        """Make a new asset from the snapshot. `confirmation` must be the source asset's name."""
        if known := await self._known(by):
            return known
        asset = await self._asset_for(snapshot, Capability.CLONE)
        require_confirmation(asset.asset, confirmation)
        with contextlib.suppress(NotFound):
            await self._catalog.inventory.find_asset(snapshot.system_name, name)
            raise Conflict(f"System {snapshot.system_name!r} has an asset {name!r} already")
        request = {"snapshot_id": snapshot.id, "name": name, "confirmation": confirmation}
        made = f"{snapshot.system_name}/{name}"
        return await self._on_asset("clone", asset, snapshot.reference, request, by, affects=made)

    async def export(
        self,
        snapshot: SnapshotRecord,
        host: BackupHost,
        mode: AccessMode,
        by: Requester,
        *,
        renews: bool = False,
    ) -> OperationRecord:
        """Make a snapshot readable on a backup host; repeated, it renews the access.

        `renews`: only renew an export that is still in force.
        """
        if known := await self._known(by):
            return known
        asset = await self._asset_for(snapshot, Capability.EXPORT)
        require_address(host)
        request = {
            "snapshot_id": snapshot.id,
            "host": {"name": host.name, "address": host.address},
            "mode": mode.value,
            "renews": renews,
        }
        return await self._on_asset("export", asset, f"{snapshot.reference} to {host.name}", request, by)

    async def deport(self, export: ExportRecord, by: Requester) -> OperationRecord:
        """Take an export back; one that has ended is taken back once more, harmlessly."""
        snapshot = await self._catalog.inventory.snapshot(export.snapshot_id)
        asset = await self._catalog.inventory.asset(snapshot.asset_id)
        target = f"{export.reference} from {export.export.host.name}"
        return await self._on_asset("deport", asset, target, {"export_id": export.id}, by)

    async def diff(
        self, asset: AssetRecord, base: SnapshotRecord | None, new: SnapshotRecord, by: Requester
    ) -> OperationRecord:
        """Fetch and store what changed from `base` to `new`; without base, everything in `new`."""
        if known := await self._known(by):
            return known
        asset.asset.require(Capability.DIFF_FILES)
        require_same_asset(asset.asset, base.snapshot if base else None, new.snapshot)
        require_older(base.snapshot if base else None, new.snapshot)
        for snapshot in (base, new):
            if snapshot is not None:
                await self._refuse_deleted(snapshot)
        request = {"asset_id": asset.id, "base_id": base.id if base else None, "new_id": new.id}
        begin = base.snapshot.name if base else "(nothing)"
        target = f"{asset.reference}: {begin} to {new.snapshot.name}"
        return await self._on_asset("diff", asset, target, request, by)

    async def compare(
        self,
        asset: AssetRecord,
        base: SnapshotRecord | None,
        new: SnapshotRecord,
        by: Requester,
        *,
        source: str,
        verify: str,
    ) -> OperationRecord:
        """Say what changed by reading both snapshots on a backup host; the same that is under way is returned.

        `source`: walk makes the list, system verifies the system's own. `verify`: none, sample or full.
        """
        if known := await self._known(by):
            return known
        asset.asset.require(Capability.EXPORT)
        if source == "system":
            asset.asset.require(Capability.DIFF_FILES)
        if verify != "none" and base is None:
            raise InvalidInput("Only a list of what changed between two snapshots can be verified")
        require_same_asset(asset.asset, base.snapshot if base else None, new.snapshot)
        require_older(base.snapshot if base else None, new.snapshot)
        for snapshot in (base, new):
            if snapshot is not None:
                await self._asset_for(snapshot, Capability.EXPORT)
        request = {
            "asset_id": asset.id,
            "base_id": base.id if base else None,
            "new_id": new.id,
            "source": source,
            "verify": verify,
        }
        for operation in await self._catalog.operations.unended(asset.system_name):
            if operation.kind == "compare" and operation.request["asset_id"] == asset.id:
                if operation.request == request:
                    return operation
                raise Busy(  # it may take back an export that both would read
                    f"Another comparison of {asset.reference} is under way: {operation.id}",
                    next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
                    dependents=[operation.id],
                )
        begin = base.snapshot.name if base else "(nothing)"
        return await self._on_asset("compare", asset, f"{asset.reference}: {begin} to {new.snapshot.name}", request, by)

    # -- backups ---------------------------------------------------------------------------------------------------
    async def back_up(
        self,
        asset: AssetRecord,
        repository: RepositoryRecord,
        by: Requester,
        *,
        full: bool,
        keep_base: bool,
        quiesce: Sequence[AssetRecord] = (),
        quiesce_seconds: int = QUIESCE_SECONDS,
        programs: Programs = NO_PROGRAMS,
    ) -> OperationRecord:
        """Make a recovery point of an asset. One that is under way already is returned instead.

        `full`: walk everything, whatever the system says has changed. `keep_base`: leave the snapshot of the last one.
        `quiesce`, `programs`: as for a snapshot (`create`); they run on the worker of the system, not the repository's.
        """
        if known := await self._known(by):
            return known
        for capability in (Capability.CREATE, Capability.EXPORT):
            asset.asset.require(capability)
        system = await self._catalog.systems.get(asset.system_id)
        request = {
            "asset_id": asset.id,
            "repository_id": repository.id,
            "full": full,
            "keep_base": keep_base,
            **await self._quiesce(system, quiesce, quiesce_seconds),
            **programs.request,
        }
        target = f"{asset.reference} into {repository.name}"
        async with self._asking_for_backup:  # two would go on from the same base, which each of them deletes
            for operation in await self._catalog.operations.unended(asset.system_name):
                same = (operation.request.get("asset_id"), operation.request.get("repository_id"))
                if operation.kind == "backup" and same == (asset.id, repository.id):
                    if programs.names and operation.request.get("programs") != programs.request["programs"]:
                        raise Busy(
                            f"Another backup of {asset.reference} is under way, without these programs: {operation.id}",
                            next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
                            dependents=[operation.id],
                        )
                    return operation
            return await self._submit("backup", _Subject.of(system, repository.queue), target, request, by)

    async def recover(
        self, backup: BackupRecord, target: str, paths: Sequence[str], by: Requester, *, overwrite: bool
    ) -> OperationRecord:
        """Restore files from a recovery point to a directory of the worker that serves the repository's queue.

        `paths` lie below the share, in percent-encoded bytes; none: all of it.
        """
        if known := await self._known(by):
            return known
        return await self._recover(backup, target, {"target": target, "paths": list(paths), "overwrite": overwrite}, by)

    async def put_back(
        self, backup: BackupRecord, paths: Sequence[str], confirmation: str, by: Requester
    ) -> OperationRecord:
        """Restore files from a recovery point to the asset that it was made of, over what is there.

        `confirmation` must be the asset's name. A snapshot of what was there is taken first.
        """
        if known := await self._known(by):
            return known
        asset = await self._catalog.inventory.asset(backup.asset_id)
        if asset.gone_at is not None:
            raise NotFound(f"{asset.reference} no longer exists on the system", next_step="Restore to a directory.")
        for capability in (Capability.CREATE, Capability.EXPORT):
            asset.asset.require(capability)
        require_confirmation(asset.asset, confirmation)
        request = {"target": None, "asset_id": asset.id, "paths": list(paths), "confirmation": confirmation}
        return await self._recover(backup, asset.reference, request, by)

    async def _recover(
        self, backup: BackupRecord, target: str, request: Mapping[str, Any], by: Requester
    ) -> OperationRecord:
        repository = await self._catalog.repositories.get(backup.repository_id)
        request = {"repository_id": repository.id, "backup_id": backup.id, **request}
        target = f"{backup.reference} to {target}"
        return await self._on_repository("recover", repository, target, request, by, asset_id=backup.asset_id)

    async def check_repository(self, repository: RepositoryRecord, data: str, by: Requester) -> OperationRecord:
        """Check a repository: its structure, and none, a sample or all of its data."""
        if known := await self._known(by):
            return known
        request = {"repository_id": repository.id, "data": data}
        return await self._on_repository("check", repository, repository.name, request, by)

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _asset_for(self, snapshot: SnapshotRecord, capability: Capability) -> AssetRecord:
        asset = await self._catalog.inventory.asset(snapshot.asset_id)
        asset.asset.require(capability)
        if snapshot.gone_at is not None:
            raise NotFound(f"{snapshot.reference} no longer exists on the system")
        if capability is not Capability.DELETE:
            await self._refuse_deleted(snapshot)
        return asset

    async def _quiesce(self, system: SystemRecord, assets: Sequence[AssetRecord], seconds: int) -> dict[str, Any]:
        """Return what a request says of the assets that are to be held. Raises what is in the way of that."""
        if len({asset.id for asset in assets}) < len(assets):
            raise InvalidInput("An asset that is to be quiesced is named twice")
        for asset in assets:
            asset.asset.require(Capability.QUIESCE)
            if asset.gone_at is not None:
                raise NotFound(f"{asset.reference} no longer exists on the system")
            other = await self._catalog.systems.get(asset.system_id)
            if other.queue != system.queue:
                raise InvalidInput(
                    f"{asset.reference} cannot be quiesced for this: its system {other.name!r} has the queue "
                    f"{other.queue!r}, and {system.name!r} has {system.queue!r}",
                    next_step="One worker must reach both: `snapkeep system set NAME --queue QUEUE`.",
                )
        return {"quiesce": [asset.id for asset in assets], "quiesce_seconds": seconds} if assets else {}

    async def _refuse_deleted(self, snapshot: SnapshotRecord) -> None:
        """Raise Busy while a delete of the snapshot is under way."""
        for operation in await self._catalog.operations.unended(snapshot.system_name):
            if operation.kind == "delete" and operation.request["snapshot_id"] == snapshot.id:
                raise Busy(
                    f"{snapshot.reference} is being deleted",
                    next_step=f"See `snapkeep operation show {operation.id}`; choose another snapshot.",
                    dependents=[operation.id],
                )

    async def _known(self, by: Requester) -> OperationRecord | None:
        """Return the operation that this requester has asked for already, under the same key. Raises InvalidInput."""
        known = await self._catalog.operations.known(by.operation_id) if by.operation_id else None
        return _same(known, by) if known else None

    async def _on_asset(
        self,
        kind: str,
        asset: AssetRecord,
        target: str,
        request: Mapping[str, Any],
        by: Requester,
        *,
        affects: str | None = None,
        not_before: datetime | None = None,
    ) -> OperationRecord:
        system, full = await self._catalog.systems.get(asset.system_id), {"asset_id": asset.id, **request}
        return await self._submit(kind, system, target, full, by, affects=affects, not_before=not_before)

    async def _on_repository(
        self,
        kind: str,
        repository: RepositoryRecord,
        target: str,
        request: dict[str, Any],
        by: Requester,
        *,
        asset_id: str | None = None,
    ) -> OperationRecord:
        return await self._submit(kind, _Subject.repository(repository), target, request, by, asset_id=asset_id)

    async def _submit(
        self,
        kind: str,
        subject: SystemRecord | _Subject,
        target: str,
        request: dict[str, Any],
        by: Requester,
        *,
        asset_id: str | None = None,
        affects: str | None = None,
        not_before: datetime | None = None,
    ) -> OperationRecord:
        """Record the intent, then hand it to the engine; a crash in between is mended by the dispatcher's sweep."""
        if by.dry_run:
            raise Planned(f"{kind} {target}", [affects or target])
        operation = await self._catalog.operations.add(
            operation_id=by.operation_id or self._clock.new_id(),
            kind=kind,
            system_id=subject.id,
            system_name=subject.name,
            asset_id=asset_id or request.get("asset_id"),
            queue=subject.queue,
            target=target,
            request=request,
            digest=by.digest,
            requester=by.name,
            exclusive=HANDLERS[kind].turn_key(request),
            now=self._clock.now(),
            not_before=not_before,
        )
        self._dispatcher.dispatch(operation)
        return _same(operation, by)


def _same(operation: OperationRecord, by: Requester) -> OperationRecord:
    """Return what was asked for under a key, if it was asked for in the same words. Raises InvalidInput."""
    if by.digest is not None and operation.digest is not None and operation.digest != by.digest:
        raise InvalidInput(
            f"Another request came under this key before; it began the {operation.kind} {operation.id}",
            next_step="Give every request a key of its own, and repeat a request as it was.",
        )
    return operation


def owner_mark(system: SystemRecord) -> str:
    """Return how the names of our snapshots begin on a system."""
    return str(system.settings.get("snapshot_prefix", DEFAULT_PREFIX))
