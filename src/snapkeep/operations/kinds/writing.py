"""What a backup does in a thread: it writes the recovery point, and compares a sample of it with the snapshot."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from snapkeep.backup.comparison import compare
from snapkeep.backup.links import LinkTable
from snapkeep.backup.request import PARTIAL, BackupRequest, BackupResult, Mode, Progress
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.catalog.records import BackupRecord, ChangeListRecord
from snapkeep.model.changes import Change
from snapkeep.model.errors import BaseMissing, Damaged, Incomplete, NotFound
from snapkeep.operations.repositories import Access
from snapkeep.operations.run import Told
from snapkeep.operations.sampling import sample_entropy
from snapkeep.operations.text import duration, size
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.signals.entropy import EntropySample

SAMPLE = 100
"""Files that are compared with the snapshot after each backup."""


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


def tag(operation_id: str) -> str:
    """Return the tag by which the recovery point of an operation is found in the repository."""
    return f"operation={operation_id}"


def _written_before(repository: Repository, operation_id: str) -> SnapshotFile | None:
    """Return the recovery point that an earlier run of this operation wrote, and died before it was recorded."""
    wanted = tag(operation_id)
    return next((item for item in reversed(repository.snapshots()) if wanted in item.tags), None)


def forget(way: Access, operation_id: str) -> None:
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
    if plan.parent is None or is_wrong(plan.parent):
        return None
    try:
        return repository.snapshot(plan.parent.restic_id).id
    except NotFound:
        return None


def is_wrong(backup: BackupRecord) -> bool:
    """Say whether a recovery point is known to differ from its snapshot."""
    return bool((backup.verification or {}).get("differing"))
