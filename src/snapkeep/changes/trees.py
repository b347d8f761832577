"""Reading a directory tree for a comparison: a directory at a time, sorted, in bounded memory."""

from __future__ import annotations

import ctypes
import errno
import heapq
import marshal
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from snapkeep.model.changes import PLACEHOLDER_INODE, ObjectType
from snapkeep.model.errors import Incomplete, NotFound, PermissionDenied, Unavailable, Unsupported

RUN = 10_000
"""A directory with more entries than this is sorted on disk."""

_PIECE = 100
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: ObjectType.FILE,
    stat.S_IFDIR: ObjectType.DIRECTORY,
    stat.S_IFLNK: ObjectType.SYMLINK,
    stat.S_IFIFO: ObjectType.FIFO,
    stat.S_IFSOCK: ObjectType.SOCKET,
    stat.S_IFBLK: ObjectType.BLOCK_DEVICE,
    stat.S_IFCHR: ObjectType.CHARACTER_DEVICE,
}


class Node(NamedTuple):
    """One object in a directory. Times are nanoseconds since 1970."""

    name: bytes
    mode: int
    inode: int
    links: int
    size: int
    uid: int
    gid: int
    mtime: int
    ctime: int
    atime: int

    @property
    def kind(self) -> int:
        """Its type, as in the bits of its mode."""
        return stat.S_IFMT(self.mode)

    @property
    def directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def linked(self) -> bool:
        """Whether it has several names."""
        return self.links > 1 and not stat.S_ISDIR(self.mode)

    @property
    def type(self) -> ObjectType:
        """Its type in the words of a change list."""
        return ObjectType.HARD_LINK if self.linked else _TYPES.get(stat.S_IFMT(self.mode), ObjectType.OTHER)


Nodes = Iterable[Node]


class Tree:
    """A directory and all below it, which nobody changes meanwhile. May be used by several threads."""

    def __init__(self, top: Path, scratch: Path | None = None) -> None:
        self.top = top
        self._scratch = scratch
        with _told(top, b""):
            self._descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._descriptor)

    def read(self, path: bytes) -> tuple[int, Nodes]:
        """Return how many entries the directory has, and the entries sorted by name."""
        with _told(self.top, path), _opened(self._descriptor, path) as descriptor:
            nodes: list[Node] = []
            spilled: _Spilled | None = None
            count = 0
            with os.scandir(descriptor) as found:
                for entry in found:
                    nodes.append(_node(os.fsencode(entry.name), entry.stat(follow_symlinks=False)))
                    if len(nodes) == RUN:
                        spilled = spilled or _Spilled(self._scratch)
                        spilled.add(nodes)
                        count += RUN
                        nodes = []
            nodes.sort()
            if spilled is None:
                return len(nodes), nodes
            spilled.add(nodes)
            return count + len(nodes), spilled

    def node(self, path: bytes) -> Node | None:
        """Return one object; None when there is no such path."""
        parent, _, name = path.rpartition(b"/")
        with _told(self.top, path):
            try:
                with _opened(self._descriptor, parent) as descriptor:
                    return _node(name, os.stat(name or b".", dir_fd=descriptor, follow_symlinks=False))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def link(self, path: bytes) -> bytes:
        """Return where a symbolic link leads."""
        with _told(self.top, path):
            return os.readlink(path, dir_fd=self._descriptor)

    def born(self, path: bytes) -> int | None:
        """Return when the object was created; None where the file system does not say."""
        return _born(self._descriptor, path)

    def open(self, path: bytes) -> IO[bytes]:
        """Open a file for reading."""
        with _told(self.top, path):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.fdopen(os.open(path, flags, dir_fd=self._descriptor), "rb")


@contextmanager
def opened(place: Path | Tree, scratch: Path | None) -> Iterator[Tree]:
    """Yield the tree of a directory; one that is open already stays so."""
    if isinstance(place, Tree):
        yield place
    else:
        with closing(Tree(place, scratch)) as tree:
            yield tree


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; the top is empty."""
    return directory + b"/" + name if directory else name


def order(path: bytes) -> bytes:
    """Return the key that sorts a directory before what it holds, and that before what comes after the directory."""
    return path.replace(b"/", b"\0")


def _node(name: bytes, found: os.stat_result) -> Node:
    """Make a node; a third faster than by its constructor, and there are millions."""
    if found.st_ino == PLACEHOLDER_INODE and stat.S_ISDIR(found.st_mode) and found.st_nlink == 1:
        return Node(name, found.st_mode, PLACEHOLDER_INODE, 1, 0, found.st_uid, found.st_gid, 0, 0, 0)
    return tuple.__new__(
        Node,
        (
            name,
            found.st_mode,
            found.st_ino,
            found.st_nlink,
            found.st_size,
            found.st_uid,
            found.st_gid,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_atime_ns,
        ),
    )


@contextmanager
def _opened(top: int, path: bytes) -> Iterator[int]:
    descriptor = os.open(path or b".", _DIRECTORY, dir_fd=top)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _told(top: Path, path: bytes) -> Iterator[None]:
    """Say which path it was; what cannot be read is an error, for a list that lacks it would look complete."""
    try:
        yield
    except OSError as error:
        shown = str(top) + ("/" + path.decode("utf-8", "backslashreplace") if path else "")
        reason = error.strerror or str(error)
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise PermissionDenied(
                f"{shown} cannot be read: {reason}", needed="read everything in the snapshot"
            ) from error
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}:
            if not path:
                raise NotFound(f"There is no directory {shown}: {reason}") from error
            raise Incomplete(f"{shown} vanished while the snapshot was read: {reason}") from error
        if error.errno == errno.ENAMETOOLONG:
            raise Unsupported(f"{shown} is too long a path to be read") from error
        raise Unavailable(f"{shown} cannot be read: {reason}") from error


class _Spilled:
    """The entries of one large directory, in sorted runs in a file without a name.

    They are read whenever the one who compares comes to them, so the file is open for as long as anybody has this
    object. `marshal` is safe here, for nobody else can write to the file; and unlike msgpack it has a place for any
    time that a file may have, also beyond 64 bits.
    """

    def __init__(self, scratch: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed with this object
        self._runs: list[list[tuple[int, int]]] = []
        self._end = 0

    def __del__(self) -> None:
        self._file.close()

    def add(self, nodes: list[Node]) -> None:
        nodes.sort()
        pieces = []
        for begin in range(0, len(nodes), _PIECE):
            data = marshal.dumps([tuple(node) for node in nodes[begin : begin + _PIECE]])
            self._file.write(data)
            pieces.append((self._end, len(data)))
            self._end += len(data)
        self._file.flush()
        self._runs.append(pieces)

    def __iter__(self) -> Iterator[Node]:
        return heapq.merge(*map(self._read, self._runs))

    def _read(self, pieces: list[tuple[int, int]]) -> Iterator[Node]:
        for offset, length in pieces:
            yield from map(Node._make, marshal.loads(os.pread(self._file.fileno(), length, offset)))  # noqa: S302 - ours


# -- statx: Python has no birth time before 3.15 -----------------------------------------------------------------------
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
_FLAGS = 0x100 | 0x4000 | 0x1000  # not through a link; what the kernel knows will do; also of the top ("")
_BIRTH = 0x800


def _born(top: int, path: bytes) -> int | None:
    if _statx is None:
        return None
    buffer = ctypes.create_string_buffer(256)
    if _statx(top, path, _FLAGS, _BIRTH, buffer) != 0 or not struct.unpack_from("=I", buffer)[0] & _BIRTH:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)
    return int(seconds * 1_000_000_000 + nanoseconds)
