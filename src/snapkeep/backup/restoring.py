"""Writing restored files: what one worker does, in a thread of this process or in a process of its own.

A lot is some files of a few directories, all of which are there. Nothing is ever opened through a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple, Protocol

from snapkeep.backup.metadata import unix_mode
from snapkeep.backup.nodes import Node, read_node, read_time
from snapkeep.backup.reading import opened
from snapkeep.model.errors import Damaged, LimitExceeded, Unavailable
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {"fifo": stat.S_IFIFO, "dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}
_BLOCK = 64 << 10
_TELL = 16 << 20  # bytes of a file after which they are told
_ZEROS = bytes(_BLOCK)
_CHILD = (
    "import sys; from snapkeep.backup.heap import share_arenas; share_arenas(); "
    "from multiprocessing.connection import Connection; from snapkeep.backup.restoring import serve; "
    "serve(Connection(int(sys.argv[1])))"
)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_ACLS = {"system.posix_acl_access", "system.posix_acl_default"}


class Item(NamedTuple):
    """One object that is no directory."""

    directory: int
    """Which one of the lot's."""
    name: bytes
    text: bytes
    """Its node."""


class Lot(NamedTuple):
    """What a worker is given at once."""

    directories: list[bytes]
    items: list[Item]


class Options(NamedTuple):
    """How everything is restored."""

    overwrite: bool
    owners: bool


@dataclass(slots=True)
class Outcome:
    """What became of a lot."""

    files: int = 0
    others: int = 0
    size: int = 0
    """Bytes of files that were not told before."""
    problems: list[tuple[int, str, bool]] = field(default_factory=list)
    """Number of the item, what is wrong, whether it is not there at all."""


Told = Callable[[int], None]


class _Unwanted(Exception):
    """Ends a thread in the middle of a file."""


class Worker(Protocol):
    """Does one lot after the other."""

    def run(self, lot: Lot, told: Told) -> Outcome:
        """Do a lot; `told` is given the bytes of big files while they are written.

        Raises only what ends the whole: Unavailable, LimitExceeded.
        """

    def close(self) -> None:
        """End, also in the middle of a file."""


class Writer:
    """Restores lots below an open directory. Thread-safe."""

    def __init__(self, repository: Repository, top: int, options: Options) -> None:
        self._repository = repository
        self._top = top
        self._options = options
        self._ended = False

    def run(self, lot: Lot, told: Told) -> Outcome:
        """Restore the lot: first what needs no content, then small files as their blobs come, then others."""

        def go_on(written: int) -> None:
            if self._ended:
                raise _Unwanted
            told(written)

        return _Work(self._repository, self._top, self._options, lot, go_on).run()

    def close(self) -> None:
        """End what is being written."""
        self._ended = True


class _Work:
    def __init__(self, repository: Repository, top: int, options: Options, lot: Lot, told: Told) -> None:
        self._repository = repository
        self._top = top
        self._options = options
        self._lot = lot
        self._told_of = told
        self._outcome = Outcome()
        self._open: dict[int, tuple[int, bool]] = {}

    def run(self) -> Outcome:
        small: dict[bytes, list[tuple[int, Node]]] = {}
        large: list[tuple[int, Node]] = []
        with ExitStack() as stack:
            self._stack = stack
            for number, item in enumerate(self._lot.items):
                with self._told(number):
                    node = read_node(item.text)
                    content = node.content or ()
                    if node.type == "file" and len(content) == 1:
                        small.setdefault(bytes.fromhex(content[0]), []).append((number, node))
                    elif node.type == "file" and content:
                        large.append((number, node))
                    else:
                        self._make(number, node, ())
            for id, data in self._blobs(small):
                for number, node in small[id]:
                    with self._told(number):
                        self._make(number, node, (data,))
            for number, node in large:
                with self._told(number):
                    ids = map(bytes.fromhex, node.content or ())
                    self._make(number, node, self._repository.load_in_order(BlobType.DATA, ids))
        return self._outcome

    def _blobs(self, small: dict[bytes, list[tuple[int, Node]]]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the blobs of small files; one that is damaged is a problem of its files."""
        missing = dict.fromkeys(small)
        try:
            for id, data in self._repository.load_many(BlobType.DATA, small):
                del missing[id]
                yield id, data
        except Damaged:
            for id in missing:
                try:
                    data = self._repository.load(BlobType.DATA, id)
                except Damaged as error:
                    for number, _ in small[id]:
                        self._outcome.problems.append((number, str(error), True))
                else:
                    yield id, data

    @contextmanager
    def _told(self, number: int) -> Iterator[None]:
        try:
            yield
        except (OSError, Damaged, ValueError, OverflowError) as error:
            self._outcome.problems.append((number, reason(error), True))

    def _directory(self, number: int) -> tuple[int, bool]:
        """Return the open directory, and whether what is made in it inherits an ACL."""
        found = self._open.get(number)
        if found is None:
            here = self._stack.enter_context(opened(self._top, self._lot.directories[number]))
            found = self._open[number] = here, inherits(here)
        return found

    def _make(self, number: int, node: Node, content: Iterable[bytes]) -> None:
        """Make an object: in its place, where nothing is, or beside it, to take the place as a whole."""
        item = self._lot.items[number]
        here, heir = self._directory(item.directory)
        with placed(here, item.name, overwrite=self._options.overwrite) as name:
            if node.type == "file":
                self._file(here, name, node, content, heir, number)
                self._outcome.files += 1
                return
            if node.type == "symlink":
                target = node.linktarget.encode() if node.linktarget_raw is None else node.linktarget_raw
                os.symlink(target, name, dir_fd=here)
            elif node.type in _SPECIAL:
                os.mknod(name, _SPECIAL[node.type] | 0o600, node.device, dir_fd=here)
            else:
                raise Damaged(f"an object of the kind {node.type!r} is not restored")
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            try:
                self._dress(f"/proc/self/fd/{handle}", node, heir, number)
            finally:
                os.close(handle)
            os.utime(name, ns=times(node), dir_fd=here, follow_symlinks=False)
            self._outcome.others += 1

    def _file(self, here: int, name: bytes, node: Node, content: Iterable[bytes], heir: bool, number: int) -> None:
        file = os.open(name, _NEW, 0o600, dir_fd=here)
        try:
            size = told = 0
            hole = False
            for piece in content:
                hole = _write(file, piece, size)
                size += len(piece)
                if size - told >= _TELL:
                    self._told_of(size - told)
                    told = size
            self._outcome.size += size - told
            if hole:
                os.ftruncate(file, size)
            if size != node.size:
                raise Damaged(f"its content is {size} bytes, not {node.size} as its node says")
            self._dress(file, node, heir, number)
            os.utime(file, ns=times(node))
        finally:
            os.close(file)

    def _dress(self, where: int | str, node: Node, heir: bool, number: int) -> None:
        for problem in dress(where, node, owners=self._options.owners, heir=heir):
            self._outcome.problems.append((number, problem, False))


@contextmanager
def placed(here: int, name: bytes, *, overwrite: bool) -> Iterator[bytes]:
    """Give the name by which an object is to be made; afterwards it has its own, or after an error is not there.

    With `overwrite` it is made beside its place and takes it at once. The name that it has meanwhile is always the
    same for an object: what a crash leaves is found by the next one.
    """
    if not overwrite:
        try:
            yield name
        except FileExistsError:
            raise
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=here)
            raise
        return
    new = b".snapkeep-" + sha256(name).hexdigest()[:24].encode()
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=here)
    try:
        yield new
        os.rename(new, name, src_dir_fd=here, dst_dir_fd=here)
    finally:
        with suppress(FileNotFoundError):  # also when both are names of one object: then a rename does nothing
            os.unlink(new, dir_fd=here)


def dress(where: int | str, node: Node, *, owners: bool, heir: bool) -> Iterator[str]:
    """Give an open object its owner, attributes and mode; yield what of it did not succeed. Raises OSError.

    The owner first, since a change of it takes away set-id bits and capabilities. `heir`: it may have inherited an ACL.
    """
    if owners:
        os.chown(where, node.uid, node.gid)
    attributes = node.extended_attributes or ()
    if heir:
        told = {attribute.name for attribute in attributes}
        for name in _ACLS.intersection(os.listxattr(where)) - told:
            os.removexattr(where, name)
    for attribute in attributes:
        try:
            os.setxattr(where, attribute.name, attribute.value or b"")
        except OSError as error:
            yield f"its attribute {attribute.name} cannot be set: {error.strerror}"
    if node.type != "symlink":
        os.chmod(where, unix_mode(node.mode))  # noqa: PTH101 - a descriptor, or a path through one


def inherits(directory: int) -> bool:
    """Say whether what is made in an open directory inherits an ACL."""
    with suppress(OSError):
        return "system.posix_acl_default" in os.listxattr(directory)
    return False


def reason(error: Exception) -> str:
    """Return what was wrong with one object. Raises LimitExceeded when there is no room: then no other will do."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in _FULL:
        raise LimitExceeded(
            f"There is no room in the target: {error.strerror}", next_step="Make room, then restore again."
        ) from error
    return error.strerror or str(error)


def times(node: Node) -> tuple[int, int]:
    """Return what `os.utime` takes. Raises Damaged."""
    time = read_time(node.mtime)
    return time, time


def _write(file: int, data: bytes, offset: int) -> bool:
    """Write at an offset, but leave out what is only zeros; return whether that is so at its end."""
    start = 0
    hole = False
    for at in range(0, len(data), _BLOCK):
        hole = not data[at] and data[at : at + _BLOCK] == _ZEROS[: len(data) - at]
        if hole:
            _write_all(file, data[start:at], offset + start)
            start = at + _BLOCK
    if start < len(data):
        _write_all(file, data[start:] if start else data, offset + start)
    return hole


def _write_all(file: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:] if done else data, offset + done)


class _Job(NamedTuple):
    """What a process needs to know."""

    repository: Path
    key: Key
    cache: Path
    target: int
    options: Options


class Child:
    """A worker in a process of its own. Used by one thread at a time.

    It is a plain `python -c` with one end of a socket and the open target, and knows nothing else of who started it.
    """

    def __init__(self, backend: LocalBackend, key: Key, cache: Path, top: int, options: Options) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-c", _CHILD, str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603
                command, pass_fds=[theirs.fileno(), top], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._connection.send(_Job(Path(backend.location).absolute(), key, cache, top, options))

    def run(self, lot: Lot, told: Told) -> Outcome:
        """Let it do the lot."""
        try:
            self._connection.send(lot)
            while isinstance(found := self._connection.recv(), int):
                told(found)
        except (EOFError, OSError) as error:
            raise Unavailable(
                "A process that restores ended before its work",
                next_step="Look for the reason in the system's log (memory?); then restore again.",
            ) from error
        if isinstance(found, BaseException):
            raise found
        if not isinstance(found, Outcome):
            raise Unavailable(
                f"A process that restores answered with a {type(found).__name__}",
                next_step="Restore again; if it stays so, report it as a mistake in the program.",
            )
        return found

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


def workers(repository: Repository, top: int, options: Options, count: int) -> list[Worker]:
    """Return so many workers.

    Python's lock holds threads back where the storage is quick, so a local repository gets a process for each core.
    """
    backend = repository.backend
    cores = len(os.sched_getaffinity(0))
    if not isinstance(backend, LocalBackend) or min(count, cores) < 2:
        return [Writer(repository, top, options) for _ in range(count)]
    return [Child(backend, repository.key, repository.cache, top, options) for _ in range(min(count, cores))]


def serve(connection: Connection) -> None:
    """Be the other end of a `Child`."""
    job: _Job = connection.recv()
    writer: Writer | None = None
    with suppress(EOFError, OSError):
        while True:
            lot = connection.recv()
            try:
                if writer is None:
                    repository = Repository.open(LocalBackend(job.repository), "", job.cache, key=job.key)
                    writer = Writer(repository, job.target, job.options)
                answer: Outcome | BaseException = writer.run(lot, connection.send)
            except BaseException as error:  # noqa: BLE001 - whatever it is, who waits at the other end raises it
                answer = error
            connection.send(answer)
    os._exit(0)  # threads of the repository are not waited for
