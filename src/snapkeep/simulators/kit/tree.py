"""Directory trees: read, copied and removed through directory descriptors, every name as bytes.

No function here builds a long path: a directory is opened in steps from the top of its tree, and all else happens
inside it by its plain name. A tree may hence be deeper than one system call can name (`PATH_MAX`), and it may hold
any name that the kernel takes. A tree is taken to be one file system.

*Tree order* is the order of every walk and of every list made from one: a directory comes before what it holds,
and the names in one directory follow each other by their bytes.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # not to hang where a FIFO has just taken the file's place
_STEP = 4_000  # bytes of path for one call; the kernel's limit is 4,095
_FICLONE = 0x40049409
_CHUNK = 1 << 20
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE: the clock from which file systems take their stamps
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _RENAME_EXCHANGE = -100, 0x100, 2
_STATX_BASIC, _STATX_BIRTH = 0x7FF, 0x800
_STATX = struct.Struct("=I12xIIIH2xQQQ8x" + "qI4x" * 4 + "II")
_SECOND = 1_000_000_000

_libc = ctypes.CDLL(None, use_errno=True)
_statx = getattr(_libc, "statx", None)
_renameat2 = getattr(_libc, "renameat2", None)


class Stat(NamedTuple):
    """What the kernel tells about one object; times are ns, `birth_time` is 0 where it is not known."""

    mode: int
    nlink: int
    uid: int
    gid: int
    inode: int
    size: int
    blocks: int
    device: int
    birth_time: int
    change_time: int
    access_time: int
    modify_time: int


class Node(NamedTuple):
    """One object met on a walk: `path` starts below the tree's top; a digest of nothing is empty."""

    path: bytes
    stat: Stat
    target: bytes  # of a symbolic link's text
    attributes: bytes  # of all extended attributes, ACLs among them


def stat_at(directory: int, name: bytes) -> Stat:
    """`name` in `directory`, itself and not what it points to. FileNotFoundError when it is absent."""
    if _statx is not None:
        buffer = ctypes.create_string_buffer(256)
        if _statx(directory, name, _AT_SYMLINK_NOFOLLOW, _STATX_BASIC | _STATX_BIRTH, buffer) == 0:
            return _from_statx(buffer.raw)
        if (number := ctypes.get_errno()) == errno.ENOENT:
            raise FileNotFoundError(number, os.strerror(number), name)
    s = os.stat(name, dir_fd=directory, follow_symlinks=False)
    times = (0, s.st_ctime_ns, s.st_atime_ns, s.st_mtime_ns)
    return Stat(s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_ino, s.st_size, s.st_blocks, s.st_rdev, *times)


def _from_statx(raw: bytes) -> Stat:
    mask, nlink, uid, gid, mode, inode, size, blocks, *rest = _STATX.unpack_from(raw)
    access, birth, change, modify = (rest[i] * _SECOND + rest[i + 1] for i in range(0, 8, 2))
    birth = birth if mask & _STATX_BIRTH else 0
    device = os.makedev(rest[8], rest[9])
    return Stat(mode, nlink, uid, gid, inode, size, blocks, device, birth, change, access, modify)


def order(path: bytes) -> bytes:
    """The sort key that puts paths into tree order."""
    return path.replace(b"/", b"\0")


@contextmanager
def opened(top: int, path: bytes) -> Iterator[int]:
    """A descriptor of the directory `path` (empty: the top itself) below the directory descriptor `top`."""
    here = os.dup(top)
    try:
        while path:
            cut = len(path) if len(path) <= _STEP else path.rindex(b"/", 0, _STEP)
            below = _open(path[:cut], _DIRECTORY, here)
            os.close(here)
            here, path = below, path[cut + 1 :]
        yield here
    finally:
        os.close(here)


@contextmanager
def opened_top(path: Path) -> Iterator[int]:
    """A descriptor of the directory at an ordinary path."""
    descriptor = _open(os.fsencode(path), _DIRECTORY, None)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: bytes, flags: int, directory: int | None) -> int:
    """Open for reading, leaving the access time alone where that is allowed (it is for the owner and for root)."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        return os.open(name, flags, dir_fd=directory)


def scan(top: Path) -> Iterator[Node]:
    """Every object below `top` in tree order; one that vanishes meanwhile is left out."""
    with opened_top(top) as source:
        yield from _walk(source, None)


def copy(top: Path, target: Path, *, reflink: bool) -> Iterator[Node]:
    """Copy all below `top` into the empty directory `target`; yields each object in tree order as it is done.

    Each node is read before its content is copied: what changes during the copy is newer than its node, so that a
    later comparison finds it. Kept: content with its holes, mode, access and modify time, links of both kinds;
    owner, extended attributes and devices as far as the process is allowed. PermissionError when something cannot
    be read.
    """
    with opened_top(top) as source, opened_top(target) as destination:
        yield from _walk(source, _Copier(destination, reflink=reflink))


def _walk(source: int, copier: "_Copier | None") -> Iterator[Node]:
    waiting = [_node(source, b"", b".")]
    while waiting:
        node = waiting.pop()
        if node.path:
            yield node
        if stat.S_ISDIR(node.stat.mode):
            with _unless_gone(), opened(source, node.path) as directory:
                inside = _inside(directory, node.path)
                waiting.extend(reversed(inside if copier is None else copier.fill(node, directory, inside)))


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Users go on while a tree is read: what has gone, or is now of another type, is passed over."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


def _inside(directory: int, path: bytes) -> list[Node]:
    prefix = path + b"/" if path else b""
    nodes = []
    for name in _names(directory):
        with _unless_gone():
            nodes.append(_node(directory, prefix + name, name))
    return nodes


def _node(directory: int, path: bytes, name: bytes) -> Node:
    found = stat_at(directory, name)
    target = _digest(os.readlink(name, dir_fd=directory)) if stat.S_ISLNK(found.mode) else b""
    held = _attributes(directory, name)
    packed = b"".join(b"%d:%s%d:%s" % (len(k), k, len(v), v) for k, v in sorted(held.items()))
    return Node(path, found, target, _digest(packed) if held else b"")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _handle(directory: int, name: bytes) -> bytes:
    """A short path for those calls that take no directory descriptor."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def _attributes(directory: int, name: bytes) -> dict[bytes, bytes]:
    path, held = _handle(directory, name), {}
    with suppress(OSError):  # none on this file system, or not for us
        for key in os.listxattr(path, follow_symlinks=False):
            held[os.fsencode(key)] = os.getxattr(path, key, follow_symlinks=False)
    return held


class _Copier:
    """Makes in one tree what a walk meets in another, a directory at a time."""

    def __init__(self, top: int, *, reflink: bool) -> None:
        self._top = top
        self._reflink = reflink
        self._first: dict[int, bytes] = {}  # inode of a multiply linked object -> where its first copy is

    def fill(self, node: Node, source: int, inside: list[Node]) -> list[Node]:
        """Make the objects of one directory (its own directories still empty), then give it its metadata.

        Nothing later changes the directory itself, so its times stay. Returns those objects that were still there.
        """
        made = []
        with opened(self._top, node.path) as destination:
            for child in inside:
                name = child.path.rpartition(b"/")[2]
                with _unless_gone():
                    self._make(child, name, source, destination)
                    made.append(child)
            _dress(node, b".", source, destination)
        return made

    def _make(self, node: Node, name: bytes, source: int, destination: int) -> None:
        found, kind = node.stat, stat.S_IFMT(node.stat.mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=destination)
            return  # it gets its metadata when it has been filled
        if found.nlink > 1 and found.inode in self._first:
            self._link(self._first[found.inode], name, destination)
            return
        if kind == stat.S_IFREG:
            self._copy_file(name, source, destination)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        else:
            try:
                os.mknod(name, kind | 0o600, found.device, dir_fd=destination)
            except PermissionError:
                return  # a device, and we are not root
        _dress(node, name, source, destination)
        if found.nlink > 1:
            self._first[found.inode] = node.path

    def _link(self, first: bytes, name: bytes, destination: int) -> None:
        parent, _, known = first.rpartition(b"/")
        with opened(self._top, parent) as directory:
            os.link(known, name, src_dir_fd=directory, dst_dir_fd=destination, follow_symlinks=False)

    def _copy_file(self, name: bytes, source: int, destination: int) -> None:
        reader = _open(name, _FILE, source)
        try:
            if not stat.S_ISREG(os.fstat(reader).st_mode):
                raise FileNotFoundError(errno.ENOENT, "replaced by something else", name)
            writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=destination)
            try:
                if not (self._reflink and clone_file(reader, writer)):
                    _copy_content(reader, writer)
            finally:
                os.close(writer)
        finally:
            os.close(reader)


def _dress(node: Node, name: bytes, source: int, destination: int) -> None:
    """Give a finished copy its owner, attributes, times and mode; the mode last, it may lock us out."""
    found = node.stat
    with suppress(PermissionError):
        os.chown(name, found.uid, found.gid, dir_fd=destination, follow_symlinks=False)
    for key, value in _attributes(source, name).items() if node.attributes else ():
        with suppress(OSError):
            os.setxattr(_handle(destination, name), key, value, follow_symlinks=False)
    times = (found.access_time, found.modify_time)
    os.utime(name, ns=times, dir_fd=destination, follow_symlinks=False)
    if not stat.S_ISLNK(found.mode):
        os.chmod(name, stat.S_IMODE(found.mode), dir_fd=destination)


def clone_file(reader: int, writer: int) -> bool:
    """Let the empty file `writer` share the blocks of `reader`; False where the file system cannot."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:
        return False
    return True


def _copy_content(reader: int, writer: int) -> None:
    found = os.fstat(reader)
    size, offset = found.st_size, 0
    os.ftruncate(writer, size)
    sparse = found.st_blocks * 512 < size
    while offset < size:
        end = size
        if sparse:
            try:
                offset = os.lseek(reader, offset, os.SEEK_DATA)
            except OSError:
                return  # a hole to the end
            end = os.lseek(reader, offset, os.SEEK_HOLE)
        while offset < end:
            done = _copy_range(reader, writer, offset, end - offset)
            if not done:
                return  # cut short by somebody meanwhile
            offset += done


def _copy_range(reader: int, writer: int, offset: int, count: int) -> int:
    try:
        return os.copy_file_range(reader, writer, count, offset, offset)
    except OSError:
        return os.pwrite(writer, os.pread(reader, min(count, _CHUNK), offset), offset)


def remove(path: Path) -> None:
    """Remove the tree at `path`, whatever its depth and modes; an absent one is no error."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        path.unlink()
        return
    path.chmod(0o700)
    with opened_top(path) as top:
        directories = [b""]
        for directory in directories:  # grows as it goes
            directories.extend(_unlink_all(top, directory))
        for directory in reversed(directories[1:]):
            parent, _, name = directory.rpartition(b"/")
            with opened(top, parent) as above:
                os.rmdir(name, dir_fd=above)
    path.rmdir()


def _unlink_all(top: int, path: bytes) -> list[bytes]:
    """Unlink all but directories in one directory; returns the paths of those, made ours to empty."""
    left = []
    with opened(top, path) as here:
        for name in _names(here):
            if not stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=here)
            else:
                os.chmod(name, 0o700, dir_fd=here)
                left.append(path + b"/" + name if path else name)
    return left


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False, and nothing done, where the system cannot."""
    if _renameat2 is None:
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return bool(_renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def wait_for_tick() -> None:
    """Return when the clock of the file system has moved on (some 10 ms at most).

    A stamp is as coarse as a timer tick. Whatever happens after this call has a stamp that differs from all those
    given before it, so a change cannot hide and a reused inode number cannot have the old one's birth time.
    """
    start = time.clock_gettime_ns(_COARSE_CLOCK)
    while time.clock_gettime_ns(_COARSE_CLOCK) == start:
        time.sleep(0.0005)
