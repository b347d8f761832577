"""One backup or restore by Snapkeep, in a process of its own as restic is: a job comes in, times go out (`backup.py`).

The key is derived apart from the rest, so that the time without it can be told: a resident service does it once.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from snapkeep.backup.heap import share_arenas
from snapkeep.backup.links import LinkTable
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.request import BackupRequest, BackupResult
from snapkeep.backup.restore import restore
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.crypto import Key, open_key_file
from snapkeep.repository.repository import Repository


class Job(msgspec.Struct, kw_only=True):
    """What to do: a full backup, with `parent` an incremental one, with `target` a restore of the parent."""

    repository: str
    cache: str
    password: str
    readers: int
    source: str = ""
    snapshot: str = ""
    """Stands for the snapshot that the source is."""
    base: str = ""
    parent: str = ""
    changed: list[str] = []
    target: str = ""


class Outcome(msgspec.Struct, kw_only=True):
    """What became of it."""

    snapshot_id: str = ""
    tree_id: str = ""
    resident: float
    """Seconds from the open repository's key to the end: without the start of Python and the derivation."""


def main() -> None:
    share_arenas()  # as server and worker do
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    backend = LocalBackend(Path(job.repository))
    key = _key(backend, job.password)
    began = time.perf_counter()
    repository = Repository.open(backend, job.password, Path(job.cache), key=key)
    result = _do(job, repository)
    repository.close()
    outcome = Outcome(
        snapshot_id=result.snapshot_id if result else "",
        tree_id=result.tree_id if result else "",
        resident=time.perf_counter() - began,
    )
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


def _do(job: Job, repository: Repository) -> BackupResult | None:
    with repository.locked():
        if job.target:
            done = restore(RecoveryPoint(repository, repository.snapshot(job.parent)), Path(job.target))
            if done.problem_count:
                raise SystemExit(f"{done.problem_count} objects were not restored: {done.problems[0]}")
            return None
        request = BackupRequest(
            source=Path(job.source), logical_path="/", snapshot=job.snapshot, host="benchmark", time=datetime.now(UTC)
        )
        with LinkTable(Path(job.cache) / "links.sqlite") as links:
            if not job.parent:
                return full_backup(repository, request, readers=job.readers, links=links)
            changes = [Change(ChangeOperation.MODIFY, ObjectType.FILE, path.encode()) for path in job.changed]
            return incremental_backup(
                repository, request, parent=job.parent, base=job.base, changes=changes, links=links, readers=job.readers
            )


def _key(backend: Backend, password: str) -> Key:
    for name, _ in backend.list(FileKind.KEY):
        if key := open_key_file(backend.load(FileKind.KEY, name), password):
            return key
    raise SystemExit("the password is wrong")


if __name__ == "__main__":
    main()
