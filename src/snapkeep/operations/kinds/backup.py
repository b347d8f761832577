"""Back up an asset: snapshot, changes since the last one, export, write, verify, deport, and let the old base go.

What happens on the system is done by operations of their own, each of which survives crashes; this one has them done
in turn, and finds them again when it is run again. Only the recovery point in the repository, and its record here
with the pin on its snapshot, are its own work.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snapkeep.backup.request import BackupRequest
from snapkeep.catalog.records import AssetRecord, BackupRecord, SnapshotRecord
from snapkeep.model.assets import Capability
from snapkeep.model.errors import (
    BaseMissing,
    Busy,
    Incomplete,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Timeout,
    Unsupported,
    VendorError,
)
from snapkeep.model.exports import AccessMode
from snapkeep.model.work import Ticket
from snapkeep.operations.bridge import changes_for_thread
from snapkeep.operations.kinds.base import Mover, export_label, tidy
from snapkeep.operations.kinds.quiesce import asked_for
from snapkeep.operations.kinds.writing import Job, Pace, Plan, Written, forget, is_wrong, tag
from snapkeep.operations.mounts import mounted
from snapkeep.operations.repositories import Access, access, logical_path
from snapkeep.operations.run import Run
from snapkeep.operations.suspicion import look_at_changes

_NO_LIST = (
    Unsupported,
    BaseMissing,
    Incomplete,
    NotFound,
    VendorError,
    Busy,
    LimitExceeded,
    PermissionDenied,
    Timeout,
    InvalidInput,  # the system's clock was set back: the base is newer than the snapshot
)
"""Why everything is walked: there is no list of changes, and asking again would not give one."""

_WRITING = "writing"
"""Noted before the repository is written to."""

BUSY_SECONDS = 60.0
"""How long a base that is still in use is waited for, before it is left."""

MOST_NAMED = 100
"""So many unreadable files are named in the record of a recovery point."""


class BackupHandler(Mover):
    """Make a recovery point of an asset in a repository."""

    kind = "backup"
    finishing = "backing up"
    cancellable = True
    undone_on_failure = True

    def turn_key(self, request: Mapping[str, Any]) -> str | None:
        """Let backups of one asset into one repository run one by one: each starts where the last one ended."""
        return str(uuid.uuid5(uuid.UUID(request["asset_id"]), request["repository_id"]))

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Do what is not done yet; return the recovery point."""
        backup = await run.catalog.backups.known(_backup_id(run))
        if backup is None:
            backup = await self._make(run)
        run.past_cancel()
        left = await tidy(run, backup.snapshot_id, "deport")
        signal = await run.catalog.signals.known(run.operation.id)
        stay = await self._let_bases_go(run, backup)
        snapshot = await run.catalog.inventory.snapshot(backup.snapshot_id)
        made = await run.ended_part("snapshot") if run.request.get("programs") else None
        return {
            **({"after_failed": (made.result or {}).get("after_failed")} if made is not None else {}),
            "backup_id": backup.id,
            "consistency": snapshot.consistency,
            "quiesced": list(snapshot.quiesced),
            "consistency_reason": snapshot.consistency_reason,
            "snapshot": backup.reference,
            "mode": backup.mode,
            "reason": backup.reason,
            "partial": backup.partial,
            "verification": backup.verification,
            "signal": signal.to_result() if signal is not None else None,
            "counts": backup.counts,
            "left": left + list(stay.values()),
            "bases_left": list(stay),
        }

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Leave no export and no snapshot of a backup that did not come to its end; a recovery point stays."""
        backup = await run.catalog.backups.known(_backup_id(run))
        if backup is not None:
            await tidy(run, backup.snapshot_id, "undo: deport", strict=True)
            return
        made = await run.ended_part("snapshot")
        if made is None or made.result is None:
            return
        for label in ("changes", export_label(run)):  # what was cancelled needs the snapshot until its end
            await run.ended_part(label)
        await tidy(run, made.result["snapshot_id"], "undo: deport", strict=True)
        snapshot = await run.catalog.inventory.snapshot(made.result["snapshot_id"])
        if snapshot.gone_at is None:
            await _delete(run, snapshot, "undo: delete", run.limits.undo)
        if (await run.catalog.operations.get(run.operation.id)).cursor == _WRITING:
            repository = await run.catalog.repositories.get(run.request["repository_id"])
            await asyncio.to_thread(forget, await access(run.catalog, repository, run.host), run.operation.id)

    # -- making ------------------------------------------------------------------------------------------------------
    async def _make(self, run: Run) -> BackupRecord:
        asset = await run.asset()
        asset.asset.require(Capability.EXPORT)
        repository = await run.catalog.repositories.get(run.request["repository_id"])
        way = await access(run.catalog, repository, run.host)
        if await run.catalog.operations.known(run.request_id("snapshot")) is None:
            await run.report("opening the repository")
            await asyncio.to_thread(way.probe)  # no snapshot is taken for a repository that cannot be opened
        hold = await asked_for(run.catalog, run.request)
        made = await run.part("snapshot", lambda by: run.operations.create(asset, None, by, **hold))
        snapshot = await run.catalog.inventory.snapshot((made.result or {})["snapshot_id"])
        plan = await self._plan(run, asset, snapshot)
        host = run.host.backup_host
        exported = await run.part(
            export_label(run), lambda by: run.operations.export(snapshot, host, AccessMode.READ_ONLY, by)
        )
        export = (await run.catalog.exports.get((exported.result or {})["export_id"])).export
        async with mounted(export, snapshot.snapshot.name, run.host, run.operation.id) as source:
            written = await self._write(run, way, asset, snapshot, plan, source)
        if plan.changes is not None:  # before the recovery point is known: the retry of one that is looks no more
            await look_at_changes(
                run, asset, plan.changes, series=way.record.id, backup_id=_backup_id(run), entropy=written.entropy
            )
        record = _record(run, way, asset, snapshot, plan, written)
        await run.catalog.backups.record(record)
        return record

    async def _plan(self, run: Run, asset: AssetRecord, snapshot: SnapshotRecord) -> Plan:
        """Find the parent, and what changed since it. Whatever is in the way of the list costs time, no data."""
        chain = await run.catalog.backups.chain(asset.id, run.request["repository_id"])
        if chain is None:
            return Plan(None, None, None)
        parent = await run.catalog.backups.get(chain.backup_id)
        base = await run.catalog.inventory.snapshot(chain.snapshot_id)
        if run.request["full"]:
            return Plan(parent, None, "asked for")
        if is_wrong(parent):
            return Plan(parent, None, "the last recovery point differs from its snapshot")
        if base.gone_at is not None:
            return Plan(parent, None, f"the snapshot of the last backup, {base.snapshot.name}, is gone")
        try:
            listed = await run.part("changes", lambda by: run.operations.diff(asset, base, snapshot, by))
        except _NO_LIST as error:
            return Plan(parent, None, f"no list of changes: {error.message}")
        changes = await run.catalog.change_lists.get((listed.result or {})["change_list"])
        return Plan(parent, changes, None)

    async def _write(
        self, run: Run, way: Access, asset: AssetRecord, snapshot: SnapshotRecord, plan: Plan, source: Path
    ) -> Written:
        request = BackupRequest(
            source=source,
            logical_path=logical_path(asset.system_name, asset.asset.name),
            snapshot=snapshot.id,
            host=asset.system_name,
            time=snapshot.snapshot.created_at or run.clock.now(),
            tags=("snapkeep", tag(run.operation.id)),
            device_id=uuid.UUID(asset.id).int >> 97,  # 31 bits, the same in every backup of this asset
        )
        pace = Pace(_expected(plan))
        changes = changes_for_thread(run.catalog, plan.changes) if plan.changes is not None else tuple
        job = Job(
            way,
            request,
            plan,
            pace,
            changes,
            operation_id=run.operation.id,
            again=run.operation.cursor == _WRITING,
            readers=run.host.readers,
            seed=uuid.UUID(run.operation.id).time_low,
        )
        await run.catalog.operations.update(run.operation.id, cursor=_WRITING)
        await run.report("opening the repository")
        return await run.in_thread(job.run, pace.tell)

    # -- afterwards --------------------------------------------------------------------------------------------------
    async def _let_bases_go(self, run: Run, backup: BackupRecord) -> dict[str, str]:
        """Delete the snapshot of the parent, from which nothing starts any more, and what stayed at its own backup.

        Return the ids of the snapshots that stay, and why.
        """
        parent = await run.catalog.backups.known(backup.parent_id) if backup.parent_id else None
        if parent is None or parent.snapshot_id == backup.snapshot_id:
            return {}
        before = await run.catalog.operations.known(parent.operation_id)
        bases = list((before.result or {}).get("bases_left", ())) if before is not None else []
        if not run.request["keep_base"]:
            bases.append(parent.snapshot_id)
        stay = {}
        for snapshot_id in bases:
            try:
                base = await run.catalog.inventory.snapshot(snapshot_id)
                if base.gone_at is None and base.snapshot.owned:
                    await _delete(run, base, f"delete the old base {base.snapshot.name}", BUSY_SECONDS)
            except NotFound:
                continue
            except SnapkeepError as error:
                stay[snapshot_id] = f"the snapshot of an earlier backup stays: {error.message}"
        return stay


def _expected(plan: Plan) -> int | None:
    if plan.changes is not None and plan.changes.summary is not None:
        return sum(item["bytes"] for item in plan.changes.summary["operations"].values()) or None
    return None


def _record(
    run: Run, way: Access, asset: AssetRecord, snapshot: SnapshotRecord, plan: Plan, written: Written
) -> BackupRecord:
    result = written.result
    return BackupRecord(
        id=_backup_id(run),
        repository_id=way.record.id,
        repository_name=way.record.name,
        asset_id=asset.id,
        system_name=asset.system_name,
        asset_name=asset.asset.name,
        snapshot_id=snapshot.id,
        snapshot_name=snapshot.snapshot.name,
        snapshot_at=snapshot.snapshot.created_at,
        operation_id=run.operation.id,
        restic_id=result.snapshot_id,
        tree_id=result.tree_id,
        parent_id=plan.parent.id if plan.parent is not None else None,
        mode=result.mode.value,
        reason=written.reason,
        partial=result.partial,
        counts={
            "files_new": result.files_new,
            "files_changed": result.files_changed,
            "files_unmodified": result.files_unmodified,
            "bytes_read": result.bytes_read,
            "bytes_added": result.bytes_added,
            "unreadable": result.unreadable_count,
            "unreadable_paths": [
                {"path": path.decode("utf-8", "backslashreplace"), "reason": reason}
                for path, reason in result.unreadable[:MOST_NAMED]
            ],
        },
        verification=written.verification,
        created_at=run.clock.now(),
    )


def _backup_id(run: Run) -> str:
    return run.request_id("backup")


async def _delete(run: Run, snapshot: SnapshotRecord, label: str, patience: float) -> None:
    """Delete a snapshot. The system may need it still, for a list of changes that nobody waits for any more."""
    until = run.clock.monotonic() + patience
    for number in itertools.count(1):
        try:
            await run.part(f"{label}, try {number}", lambda by: run.operations.delete(snapshot, by))
            return
        except Busy:
            if run.clock.monotonic() >= until:
                raise
        await run.pause(min(0.5 * 2**number, 10.0))
