"""A repository in a directory, in restic's default layout."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snapkeep.model.errors import Conflict, LimitExceeded, NotFound, PermissionDenied, SnapkeepError, Unavailable
from snapkeep.repository.backends import NAME, FileKind

_TEMPORARY = "tmp"
_LEFT_OVER = 24 * 3600.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalBackend:
    """A directory. A new file is written in `tmp`, made durable, and only then given its name."""

    def __init__(self, directory: Path) -> None:
        self.location = str(directory)
        self._root = directory

    def create(self) -> None:
        """Make the directories as restic does."""
        if (self._root / FileKind.CONFIG).exists():
            raise Conflict(f"There is a repository in {self.location} already")
        with self._errors("the layout"):
            for kind in FileKind:
                if kind is not FileKind.CONFIG:
                    (self._root / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._root / _TEMPORARY).mkdir(mode=0o700, exist_ok=True)
            for number in range(256):
                (self._root / FileKind.DATA / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
            for directory in (self._root / FileKind.DATA, self._root, self._root.parent):
                _sync(directory)

    def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
        """See `Backend`."""
        path = self._path(kind, name)
        with self._errors(kind, name):
            temporary = self._temporary()
            try:
                _write(temporary, data)
                self._rename(temporary, path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            _sync(path.parent)

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Backend`."""
        with self._errors(kind, name), self._path(kind, name).open("rb", buffering=0) as file:
            if offset:
                file.seek(offset)
            if length is None:
                return file.readall()
            parts = []
            while length and (part := file.read(length)):
                parts.append(part)
                length -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """See `Backend`."""
        if kind is FileKind.CONFIG:
            with suppress(NotFound), self._errors(kind):
                yield "", (self._root / kind).stat().st_size
            return
        directory = self._root / kind
        # A copy of a repository may lack empty directories. Where all is gone, it is an error: it may not be mounted.
        if not directory.exists() and (self._root / FileKind.CONFIG).exists():
            return
        with self._errors(kind):
            inside = [path for path in sorted(directory.iterdir()) if path.is_dir()]
        for inner in inside if kind is FileKind.DATA else [directory]:
            with self._errors(kind), os.scandir(inner) as entries:
                for entry in entries:
                    if NAME.fullmatch(entry.name):
                        with suppress(FileNotFoundError):  # removed since it was listed
                            yield entry.name, entry.stat().st_size

    def remove(self, kind: FileKind, name: str) -> None:
        """See `Backend`."""
        with suppress(NotFound), self._errors(kind, name):
            self._path(kind, name).unlink()

    def close(self) -> None:
        """Remove what writers that were killed left in `tmp` long ago."""
        with suppress(OSError):
            for path in (self._root / _TEMPORARY).iterdir():
                if path.stat().st_mtime < time.time() - _LEFT_OVER:
                    path.unlink()

    def _path(self, kind: FileKind, name: str) -> Path:
        if kind is FileKind.CONFIG:
            return self._root / kind
        if kind is FileKind.DATA:
            return self._root / kind / name[:2] / name
        return self._root / kind / name

    def _temporary(self) -> Path:
        return self._root / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(8)}"

    def _rename(self, temporary: Path, path: Path) -> None:
        try:
            temporary.rename(path)
        except FileNotFoundError:  # others make directories below `data` when they are needed
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(path.parent.parent)
            temporary.rename(path)

    @contextmanager
    def _errors(self, what: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _translated(error, f"{what} {name}".rstrip(), self.location) from error


def _write(path: Path, data: bytes | bytearray) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    except FileNotFoundError:  # a repository that restic made has no `tmp`
        if not path.parents[1].is_dir():
            raise
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot, and then need not
            raise
    finally:
        os.close(descriptor)


def _translated(error: OSError, what: str, location: str) -> SnapkeepError:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(
            f"{what} is not in the repository {location}", next_step="Check the path, and that it is mounted."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            f"The repository {location} refuses {what}: {reason}", needed="read and write",
            next_step="Give the user of Snapkeep read and write access to the directory.",
        )  # fmt: skip
    if error.errno in _FULL:
        return LimitExceeded(
            f"The repository {location} cannot take {what}: {reason}",
            next_step="Make room on the repository's file system, then try again.",
        )
    return Unavailable(
        f"The repository {location} fails at {what}: {reason}", next_step="Check the disk or mount of the repository."
    )
