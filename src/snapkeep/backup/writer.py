"""Writing a recovery point: a full backup, or an incremental one from a parent and a list of changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

from snapkeep.backup.full import Walk
from snapkeep.backup.incremental import Update
from snapkeep.backup.links import LinkTable, rebuild
from snapkeep.backup.readers import Emit, ProcessReaders, Readers, Source, ThreadReaders
from snapkeep.backup.recovery_point import root_tree, save, share_tree
from snapkeep.backup.request import (
    PARTIAL,
    BackupRequest,
    BackupResult,
    Mode,
    Report,
    Stop,
    never_stop,
    no_report,
    snapshot_tag,
)
from snapkeep.model.changes import Change
from snapkeep.model.errors import BaseMissing, Damaged, NotFound, PermissionDenied, Unavailable
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile

_MANY = 20_000
"""With so many changed paths it pays to start processes."""

_LOTS = 2
"""Lots of tasks for each reader: it never waits for the next."""


def full_backup(
    repository: Repository,
    request: BackupRequest,
    *,
    parent: str | None = None,
    readers: int = 4,
    links: LinkTable | None = None,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> BackupResult:
    """Walk the whole source and write a recovery point of it.

    With a parent, files whose size, times and inode are as in there are not read again; one of another path, as before
    the share was renamed, has none of them. Trees of the parent that are damaged are written again. `links` is made
    anew. Files that cannot be read are left out and named in the result, which is then `partial`. Raises NotFound for
    an absent parent, Unavailable when the source cannot be read.
    """
    result = BackupResult(Mode.FULL, parent=parent)
    with (
        _opened(request) as top,
        _table(links) as table,
        _readers(ProcessReaders, repository, request, readers) as pool,
    ):
        before = repository.statistics.bytes_added
        base, in_doubt = None, False
        if parent is not None:
            snapshot = repository.snapshot(parent)
            result.parent = snapshot.id
            if snapshot.paths == (request.logical_path,):
                try:
                    base, _ = share_tree(repository, snapshot, request.logical_path)
                except Damaged:
                    in_doubt = True
        table.clear()
        walk = Walk(
            repository, request, pool, result, in_flight=readers * _LOTS, links=table, report=progress, stop=stop
        )
        tree = root_tree(repository, request, top, walk.run(base, in_doubt=in_doubt))
        _still_there(top)
        repository.flush()
        stop()  # the last moment: who was superseded, or has lost the lock, leaves no recovery point
        save(repository, request, result, tree, before)
        table.commit(result.snapshot_id)
    return result


def incremental_backup(
    repository: Repository,
    request: BackupRequest,
    *,
    parent: str,
    base: str,
    changes: Iterable[Change],
    links: LinkTable | None = None,
    readers: int = 4,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> BackupResult:
    """Write a recovery point from a parent and the list of what changed since; the time it takes follows the changes.

    `base`: the snapshot at which the list starts. Raises BaseMissing when the parent is gone, was made from another
    snapshot or of another share, or lacks something that nobody knows any more; Incomplete when the list names what
    cannot be. After both a full backup helps. `links` is made again from the parent when it does not tell of it.
    """
    snapshot = _parent(repository, request, parent, base)
    result = BackupResult(Mode.INCREMENTAL, parent=snapshot.id)
    with _opened(request) as top, _table(links) as table:
        before = repository.statistics.bytes_added
        tree, node = share_tree(repository, snapshot, request.logical_path)
        if table.recovery_point != snapshot.id:
            if PARTIAL in snapshot.tags:
                raise BaseMissing(f"Recovery point {snapshot.id} lacks files, and which ones is not known any more")
            rebuild(table, repository, snapshot.id, tree)
        stays = node is None or node.inode == os.fstat(top).st_ino
        with closing(
            Update(repository, result, tree, table=table, inodes_stay=stays, report=progress, stop=stop)
        ) as update:
            many = update.learn(changes) > _MANY
            with _readers(ProcessReaders if many else ThreadReaders, repository, request, readers) as pool:
                update.look(pool, readers * _LOTS)
            root = root_tree(repository, request, top, update.build())
            _still_there(top)
            update.remember()
        repository.flush()
        stop()
        save(repository, request, result, root, before)
        table.commit(result.snapshot_id)
    return result


def _parent(repository: Repository, request: BackupRequest, parent: str, base: str) -> SnapshotFile:
    """Return the parent, if the changes since `base` can be applied to it. Raises BaseMissing."""
    try:
        snapshot = repository.snapshot(parent)
    except NotFound as error:
        raise BaseMissing(f"The parent recovery point {parent} is gone from the repository") from error
    if snapshot_tag(base) not in snapshot.tags:
        raise BaseMissing(f"Recovery point {snapshot.id} was not made from {base}, at which the changes start")
    if snapshot.paths != (request.logical_path,):
        raise BaseMissing(f"Recovery point {snapshot.id} is of {', '.join(snapshot.paths)}, not {request.logical_path}")
    return snapshot


@contextmanager
def _opened(request: BackupRequest) -> Iterator[int]:
    try:
        top = os.open(request.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"The source of the backup is not there: {request.source}") from error
    except PermissionError as error:
        raise PermissionDenied(f"The source of the backup may not be read: {request.source}") from error
    except OSError as error:
        raise Unavailable(f"The source of the backup cannot be read: {request.source}: {error.strerror}") from error
    try:
        yield top
    finally:
        os.close(top)


def _still_there(top: int) -> None:
    """A source that went away while it was read has no files any more, and must not become a recovery point."""
    try:
        with os.scandir(top) as names:
            next(names, None)
        if not os.fstat(top).st_nlink:  # removed: glibc then lists nothing, without an error
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise Unavailable(f"The source of the backup went away while it was read: {error.strerror}") from error


@contextmanager
def _table(links: LinkTable | None) -> Iterator[LinkTable]:
    """Give the caller's table, unchanged after a failure, or one that is thrown away."""
    table = LinkTable() if links is None else links
    try:
        yield table
    finally:
        table.rollback()
        if links is None:
            table.close()


@contextmanager
def _readers(
    make: Callable[[Source, int, Emit], Readers], repository: Repository, request: BackupRequest, count: int
) -> Iterator[Readers]:
    source = Source(request.source, repository.key, repository.polynomial, request.device_id)
    pool = make(source, count, repository.add)
    try:
        yield pool
    finally:
        pool.close()
