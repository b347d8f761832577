"""Restoring from a recovery point into a directory.

Nothing is written outside of the target: every step is taken from an open directory, and no symbolic link is followed.
What cannot be restored is a problem with its path and never ends the rest; only a repository that fails does.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from snapkeep.backup.metadata import unix_mode
from snapkeep.backup.nodes import Node, read_time
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.reading import join, opened
from snapkeep.backup.request import MOST_PROBLEMS, Progress, Report, Stop, never_stop, no_report
from snapkeep.model.errors import Conflict, Damaged, InvalidInput

_ZEROS = bytes(64 << 10)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {"fifo": stat.S_IFIFO, "dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}


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


def restore(
    point: RecoveryPoint,
    target: Path,
    *,
    path: bytes = b"",
    overwrite: bool = False,
    owners: bool | None = None,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> RestoreResult:
    """Restore what is at `path`: what a directory holds comes into `target`, a file comes there by its name.

    The target is made if it is not there. Raises Conflict when it holds anything, unless `overwrite`; then files of
    the same name are exchanged one by one, each at once, and a directory is never removed. `owners`: give files to
    whom they belonged (None: when we are root).
    """
    path = path.strip(b"/")
    with suppress(FileExistsError):
        target.mkdir(parents=True)
    top = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not overwrite and any(target.iterdir()):
            raise Conflict(
                f"{target} is not empty", next_step="Choose an empty directory, or say that it may be overwritten."
            )
        work = _Restore(point, top, os.geteuid() == 0 if owners is None else owners, overwrite, progress, stop)
        node = point.node(path) if path else None
        if node is not None and node.type != "dir":
            work.object(b"", path.rpartition(b"/")[2], node)
        else:
            work.below(point.list(path), node)
        return work.result
    finally:
        os.close(top)


class _Restore:
    def __init__(
        self, point: RecoveryPoint, top: int, owners: bool, overwrite: bool, report: Report, stop: Stop
    ) -> None:
        self.result = RestoreResult()
        self._point = point
        self._top = top
        self._owners = owners
        self._overwrite = overwrite
        self._report = report
        self._stop = stop
        self._first: dict[tuple[object, ...], bytes] = {}  # an object with several names, and where it was restored
        self._made: list[tuple[bytes, Node]] = []  # directories: their times are set when all is in them

    def below(self, inside: Iterator[tuple[bytes, Node]], top: Node | None) -> None:
        """Restore what is in a directory, and in those below it."""
        waiting = [(b"", inside)]
        while waiting:
            directory, nodes = waiting[-1]
            for name, node in nodes:
                self._stop()
                if self.object(directory, name, node) and node.type == "dir" and node.subtree:
                    waiting.append((join(directory, name), self._point.list_tree(node.subtree)))
                    break
            else:
                waiting.pop()
            counted = self.result
            self._report(Progress(counted.files, counted.directories, counted.size, os.fsdecode(directory)))
        for path, node in reversed(self._made):
            with self._told(path), opened(self._top, path) as here:
                self._dress(here, b".", node, path)
        if top is not None:
            with self._told(b""):
                self._dress(self._top, b".", top, b"")

    def object(self, directory: bytes, name: bytes, node: Node) -> bool:
        """Restore one object, a directory without what it holds; False when that failed."""
        path = join(directory, name)
        before = self.result.problem_count
        with self._told(path), opened(self._top, directory) as here:
            if node.type == "dir":
                self._directory(here, name)
                self._made.append((path, node))
                self.result.directories += 1
            else:
                self._exchange(here, name, node, path)
        return self.result.problem_count == before or node.type != "dir"

    @contextmanager
    def _told(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._problem(path, error.strerror or str(error))
        except (Damaged, InvalidInput) as error:
            self._problem(path, str(error))

    def _problem(self, path: bytes, reason: str) -> None:
        self.result.problem_count += 1
        if len(self.result.problems) < MOST_PROBLEMS:
            self.result.problems.append((path, reason))

    def _directory(self, here: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=here)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                raise

    def _exchange(self, here: int, name: bytes, node: Node, path: bytes) -> None:
        """Make the object beside its place, then let it take the place: it is there whole or not at all."""
        new = b".snapkeep-%s" % secrets.token_hex(8).encode()
        try:
            if not self._make(here, new, node, path):
                return
            if self._overwrite:
                os.rename(new, name, src_dir_fd=here, dst_dir_fd=here)
            else:
                os.link(new, name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=here)

    def _make(self, here: int, name: bytes, node: Node, path: bytes) -> bool:
        key = (node.device_id, node.inode, node.type, node.mtime, *(node.content or ()))
        linked = node.links > 1 or (node.type == "fifo" and node.device_id)
        if linked and (first := self._first.get(key)) is not None:
            parent, _, known = first.rpartition(b"/")
            with opened(self._top, parent) as directory:
                os.link(known, name, src_dir_fd=directory, dst_dir_fd=here, follow_symlinks=False)
            self.result.files += node.type == "file"
            return True
        if node.type == "file":
            self._file(here, name, node)
            self.result.files += 1
        elif node.type == "symlink":
            target = node.linktarget.encode() if node.linktarget_raw is None else node.linktarget_raw
            os.symlink(target, name, dir_fd=here)
            self.result.others += 1
        elif node.type in _SPECIAL:
            os.mknod(name, _SPECIAL[node.type] | 0o600, node.device, dir_fd=here)
            self.result.others += 1
        else:
            self._problem(path, f"an object of the kind {node.type!r} is not restored")
            return False
        self._dress(here, name, node, path)
        if linked:
            self._first[key] = path
        return True

    def _file(self, here: int, name: bytes, node: Node) -> None:
        file = os.open(name, _NEW, 0o600, dir_fd=here)
        try:
            size = 0
            for piece in self._point.read(node):
                self._stop()
                _write(file, piece, size)
                size += len(piece)
            os.ftruncate(file, size)
        finally:
            os.close(file)
        if size != node.size:
            raise Damaged(f"{node.name!r} has {size} bytes, not {node.size} as its node says")
        self.result.size += size

    def _dress(self, here: int, name: bytes, node: Node, path: bytes) -> None:
        """Give an object its owner, attributes, mode and times; the times last, the mode before: it may lock us out."""
        where = b"/proc/self/fd/%d/%s" % (here, name)
        if self._owners:
            os.chown(name, node.uid, node.gid, dir_fd=here, follow_symlinks=False)
        for attribute in node.extended_attributes or ():
            try:
                os.setxattr(where, attribute.name, attribute.value or b"", follow_symlinks=False)
            except OSError as error:
                self._problem(path, f"attribute {attribute.name} cannot be set: {error.strerror}")
        if node.type != "symlink":
            os.chmod(name, unix_mode(node.mode), dir_fd=here)
        time = read_time(node.mtime)
        os.utime(name, ns=(time, time), dir_fd=here, follow_symlinks=False)


def _write(file: int, data: bytes, offset: int) -> None:
    """Write at an offset, leaving out what is only zeros."""
    with memoryview(data) as view:
        for start in range(0, len(view), len(_ZEROS)):
            block = view[start : start + len(_ZEROS)]
            if block == _ZEROS[: len(block)]:
                continue
            done = 0
            while done < len(block):
                done += os.pwrite(file, block[done:], offset + start + done)
