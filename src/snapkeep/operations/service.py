"""Asking for operations: names to records, admission before any network call, intent, queue."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.operations import ended
from snapkeep.catalog.records import (
    AssetRecord,
    BackupRecord,
    ExportRecord,
    OperationRecord,
    OperationState,
    RepositoryRecord,
    SnapshotRecord,
    SystemRecord,
    WorkerState,
)
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, Conflict, InvalidInput, NotFound, SnapkeepError, Timeout
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.model.snapshots import DEFAULT_PREFIX, is_owned_name, new_snapshot_name
from snapkeep.operations import metrics
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.dispatch import Dispatcher
from snapkeep.operations.requester import Requester
from snapkeep.operations.runner import HANDLERS
from snapkeep.plugin.guards import require_address, require_confirmation, require_older, require_same_asset

log = structlog.get_logger(__name__)

RECONCILE_AGAIN = timedelta(minutes=10)
"""After a crash a system is looked at once in this time, however many crashes there are."""

_WAITING = [OperationState.QUEUED, OperationState.PAUSED]


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
        return cls(repository.id, f"repository:{repository.name}", repository.queue)  # no system is called so


class Operations:
    """Starts operations and answers for their life."""

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

    # -- one method for each kind ----------------------------------------------------------------------------------
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
        for operation in await self._catalog.operations.unended(system.name):
            same = operation.kind == "reconcile" and operation.request == {"apply": apply}
            if same and operation.state is not OperationState.PAUSED:
                return operation
        return await self._submit("reconcile", system, system.name, {"apply": apply}, by)

    async def create(self, asset: AssetRecord, name: str | None, by: Requester) -> OperationRecord:
        """Take a snapshot. Without a name it gets a unique one that carries our mark."""
        if known := await self._known(by):
            return known
        asset.asset.require(Capability.CREATE)
        system = await self._catalog.systems.get(asset.system_id)
        prefix = _prefix(system)
        if name is not None and is_owned_name(prefix, name):
            raise InvalidInput(
                f"{name!r} looks like a name that Snapkeep makes: {prefix} and digits",
                next_step="Choose another name, or leave it away.",
            )
        chosen = name or new_snapshot_name(prefix, self._clock.now())
        request = {"asset_id": asset.id, "name": chosen}
        return await self._submit("create", system, f"{asset.reference}@{chosen}", request, by)

    async def delete(self, snapshot: SnapshotRecord, by: Requester) -> OperationRecord:
        """Delete a snapshot. Raises Busy while it is exported or another operation needs it."""
        if known := await self._known(by):
            return known
        asset = await self._asset_for(snapshot, Capability.DELETE)
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
        return await self._on_asset("delete", asset, snapshot.reference, {"snapshot_id": snapshot.id}, by)

    async def restore(self, snapshot: SnapshotRecord, confirmation: str, by: Requester) -> OperationRecord:
        """Turn the asset back to the snapshot. `confirmation` must be the asset's name."""
        if known := await self._known(by):
            return known
        asset = await self._asset_for(snapshot, Capability.RESTORE)
        require_confirmation(asset.asset, confirmation)
        request = {"snapshot_id": snapshot.id, "confirmation": confirmation}
        return await self._on_asset("restore", asset, snapshot.reference, request, by)

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
        return await self._on_asset("clone", asset, snapshot.reference, request, by)

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
        self, asset: AssetRecord, repository: RepositoryRecord, by: Requester, *, full: bool, keep_base: bool
    ) -> OperationRecord:
        """Make a recovery point of an asset. One that is under way already is returned instead.

        `full`: walk everything, whatever the system says has changed. `keep_base`: leave the snapshot of the last one.
        """
        if known := await self._known(by):
            return known
        for capability in (Capability.CREATE, Capability.EXPORT):
            asset.asset.require(capability)
        request = {"asset_id": asset.id, "repository_id": repository.id, "full": full, "keep_base": keep_base}
        system = await self._catalog.systems.get(asset.system_id)
        target = f"{asset.reference} into {repository.name}"
        async with self._asking_for_backup:  # two would go on from the same base, which each of them deletes
            for operation in await self._catalog.operations.unended(asset.system_name):
                same = (operation.request.get("asset_id"), operation.request.get("repository_id"))
                if operation.kind == "backup" and same == (asset.id, repository.id):
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
        repository = await self._catalog.repositories.get(backup.repository_id)
        request = {
            "repository_id": repository.id,
            "backup_id": backup.id,
            "target": target,
            "paths": list(paths),
            "overwrite": overwrite,
        }
        return await self._submit(
            "recover", _Subject.repository(repository), f"{backup.reference} to {target}", request, by
        )

    async def check_repository(self, repository: RepositoryRecord, data: str, by: Requester) -> OperationRecord:
        """Check a repository: its structure, and none, a sample or all of its data."""
        if known := await self._known(by):
            return known
        request = {"repository_id": repository.id, "data": data}
        return await self._submit("check", _Subject.repository(repository), repository.name, request, by)

    # -- life --------------------------------------------------------------------------------------------------------
    async def cancel(self, operation: OperationRecord) -> OperationRecord:
        """Ask for the end of an operation. Raises Conflict when it has ended or cannot be taken back any more."""
        operations = self._catalog.operations
        while True:  # until it was told in the state in which it is: it may begin, pause or end meanwhile
            _require_open(operation, "cancel")
            if not operation.attempt:
                cancelled = ended(OperationState.CANCELLED, self._clock.now())
                if await operations.change(operation.id, _WAITING, operation.generation, unbegun=True, **cancelled):
                    metrics.operation_ended(await operations.get(operation.id))
                    await self._dispatcher.pass_turn(operation)
                    return await operations.get(operation.id)
            elif not HANDLERS[operation.kind].cancellable:
                raise Conflict(
                    f"A {operation.kind} that has begun cannot be taken back",
                    next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
                )
            elif operation.state is OperationState.PAUSED:  # it goes on, to undo what it has begun
                await self._go_on(operation, cancel_requested=True)
            else:
                await operations.update(operation.id, cancel_requested=True)
            operation = await operations.get(operation.id)
            if operation.cancel_requested or operation.state.ended:
                return operation

    async def pause(self, operation: OperationRecord) -> OperationRecord:
        """Hold an operation back until it is resumed. Raises Conflict when it has ended or is not ours to hold."""
        _require_open(operation, "pause")
        if operation.state is OperationState.PAUSED:
            return operation
        operations = self._catalog.operations
        held: dict[str, Any] = {"state": OperationState.PAUSED, "phase": "paused", "turn": None}  # holds up no other
        if await operations.change(operation.id, [OperationState.QUEUED], **held):
            await self._dispatcher.pass_turn(operation)
            return await operations.get(operation.id)
        if not HANDLERS[operation.kind].pausable:
            raise Conflict(
                f"A {operation.kind} that has begun cannot be paused: the system works, not Snapkeep",
                next_step=f"Wait for its end: `snapkeep operation watch {operation.id}`.",
            )
        await operations.update(operation.id, pause_requested=True)
        return await operations.get(operation.id)

    async def resume(self, operation: OperationRecord) -> OperationRecord:
        """Let a paused operation go on; one that was asked to pause and has not yet, is not. Raises Conflict."""
        _require_open(operation, "resume")
        await self._catalog.operations.update(operation.id, pause_requested=False)
        now = await self._catalog.operations.get(operation.id)
        if now.state is OperationState.PAUSED:
            await self._go_on(now)
        return await self._catalog.operations.get(operation.id)

    async def _go_on(self, operation: OperationRecord, **values: Any) -> None:
        values |= {
            "state": OperationState.QUEUED,
            "phase": "queued",
            "pause_requested": False,
            "generation": operation.generation + 1,
        }
        paused = [OperationState.PAUSED]
        if await self._catalog.operations.change(operation.id, paused, operation.generation, **values):
            self._dispatcher.dispatch(await self._catalog.operations.get(operation.id))

    async def retry(self, operation: OperationRecord, by: Requester) -> OperationRecord:
        """Ask once more for what failed or was cancelled, as a new operation. Raises Conflict for the others."""
        if operation.state not in {OperationState.FAILED, OperationState.CANCELLED}:
            raise Conflict(
                f"The operation is {operation.state}: only one that failed or was cancelled can be retried",
                next_step=f"See `snapkeep operation show {operation.id}`.",
            )
        request, inventory = operation.request, self._catalog.inventory

        async def snapshot(key: str = "snapshot_id") -> SnapshotRecord:
            return await inventory.snapshot(request[key])

        match operation.kind:
            case "discover":
                return await self.discover(await self._catalog.systems.get(operation.system_id), by)
            case "reconcile":
                system = await self._catalog.systems.get(operation.system_id)
                return await self.reconcile(system, by, apply=request["apply"])
            case "create":
                asset = await inventory.asset(request["asset_id"])
                ours = is_owned_name(_prefix(await self._catalog.systems.get(operation.system_id)), request["name"])
                return await self.create(asset, None if ours else request["name"], by)
            case "delete":
                return await self.delete(await snapshot(), by)
            case "restore":
                return await self.restore(await snapshot(), request["confirmation"], by)
            case "clone":
                return await self.clone(await snapshot(), request["name"], request["confirmation"], by)
            case "export":
                return await self.export(
                    await snapshot(), BackupHost(**request["host"]), AccessMode(request["mode"]), by
                )
            case "deport":
                return await self.deport(await self._catalog.exports.get(request["export_id"]), by)
            case "diff":
                base = await snapshot("base_id") if request["base_id"] else None
                return await self.diff(await inventory.asset(request["asset_id"]), base, await snapshot("new_id"), by)
            case "compare":
                base = await snapshot("base_id") if request["base_id"] else None
                asset = await inventory.asset(request["asset_id"])
                how = {"source": request["source"], "verify": request["verify"]}
                return await self.compare(asset, base, await snapshot("new_id"), by, **how)
        return await self._retry_mover(operation.kind, request, by)

    async def _retry_mover(self, kind: str, request: Mapping[str, Any], by: Requester) -> OperationRecord:
        match kind:
            case "backup":
                asset = await self._catalog.inventory.asset(request["asset_id"])
                repository = await self._repository(request)
                return await self.back_up(asset, repository, by, full=request["full"], keep_base=request["keep_base"])
            case "recover":
                backup = await self._catalog.backups.get(request["backup_id"])
                how = {"overwrite": request["overwrite"]}  # what it may have refused to replace is somebody's
                return await self.recover(backup, request["target"], request["paths"], by, **how)
            case "check":
                return await self.check_repository(await self._repository(request), request["data"], by)
        raise InvalidInput(f"A {kind} cannot be retried; ask for it anew")

    async def explain(self, operation: OperationRecord) -> str:
        """Return the phase of an operation; of one that waits, what it waits for."""
        if operation.state is OperationState.RUNNING and operation.queue not in await self.served_queues():
            return f"begun; to go on, it waits for a worker that serves the queue {operation.queue!r}"
        if operation.state is not OperationState.QUEUED:
            return operation.phase
        if operation.exclusive and not operation.turn:
            holder = await self._catalog.operations.holder(operation.exclusive)
            return f"queued behind {holder.kind} {holder.id}" if holder else operation.phase
        if operation.queue not in await self.served_queues():
            return f"queued: no living worker serves the queue {operation.queue!r}"
        return operation.phase

    async def served_queues(self) -> set[str]:
        """Return the queues that a living worker serves."""
        workers = await self._catalog.workers.find()
        alive = [item for item in workers if item.state(self.takeover_seconds) is WorkerState.ALIVE]
        return {queue for item in alive for queue in item.queues}

    async def reconcile_after_crash(self, system_id: str) -> None:
        """Report what a crash may have left on a system, unless that was looked at a moment ago."""
        with contextlib.suppress(NotFound):  # it may have been removed meanwhile
            system = await self._catalog.systems.get(system_id)
            since = self._clock.now() - RECONCILE_AGAIN
            if not await self._catalog.operations.asked_since("reconcile", system.id, since):
                await self.reconcile(system, Requester("snapkeep"), apply=False)

    async def refresh_exports(self) -> None:
        """Renew the exports that are due. One that cannot be renewed does not keep the others from it."""
        now = await self._catalog.database.now()  # this machine's clock alone ends nothing
        for record in await self._catalog.exports.due(now):
            try:
                await self._renew(record, now)
            except SnapkeepError as error:
                log.warning("export cannot be renewed", export=record.id, code=error.code, reason=error.message)
                if _expired(record, now):
                    await self._catalog.exports.expired(record, now)

    async def _renew(self, record: ExportRecord, now: datetime) -> None:
        """Start the next try to renew, with back-off after failed ones. Raises Timeout once the export has expired."""
        by = Requester("snapkeep")
        for attempt in itertools.count():
            due = f"refresh {record.export.refresh_at} {attempt}"
            operation_id = str(uuid.uuid5(uuid.UUID(record.id), due))
            by = Requester("snapkeep", operation_id)
            known = await self._catalog.operations.known(operation_id)
            if known is None:
                break
            pause = timedelta(seconds=min(60, 2**attempt))
            if known.ended_at is None or (now < known.ended_at + pause and not _expired(record, now)):
                return
        if _expired(record, now):
            raise Timeout("The export expired before it could be renewed")
        snapshot = await self._catalog.inventory.snapshot(record.snapshot_id)
        await self.export(snapshot, record.export.host, record.export.mode, by, renews=True)

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
        for operation in await self._catalog.operations.unended(snapshot.system_name):
            if operation.kind == "delete" and operation.request["snapshot_id"] == snapshot.id:
                raise Busy(
                    f"{snapshot.reference} is being deleted",
                    next_step=f"See `snapkeep operation show {operation.id}`; choose another snapshot.",
                    dependents=[operation.id],
                )

    async def _repository(self, request: Mapping[str, Any]) -> RepositoryRecord:
        return await self._catalog.repositories.get(request["repository_id"])

    async def _known(self, by: Requester) -> OperationRecord | None:
        """Return the operation that this requester has asked for already, under the same key."""
        return await self._catalog.operations.known(by.operation_id) if by.operation_id else None

    async def _on_asset(
        self, kind: str, asset: AssetRecord, target: str, request: Mapping[str, Any], by: Requester
    ) -> OperationRecord:
        system = await self._catalog.systems.get(asset.system_id)
        return await self._submit(kind, system, target, {"asset_id": asset.id, **request}, by)

    async def _submit(
        self, kind: str, subject: SystemRecord | _Subject, target: str, request: dict[str, Any], by: Requester
    ) -> OperationRecord:
        """Record the intent, then hand it to the engine; a crash in between is mended by the dispatcher's sweep."""
        operation = await self._catalog.operations.add(
            operation_id=by.operation_id or self._clock.new_id(),
            kind=kind,
            system_id=subject.id,
            system_name=subject.name,
            queue=subject.queue,
            target=target,
            request=request,
            requester=by.name,
            exclusive=request["asset_id"] if HANDLERS[kind].exclusive else None,
            now=self._clock.now(),
        )
        self._dispatcher.dispatch(operation)
        return operation


def _prefix(system: SystemRecord) -> str:
    return str(system.settings.get("snapshot_prefix", DEFAULT_PREFIX))


def _expired(record: ExportRecord, now: datetime) -> bool:
    return record.export.expires_at is not None and record.export.expires_at < now


def _require_open(operation: OperationRecord, verb: str) -> None:
    if operation.state.ended:
        raise Conflict(f"The operation has ended: {operation.state}", next_step=f"There is nothing to {verb}.")
