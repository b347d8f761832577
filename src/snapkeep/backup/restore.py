"""Restoring from a recovery point into a directory.

Trees are walked here, and directories made and finished; all else is put in lots for workers (`restoring`). Nothing is
written outside of the target: every step is taken from an open directory, and no symbolic link is followed. What
cannot be restored is a problem with its path and never ends the rest; only a repository that fails does, or a target
without room.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from msgspec import Raw

from snapkeep.backup.nodes import Known, Node, Tree, read_node
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.reading import join, opened
from snapkeep.backup.request import MOST_PROBLEMS, Progress, Report, Stop, never_stop, no_report
from snapkeep.backup.restoring import (
    Item,
    Lot,
    Options,
    Outcome,
    Worker,
    Writer,
    dress,
    inherits,
    placed,
    reason,
    times,
    workers,
)
from snapkeep.model.changes import PLACEHOLDER_INODE
from snapkeep.model.errors import Conflict, Damaged, InvalidInput, Unavailable
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

_MOST_ITEMS = 256  # in a lot
_MOST_BYTES = 16 << 20
_TREES = 32  # that are read at once


@dataclass
class RestoreResult:
    """What was restored."""

    files: int = 0
    directories: int = 0
    others: int = 0
    size: int = 0
    """Bytes of files."""
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    """The first `MOST_PROBLEMS` paths that were not restored, or not wholly, and why."""
    problem_count: int = 0

    def problem(self, path: bytes, why: str) -> None:
        """Note one."""
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append((path, why))


def restore(
    point: RecoveryPoint,
    target: Path,
    *,
    path: bytes = b"",
    into: bytes = b"",
    overwrite: bool = False,
    owners: bool | None = None,
    readers: int = 4,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> RestoreResult:
    """Restore what is at `path`: what a directory holds comes into `target`, a file comes there by its name.

    The target is made if it is not there. Raises Conflict when it holds anything, unless `overwrite`; then files of
    the same name are exchanged one by one, each at once, and a directory is never removed. So what was interrupted is
    completed by doing it again with `overwrite`. `into`: instead to this path below the target, so that several
    restores share one. `owners`: give files to whom they belonged (None: when we are root).
    """
    path = path.strip(b"/")
    node = point.node(path) if path else None
    top = _target(target, overwrite=overwrite)
    if into:
        top = _below(top, into if node is None or node.type == "dir" else into.rpartition(b"/")[0])
    options = Options(overwrite, os.geteuid() == 0 if owners is None else owners)
    work = _Restore(point.repository, top, options, readers, progress, stop)
    try:
        if node is not None and node.type != "dir":
            work.one(path.rpartition(b"/")[2], point.text(path))
        else:
            work.all(point.snapshot.tree if node is None else node.subtree, node)
        return work.result
    finally:
        work.close()
        os.close(top)


def make_target(target: Path) -> None:
    """Make the target of a restore, if it is not there. Raises Conflict when it holds anything."""
    os.close(_target(target, overwrite=False))


def _target(target: Path, *, overwrite: bool) -> int:
    try:
        with suppress(FileExistsError):
            target.mkdir(parents=True)
        top = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise InvalidInput(f"The target of a restore is no directory: {target}") from error
    except OSError as error:
        raise Unavailable(f"The target of the restore cannot be made: {target}: {error.strerror}") from error
    if not overwrite and os.listdir(top):  # noqa: PTH208 - of an open directory
        os.close(top)
        raise Conflict(
            f"{target} is not empty", next_step="Choose an empty directory, or say that it may be overwritten."
        )
    return top


def _below(top: int, path: bytes) -> int:
    """Return a directory below an open one, which is closed; it is made, and no link is followed on the way."""
    for name in filter(None, path.split(b"/")):
        try:
            if name in {b".", b".."}:
                raise InvalidInput(f"A path to restore to holds {name.decode()!r}")
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=top)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        except OSError as error:
            shown = path.decode("utf-8", "backslashreplace")
            raise Unavailable(f"No directory can be made for {shown} in the target: {error.strerror}") from error
        finally:
            os.close(top)
        top = below
    return top


@dataclass(slots=True, eq=False)
class _Directory:
    """A directory between its making and the moment when all is in it."""

    path: bytes
    above: _Directory | None
    node: Node | None
    tree: bytes
    heir: bool
    missing: int = 1
    """Lots with something of it, directories in it, and itself until its tree is read."""


@dataclass(slots=True, eq=False)
class _Linked:
    """A file with several names."""

    path: bytes = b""
    """Where it was restored; empty as long as it is not."""
    pending: bool = True
    """It is in a lot, or will be."""
    left: int = 0
    """Names that are still to come, if all are restored."""
    waiting: list[tuple[_Directory, bytes, bytes | Raw]] = field(default_factory=list)
    """Names that were met meanwhile."""


_Entry = tuple[_Directory, bytes, "bytes | Raw", _Linked | None, int]
"""What goes into a lot: directory, name, text of the node, the file of which it may be one name, its size."""


class _Restore:
    def __init__(
        self, repository: Repository, top: int, options: Options, readers: int, report: Report, stop: Stop
    ) -> None:
        self.result = RestoreResult()
        self._repository = repository
        self._top = top
        self._options = options
        self._readers = readers
        self._report = report
        self._stop = stop
        self._waiting: list[_Directory] = []
        self._items: deque[_Entry] = deque()
        self._bytes = 0
        self._linked: dict[tuple[object, ...], _Linked] = {}
        self._given: dict[Future[Outcome], list[_Entry]] = {}
        self._workers: list[Worker] = []
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(readers, "restore")
        self._counting = threading.Lock()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown()

    def one(self, name: bytes, text: bytes | Raw) -> None:
        """Restore one object into the target."""
        self._items.append((_Directory(b"", None, None, b"", inherits(self._top), missing=2), name, text, None, 0))
        self._end()

    def all(self, tree: str | None, node: Node | None) -> None:
        """Restore what is in a directory."""
        if tree is None:
            raise Damaged("A directory of the recovery point has no tree")
        top = _Directory(b"", None, node, bytes.fromhex(tree), inherits(self._top))
        self._repository.load(BlobType.TREE, top.tree)  # without it there is nothing to restore
        self._waiting.append(top)
        self._end()

    def _end(self) -> None:
        """Do everything that waits, and what it brings."""
        while self._waiting or self._items or self._given:
            self._stop()
            while self._waiting and not self._full():
                self._read()
            if self._items and (self._full() or not self._waiting) and len(self._given) < 2 * self._readers:
                self._give_out()
                continue
            done, _ = wait(self._given, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                self._take_in(self._given.pop(future), future.result())
            result = self.result
            self._report(Progress(result.files, result.directories, result.size, ""))

    def _full(self) -> bool:
        return len(self._items) >= _MOST_ITEMS or self._bytes >= _MOST_BYTES

    # Directories

    def _read(self) -> None:
        """Read the next trees."""
        taken = [self._waiting.pop() for _ in range(min(_TREES, len(self._waiting)))]
        texts: dict[bytes, bytes] = {}
        with suppress(Damaged):
            texts.update(self._repository.load_many(BlobType.TREE, {directory.tree for directory in taken}))
        for directory in taken:
            self._stop()
            with self._told(directory.path):
                text = texts.get(directory.tree)
                if text is None:
                    text = self._repository.load(BlobType.TREE, directory.tree)
                self._enter(directory, Tree(text))
            self._lack(directory)

    def _enter(self, directory: _Directory, tree: Tree) -> None:
        with opened(self._top, directory.path) as here:
            for (name, known), text in zip(tree.knowns(), tree.texts, strict=True):
                path = join(directory.path, name)
                with self._told(path):
                    if name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
                        raise Damaged("the recovery point has an object with an impossible name")
                    if known.type == "dir":
                        self._make(here, name, directory, read_node(text))
                    else:
                        self._add(directory, name, text, known)

    def _make(self, here: int, name: bytes, above: _Directory, node: Node) -> None:
        if node.subtree is None:
            raise Damaged("the recovery point has no tree of this directory")
        dressed: Node | None = node
        try:
            os.mkdir(name, 0o700, dir_fd=here)
        except FileExistsError:
            if node.inode == PLACEHOLDER_INODE:
                dressed = None  # it stood for a subvolume, and that is what is there: it stays as it is
            if not self._options.overwrite or not stat.S_ISDIR(
                os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            ):
                raise
        above.missing += 1
        self.result.directories += 1
        heir = above.heir or self._options.overwrite
        self._waiting.append(_Directory(join(above.path, name), above, dressed, bytes.fromhex(node.subtree), heir))

    def _lack(self, directory: _Directory | None) -> None:
        """Count one thing that a directory waited for; finish it, and those above, when it was the last."""
        while directory is not None:
            directory.missing -= 1
            if directory.missing:
                return
            if directory.node is not None:
                self._finish(directory, directory.node)
            directory.node = None
            directory = directory.above

    def _finish(self, directory: _Directory, node: Node) -> None:
        with self._told(directory.path), opened(self._top, directory.path) as here:
            for problem in dress(here, node, owners=self._options.owners, heir=directory.heir):
                self.result.problem(directory.path, problem)
            os.utime(here, ns=times(node))

    # Everything else

    def _add(self, directory: _Directory, name: bytes, text: bytes | Raw, known: Known) -> None:
        """Put an object in the next lot, unless it is another name of one that was already met."""
        linked = None
        if known.links > 1 or (known.type == "fifo" and known.device_id):
            # Not by the inode alone: it may be another file's in another snapshot.
            key = (known.device_id, known.inode, known.type, known.mtime, sha256(known.content).digest())
            linked = self._linked.get(key)
            if linked is not None:
                directory.missing += 1
                linked.left -= 1
                if not linked.left:
                    del self._linked[key]
                linked.waiting.append((directory, name, text))
                if not linked.pending:
                    self._go_on(linked)
                return
            linked = _Linked(left=known.links - 1 or -1)
            self._linked[key] = linked
        directory.missing += 1
        self._items.append((directory, name, text, linked, known.size))
        self._bytes += known.size

    def _link(self, linked: _Linked, directory: _Directory, name: bytes, text: bytes | Raw) -> None:
        """Give a restored file one more name; where that cannot be, restore it once more."""
        parent, _, known = linked.path.rpartition(b"/")
        try:
            with (
                opened(self._top, parent) as there,
                opened(self._top, directory.path) as here,
                placed(here, name, overwrite=self._options.overwrite) as new,
            ):
                os.link(known, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        except OSError:
            self._again(linked, directory, name, text)
            return
        self.result.files += read_node(text).type == "file"
        self._lack(directory)

    def _give_out(self) -> None:
        """Give the next worker a lot."""
        items: list[_Entry] = []
        size = 0
        while self._items and len(items) < _MOST_ITEMS and size < _MOST_BYTES:
            items.append(self._items.popleft())
            size += items[-1][4]
        self._bytes -= size
        few = not self._waiting and not self._items
        numbers: dict[bytes, int] = {}
        lot = Lot([], [])
        for directory, name, text, *_ in items:
            number = numbers.setdefault(directory.path, len(numbers))
            lot.items.append(Item(number, name, bytes(text)))
        lot.directories.extend(numbers)
        if not self._workers:
            self._workers = (
                [Writer(self._repository, self._top, self._options)]
                if few
                else workers(self._repository, self._top, self._options, self._readers)
            )
            for worker in self._workers:
                self._idle.put(worker)
        self._given[self._threads.submit(self._run, lot)] = items

    def _run(self, lot: Lot) -> Outcome:
        worker = self._idle.get()
        try:
            return worker.run(lot, self._written)
        finally:
            self._idle.put(worker)

    def _written(self, size: int) -> None:
        with self._counting:
            self.result.size += size

    def _take_in(self, items: list[_Entry], done: Outcome) -> None:
        self.result.files += done.files
        self.result.others += done.others
        self._written(done.size)
        failed = set()
        for number, why, gone in done.problems:
            directory, name, *_ = items[number]
            self.result.problem(join(directory.path, name), why)
            if gone:
                failed.add(number)
        for number, (directory, name, _, linked, _) in enumerate(items):
            if linked is not None:
                linked.path = b"" if number in failed else join(directory.path, name)
                linked.pending = False
                self._go_on(linked)
            self._lack(directory)

    def _go_on(self, linked: _Linked) -> None:
        """Restore the other names that wait for a file; when it could not be restored, the next is tried."""
        while linked.waiting and not linked.pending:
            directory, name, text = linked.waiting.pop(0)
            if linked.path:
                self._link(linked, directory, name, text)
            else:
                self._again(linked, directory, name, text)

    def _again(self, linked: _Linked, directory: _Directory, name: bytes, text: bytes | Raw) -> None:
        linked.pending = True
        self._items.append((directory, name, text, linked, 0))

    @contextmanager
    def _told(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except (OSError, Damaged, ValueError, OverflowError) as error:
            self.result.problem(path, reason(error))
