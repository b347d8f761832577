"""Reading a directory: its objects become nodes, the content of its files sealed blobs.

A reader never leaves the source: directories are opened one step after the other from its top, and nothing is ever
opened through a symbolic link. Whatever cannot be read becomes a *problem* with its name, never an error that ends the
backup and never silence.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from snapkeep.backup.metadata import attributes_text, linked, node_text
from snapkeep.backup.nodes import Known, Tree, read_content, same_time, time_text, tree_text
from snapkeep.repository.blobs import BlobType, SealedBlob, seal_blob
from snapkeep.repository.chunker import MIN_SIZE, Chunker
from snapkeep.repository.crypto import Key

MOST_NAMES = 4096
"""A directory with more names than this is read in parts, by many readers."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO may have taken the file's place
_BUFFER = 1 << 20
_ABSENT = {errno.ENOENT, errno.ENAMETOOLONG}


class Task(NamedTuple):
    """A directory to read, or some names in it."""

    number: int
    directory: bytes
    """Path below the source; empty: the source itself."""
    names: list[bytes] | None = None
    """None: whatever the directory holds, and its tree is wanted, too."""
    reread: bool = False
    """Read all content, whatever the parent has."""
    list_only: bool = False
    """Only the names of what the directory holds are wanted."""
    base: bytes | Tree | None = None
    """The tree that the directory had in the parent, or its text; files that are as in there are not read."""
    moved: dict[bytes, bytes] = {}
    """The nodes of renamed files as they were in the parent, by present name; a rename changes the change time."""


@dataclass(slots=True)
class Counts:
    """What was met, and what it cost."""

    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    others: int = 0
    sockets: int = 0
    size: int = 0
    """Bytes of all files."""
    bytes_read: int = 0

    @property
    def files(self) -> int:
        """All of them."""
        return self.files_new + self.files_changed + self.files_unmodified

    def add(self, other: Counts) -> None:
        """Take in another's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Directory(NamedTuple):
    """A directory that was met, but not entered."""

    name: bytes
    text: str
    """Its node up to `content`."""
    inode: int
    base: bytes | None
    """The id of the tree that the directory of this name had in the parent."""
    base_inode: int


@dataclass(slots=True)
class Done:
    """What became of a task. A name that is in none of the lists is not there."""

    nodes: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Of everything but directories: name and text, in the order of the names."""
    directories: list[Directory] = field(default_factory=list)
    links: list[tuple[bytes, int, int]] = field(default_factory=list)
    """Of what may have other names: name, inode, count of names."""
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    """Names that could not be read, or not wholly, and why; an empty name is the directory itself."""
    reused: list[bytes] = field(default_factory=list)
    """Ids of blobs that are taken over from the parent without having been read."""
    counts: Counts = field(default_factory=Counts)
    listed: list[bytes] | None = None
    """All names of the directory, if they were asked for or are more than `MOST_NAMES`; nothing else was done."""
    tree: bytes | None = None
    """The id of its tree, when the directory holds no other one."""
    failed: bool = False
    """The directory itself could not be read."""


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; either may be empty."""
    return directory + b"/" + name if directory and name else directory or name


@contextmanager
def opened(top: int, path: bytes) -> Iterator[int]:
    """Open a directory below `top`, never through a symbolic link. Raises OSError."""
    here = os.dup(top)
    try:
        for name in path.split(b"/") if path else ():
            if name in {b"", b".", b".."}:
                raise FileNotFoundError(2, "not a path below the source", path)
            below = os.open(name, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


class Reader:
    """Reads directories of one source, one task at a time. Each thread has its own."""

    def __init__(
        self, top: int, *, key: Key, polynomial: int, device_id: int, emit: Callable[[SealedBlob], object]
    ) -> None:
        """`emit` is given each blob; the reader waits for it."""
        self._top = top
        self._key = key
        self._chunker = Chunker(polynomial)
        self._device_id = device_id
        self._emit = emit
        self._buffer = bytearray(_BUFFER)
        self._no_access_time = os.O_NOATIME

    def read(self, task: Task) -> Done:
        """Do a task. Raises only errors of the repository."""
        done = Done()
        try:
            with opened(self._top, task.directory) as directory:
                names = task.names
                if names is None:
                    names = sorted(os.listdir(_handle(directory)))  # noqa: PTH208 - names are bytes
                    if task.list_only or len(names) > MOST_NAMES:
                        done.listed = names
                        return done
                self._names(directory, names, task, done)
        except OSError as error:
            done = Done(failed=True, problems=[(b"", _reason(error))])
        if task.names is None and not done.directories and not done.failed:
            sealed = seal_blob(self._key, BlobType.TREE, tree_text(text for _, text in done.nodes))
            self._emit(sealed)
            done.tree = sealed.id
            done.nodes = []
        return done

    def _names(self, directory: int, names: list[bytes], task: Task, done: Done) -> None:
        base = Tree(task.base) if isinstance(task.base, bytes) else task.base
        for name in names:
            known = None
            trusted = False
            if moved := task.moved.get(name):
                known, trusted = msgspec.json.decode(moved, type=Known), True
            elif base:
                known = base.known(name)
            try:
                self._object(directory, name, known, trusted, task.reread, done)
            except OSError as error:
                if error.errno not in _ABSENT:
                    done.problems.append((name, _reason(error)))
                elif task.names is None:  # it was there a moment ago
                    done.problems.append((name, "it vanished while it was read"))

    def _object(
        self, directory: int, name: bytes, known: Known | None, trusted: bool, reread: bool, done: Done
    ) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFREG:
            if known is not None and not reread and _unchanged(found, known, trusted):
                text = self._unread(directory, name, found, known, done)
            else:
                text, found = self._file(directory, name, done)
                if known is not None and known.type == "file":
                    done.counts.files_changed += 1
                else:
                    done.counts.files_new += 1
        elif kind == stat.S_IFSOCK:
            done.counts.sockets += 1
            return
        else:
            target = os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else b""
            attributes = self._attributes(_handle(directory, name), name, done)
            text = node_text(name, found, device_id=self._device_id, attributes=attributes, target=target)
            if kind == stat.S_IFDIR:
                done.directories.append(Directory(name, text, found.st_ino, *_base_of(known)))
                return
            text += ',"content":null}'
            done.counts.others += 1
        if linked(found):
            done.links.append((name, found.st_ino, found.st_nlink))
        done.nodes.append((name, text.encode()))

    def _unread(self, directory: int, name: bytes, found: os.stat_result, known: Known, done: Done) -> str:
        """Return the node of a file whose content is as in the parent."""
        attributes = self._attributes(_handle(directory, name), name, done)
        text = node_text(name, found, device_id=self._device_id, size=found.st_size, attributes=attributes)
        done.reused += read_content(known.content)
        done.counts.files_unmodified += 1
        done.counts.size += found.st_size
        return f'{text},"content":{bytes(known.content).decode()}}}'

    def _file(self, directory: int, name: bytes, done: Done) -> tuple[str, os.stat_result]:
        file = self._open(name, directory)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it changed its type while it was read")
            attributes = self._attributes(file, name, done)
            ids, size = self._content(file, found.st_size)
            if size != found.st_size or (size > MIN_SIZE and _stamp(os.fstat(file)) != _stamp(found)):
                done.problems.append((name, "it changed while it was read"))
        finally:
            os.close(file)
        done.counts.size += size
        done.counts.bytes_read += size
        text = node_text(name, found, device_id=self._device_id, size=size, attributes=attributes)
        content = '","'.join(map(bytes.hex, ids))
        return (f'{text},"content":["{content}"]}}' if ids else f'{text},"content":[]}}'), found

    def _open(self, name: bytes, directory: int) -> int:
        try:
            return os.open(name, _FILE | self._no_access_time, dir_fd=directory)
        except PermissionError:
            if not self._no_access_time:
                raise
            return os.open(name, _FILE, dir_fd=directory)  # only the owner may leave the access time alone

    def _content(self, file: int, expected: int) -> tuple[list[bytes], int]:
        """Store the content; return the ids of its blobs, and how many bytes there were."""
        if expected <= MIN_SIZE:
            data = os.read(file, expected + 1)
            if len(data) == expected:
                return ([self._store(data)] if data else []), expected
            os.lseek(file, 0, os.SEEK_SET)
        return self._stream(file, expected)

    def _stream(self, file: int, expected: int) -> tuple[list[bytes], int]:
        """Store content of any size; memory: one chunk. A file that grows all the time is not read for ever."""
        ids: list[bytes] = []
        size = 0
        chunk = bytearray()
        with memoryview(self._buffer) as buffer:
            while size <= expected and (count := os.readv(file, [buffer])):
                size += count
                start = 0
                for cut in self._chunker.cuts(buffer[:count]):
                    chunk += buffer[start:cut]
                    ids.append(self._store(bytes(chunk)))
                    chunk.clear()
                    start = cut
                chunk += buffer[start:count]
        self._chunker.cuts(b"", final=True)
        if chunk:
            ids.append(self._store(bytes(chunk)))
        return ids, size

    def _store(self, data: bytes) -> bytes:
        sealed = seal_blob(self._key, BlobType.DATA, data)
        self._emit(sealed)
        return sealed.id

    def _attributes(self, where: int | bytes, name: bytes, done: Done) -> str:
        try:
            return attributes_text(where)
        except OSError as error:
            done.problems.append((name, f"its extended attributes cannot be read: {_reason(error)}"))
            return ""


def _unchanged(found: os.stat_result, known: Known, trusted: bool) -> bool:
    """Say whether a file's content need not be read."""
    return (
        known.type == "file"
        and found.st_size == known.size
        and found.st_ino == known.inode
        and same_time(time_text(found.st_mtime_ns), known.mtime)
        and (trusted or same_time(time_text(found.st_ctime_ns), known.ctime))
    )


def _base_of(known: Known | None) -> tuple[bytes | None, int]:
    if known is None or known.subtree is None:
        return None, 0
    return bytes.fromhex(known.subtree), known.inode


def _handle(directory: int, name: bytes = b".") -> bytes:
    """Return a short path for those calls that take no directory descriptor."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
