"""Back up an asset: snapshot, changes since the last one, export, write, verify, deport, and let the old base go.

What happens on the system is done by operations of their own, each of which survives crashes; this one has them done
in turn, and finds them again when it is run again. Only the recovery point in the repository, and its record here
with the pin on its snapshot, are its own work.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapkeep.backup.comparison import compare
from snapkeep.backup.links import LinkTable
from snapkeep.backup.request import PARTIAL, BackupRequest, BackupResult, Mode, Progress
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.catalog.records import AssetRecord, BackupRecord, ChangeListRecord, SnapshotRecord
from snapkeep.model.assets import Capability
from snapkeep.model.changes import Change
from snapkeep.model.errors import (
    BaseMissing,
    Busy,
    Damaged,
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
from snapkeep.operations.mounts import mounted
from snapkeep.operations.repositories import Access, access, logical_path
from snapkeep.operations.run import Run, Told
from snapkeep.operations.sampling import sample_entropy
from snapkeep.operations.suspicion import look_at_changes
from snapkeep.operations.text import duration, size
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.signals.entropy import EntropySample

SAMPLE = 100
"""Files that are compared with the snapshot after each backup."""

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


@dataclass(frozen=True, slots=True)
class Plan:
    """How a backup is to be made."""

    parent: BackupRecord | None
    changes: ChangeListRecord | None
    """What changed since the parent's snapshot; None: everything is walked."""
    reason: str | None
    """Why everything is walked although there is a parent."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    result: BackupResult
    reason: str | None
    verification: dict[str, Any]
    entropy: EntropySample | None
    """Of files that have changed; None: there is no list of these, or they could not be looked at."""


@dataclass(slots=True)
class Pace:
    """How fast it goes, for people."""

    expected: int | None
    """Bytes that will be read, as far as it is known."""
    seen: Progress = field(default_factory=lambda: Progress(0, 0, 0, ""))
    since: float = field(default_factory=time.monotonic)
    verifying: bool = False

    def take(self, progress: Progress) -> None:
        """Note how far it is."""
        self.seen = progress

    def tell(self) -> Told:
        """Return phase and progress: files, bytes, rate, and the time left where it can be known."""
        if self.verifying:
            return "comparing a sample with the snapshot", None
        seconds = max(time.monotonic() - self.since, 0.001)
        rate = self.seen.bytes_read / seconds
        text = f"writing: {self.seen.files:,} files, {size(self.seen.bytes_read)} read, {size(rate)}/s"
        if not self.expected:
            return text, None
        done = min(self.seen.bytes_read / self.expected, 0.99)
        left = (self.expected - self.seen.bytes_read) / rate if rate else 0
        return (f"{text}, {duration(left)} left" if left > 1 else text), done


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
            await asyncio.to_thread(_forget, await access(run.catalog, repository, run.host), run.operation.id)

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
        if _is_wrong(parent):
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
            tags=("snapkeep", _tag(run.operation.id)),
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


@dataclass(frozen=True, slots=True)
class Job:
    """The part that runs in a thread."""

    access: Access
    request: BackupRequest
    plan: Plan
    pace: Pace
    changes: Callable[[], Iterable[Change]]
    operation_id: str
    again: bool
    """An earlier run of the operation may have written the recovery point."""
    readers: int
    seed: int

    def run(self, stop: Callable[[], None]) -> Written:
        """Write the recovery point, and compare a sample of it with the snapshot."""
        links = self.access.host.cache / self.access.record.restic_id / "links"
        links.mkdir(parents=True, exist_ok=True)
        name = f"{uuid.uuid5(uuid.NAMESPACE_URL, self.request.logical_path)}.sqlite"
        with self.access.at_work(stop) as (repository, check), LinkTable(links / name) as table:
            result, reason = self._backup(repository, table, check)
            self.pace.verifying = True
            found = compare(repository, result.snapshot_id, self.request, files=SAMPLE, seed=self.seed, stop=check)
        entropy = None
        if self.plan.changes is not None:
            entropy = sample_entropy(self.request.source, self.changes, self.seed, stop)
        return Written(result, reason, found, entropy)

    def _backup(
        self, repository: Repository, table: LinkTable, stop: Callable[[], None]
    ) -> tuple[BackupResult, str | None]:
        known = _written_before(repository, self.operation_id) if self.again else None
        if known is not None:
            return _result(known), self.plan.reason
        plan, reason = self.plan, self.plan.reason
        self.pace.since = time.monotonic()
        if plan.parent is not None and plan.changes is not None:
            try:
                return incremental_backup(
                    repository,
                    self.request,
                    parent=plan.parent.restic_id,
                    base=plan.parent.snapshot_id,
                    changes=self.changes(),
                    links=table,
                    readers=self.readers,
                    progress=self.pace.take,
                    stop=stop,
                ), None
            except (BaseMissing, Incomplete, Damaged) as error:
                reason = error.message
        return full_backup(
            repository,
            self.request,
            parent=_parent(repository, plan),
            links=table,
            readers=self.readers,
            progress=self.pace.take,
            stop=stop,
        ), reason


def _tag(operation_id: str) -> str:
    return f"operation={operation_id}"


def _written_before(repository: Repository, operation_id: str) -> SnapshotFile | None:
    """Return the recovery point that an earlier run of this operation wrote, and died before it was recorded."""
    wanted = _tag(operation_id)
    return next((item for item in reversed(repository.snapshots()) if wanted in item.tags), None)


def _forget(way: Access, operation_id: str) -> None:
    """Remove a recovery point that was written, and is not to be."""
    with way.open() as repository, repository.locked():
        if (found := _written_before(repository, operation_id)) is not None:
            repository.forget(found.id)


def _result(snapshot: SnapshotFile) -> BackupResult:
    told = snapshot.summary or {}
    result = BackupResult(Mode(told.get("mode", Mode.FULL)), snapshot.id, snapshot.tree, snapshot.parent)
    result.files_new, result.files_changed = told.get("files_new", 0), told.get("files_changed", 0)
    result.files_unmodified, result.bytes_added = told.get("files_unmodified", 0), told.get("data_added_packed", 0)
    result.unreadable_count = int(PARTIAL in snapshot.tags)  # how many is not known any more
    return result


def _parent(repository: Repository, plan: Plan) -> str | None:
    """Return the parent's id, if the repository still has it: somebody may have removed it with restic.

    From one that is known to be wrong nothing is taken over.
    """
    if plan.parent is None or _is_wrong(plan.parent):
        return None
    try:
        return repository.snapshot(plan.parent.restic_id).id
    except NotFound:
        return None


def _is_wrong(backup: BackupRecord) -> bool:
    return bool((backup.verification or {}).get("differing"))


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
