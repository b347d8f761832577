"""Can a recovery point be restored? Some of its files, or all of it, are, to a directory, and compared with it.

What is there afterwards is read back from the directory: its size, and the SHA-256 of each piece, by which restic's
format names it. Owners, rights and times are not judged: they depend on who restores.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from snapkeep.backup.check import MOST_ERRORS, Sample, check_recovery_point
from snapkeep.backup.nodes import Node
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.reading import opened
from snapkeep.backup.request import Progress, Report, Stop, never_stop, no_report
from snapkeep.backup.restore import RestoreResult, restore
from snapkeep.model.errors import Damaged, InvalidInput, LimitExceeded, NotFound
from snapkeep.repository.blobs import BlobId
from snapkeep.repository.repository import Repository

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK: Final = 1 << 20
_KINDS: Final = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK}
"""What anybody may make; devices need rights."""


class Wanted(NamedTuple):
    """A file as the recovery point has it."""

    path: bytes
    """Below the asset."""
    size: int
    blobs: list[BlobId]


@dataclass
class Proof:
    """What was restored, and what is wrong with it."""

    files: int = 0
    size: int = 0
    """Bytes of files."""
    errors: list[str] = field(default_factory=list)
    """The first `MOST_ERRORS`, for people."""
    error_count: int = 0

    def error(self, text: str) -> None:
        """Note one."""
        self.error_count += 1
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(text)


def prove(
    repository: Repository,
    snapshot_id: str,
    share: bytes,
    target: Path,
    *,
    files: int | None,
    most_bytes: int,
    room: int,
    seed: int,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> Proof:
    """Restore a random sample of a recovery point to an empty directory, and compare it.

    `share`: path of the asset in the recovery point. `files`: so many, chosen by `seed` with the same probability
    from all that have at most `most_bytes`, as long as these are enough for them; None: all of it. First all trees are
    read; when these are wrong, nothing is restored. `room`: bytes that may be written.

    What is wrong is in the result. Raises NotFound or Damaged for a recovery point that cannot be read itself,
    LimitExceeded when each of its files is bigger than `most_bytes` or the target has no room, and what makes the
    restore impossible.
    """
    sample: Sample[Wanted] = Sample(files or 0, seed)
    bigger = whole = 0

    def on_file(path: bytes, size: int, blobs: list[BlobId]) -> None:
        nonlocal bigger, whole
        whole += size
        if size > most_bytes:
            bigger += 1
        elif files is not None:
            sample.add(Wanted(path.removeprefix(share + b"/"), size, blobs))

    found = check_recovery_point(repository, snapshot_id, on_file=on_file, progress=progress, stop=stop)
    work = _Work(RecoveryPoint.open(repository, snapshot_id), share, target, progress, stop)
    if not found.sound:
        for text in found.errors:
            work.proof.error(text)
        work.proof.error_count = found.error_count
    elif (wanted := min(whole, most_bytes) if files is not None else whole) > room:
        raise LimitExceeded(
            f"Up to {wanted:,} bytes are to be restored, and there is room for {room:,}",
            next_step="Make room in the directory of the worker, or restore less.",
        )
    elif files is None:
        work.all()
    elif bigger and not sample.chosen:
        raise LimitExceeded(
            f"No file of the recovery point is as small as {most_bytes:,} bytes", next_step="Give it more bytes."
        )
    else:
        work.some(sample.chosen, most_bytes)
    return work.proof


class _Work:
    def __init__(self, point: RecoveryPoint, share: bytes, target: Path, report: Report, stop: Stop) -> None:
        self.proof = Proof()
        self._point = point
        self._share = share
        self._target = target
        self._report = report
        self._stop = stop

    def some(self, chosen: list[Wanted], most_bytes: int) -> None:
        """Restore these, but not more bytes than that in all."""
        problems: dict[bytes, str] = {}
        taken = []
        for wanted in chosen:
            if wanted.size > most_bytes:
                continue
            most_bytes -= wanted.size
            taken.append(wanted)
            try:
                done = self._restore(self._share + b"/" + wanted.path, wanted.path)
            except (Damaged, NotFound, InvalidInput) as error:
                problems[wanted.path] = error.message
            else:
                problems.update((wanted.path, why) for _, why in done.problems)
        with _top(self._target) as top:
            for wanted in taken:
                self._judge(top, wanted, problems)

    def all(self) -> None:
        """Restore everything."""
        try:
            done = self._restore(self._share, b"")
        except (Damaged, NotFound) as error:
            self.proof.error(error.message)
            return
        problems = dict(done.problems)
        with _top(self._target) as top:
            for path, node in self._point.walk(self._share):
                self._stop()
                below = path.removeprefix(self._share + b"/")
                if node.type == "file":
                    self._judge(top, Wanted(below, node.size, list(map(bytes.fromhex, node.content or ()))), problems)
                elif why := _is_other(top, below, node):
                    self._wrong(below, problems.get(below) or why)

    def _restore(self, path: bytes, into: bytes) -> RestoreResult:
        return restore(
            self._point, self._target, path=path, into=into, overwrite=True, progress=self._report, stop=self._stop
        )

    def _judge(self, top: int, wanted: Wanted, problems: dict[bytes, str]) -> None:
        self._stop()
        try:
            self._compare(top, wanted)
        except FileNotFoundError:
            self._wrong(wanted.path, problems.get(wanted.path) or "it was not restored")
        except (OSError, Damaged) as error:
            why = error.message if isinstance(error, Damaged) else f"it cannot be read: {error.strerror}"
            self._wrong(wanted.path, problems.get(wanted.path) or why)
        self.proof.files += 1
        self.proof.size += wanted.size
        self._report(Progress(self.proof.files, 0, self.proof.size, ""))

    def _compare(self, top: int, wanted: Wanted) -> None:
        """Raise Damaged when a file is not what the recovery point has."""
        directory, _, name = wanted.path.rpartition(b"/")
        with opened(top, directory) as here, _readable(here, name) as file:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Damaged("it was restored as something else than a file")
            if status.st_size != wanted.size:
                raise Damaged(f"it has {status.st_size:,} bytes, and {wanted.size:,} in the recovery point")
            offset = 0
            for blob in wanted.blobs:
                end, hashed = offset + self._point.size_of(blob), sha256()
                while offset < end and (data := os.pread(file, min(_BLOCK, end - offset), offset)):
                    self._stop()
                    hashed.update(data)
                    offset += len(data)
                if offset != end or hashed.digest() != blob:
                    raise Damaged(f"its content differs before byte {end:,}")
            if offset != wanted.size:
                raise Damaged(f"its pieces have {offset:,} bytes in the recovery point, and it has {wanted.size:,}")

    def _wrong(self, path: bytes, why: str) -> None:
        self.proof.error(f"{path.decode('utf-8', 'backslashreplace')}: {why}")


def _is_other(top: int, path: bytes, node: Node) -> str | None:
    """Return what is wrong with something that is no file; a directory is made readable for us."""
    kind = _KINDS.get(node.type)
    if kind is None:
        return None
    directory, _, name = path.rpartition(b"/")
    try:
        with opened(top, directory) as here:
            mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            if stat.S_IFMT(mode) != kind:
                return f"it was restored as something else than a {node.type}"
            if node.type == "dir" and mode & 0o700 != 0o700:
                os.chmod(name, stat.S_IMODE(mode) | 0o700, dir_fd=here)
    except OSError as error:
        return f"it was not restored: {error.strerror}"
    return None


@contextmanager
def _top(target: Path) -> Iterator[int]:
    top = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield top
    finally:
        os.close(top)


@contextmanager
def _readable(here: int, name: bytes) -> Iterator[int]:
    """Open a file that was just restored, whatever rights it has."""
    try:
        file = os.open(name, _FILE, dir_fd=here)
    except PermissionError:
        if not stat.S_ISREG(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
            raise
        os.chmod(name, 0o600, dir_fd=here)  # nobody else reaches this directory
        file = os.open(name, _FILE, dir_fd=here)
    try:
        yield file
    finally:
        os.close(file)
