# ruff: noqa: PTH101, PTH102, PTH104, PTH105, PTH108, PTH114, PTH116, PTH123, PTH202, PTH211
"""A directory tree that users, some of them hostile, change at random; and the list of what they changed.

Paths are bytes here, which `pathlib` does not know.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.simulators.kit import changes, tree

NAMES = [
    b"plain", b"with space", b'quo"te', b"back\\slash", b"new\nline", b"\xff\xfe", b"\xe2\x80\xa8", b"<&>", b"-rf",
    b"\x01\x7f", "é".encode(), "\U0001fae8".encode(), "\U0001f9ff".encode(), b"\xed\xa0\x80", b"A" * 200, b"tab\t",
    "\u00ad".encode(), "\ufffd".encode(), b"\\x41", b"%s", b"~", b"0",
]  # fmt: skip

_OPERATIONS = {
    changes.Operation.ADD: ChangeOperation.ADD,
    changes.Operation.MODIFY: ChangeOperation.MODIFY,
    changes.Operation.META_MODIFY: ChangeOperation.METADATA,
    changes.Operation.DELETE: ChangeOperation.DELETE,
    changes.Operation.RENAME: ChangeOperation.RENAME,
}
_TYPES = {
    changes.ObjectType.FILE: ObjectType.FILE,
    changes.ObjectType.DIRECTORY: ObjectType.DIRECTORY,
    changes.ObjectType.LINK: ObjectType.SYMLINK,
    changes.ObjectType.HARD_LINK: ObjectType.HARD_LINK,
    changes.ObjectType.FIFO: ObjectType.FIFO,
    changes.ObjectType.SOCKET: ObjectType.SOCKET,
    changes.ObjectType.BLOCK: ObjectType.BLOCK_DEVICE,
    changes.ObjectType.CHARACTER: ObjectType.CHARACTER_DEVICE,
}


def write_map(top: Path, path: Path) -> None:
    """Record all inodes of a tree; what happens afterwards has other stamps."""
    origins = changes.Origins()
    changes.write_map(path, "snapshot", map(origins.record, tree.scan(top)))
    tree.wait_for_tick()


def list_changes(base: Path, new: Path, *, list_renamed_children: bool = False) -> Iterator[Change]:
    """Return what changed between two maps, as a system would tell it."""
    for entry in changes.differences(base, new, list_renamed_children=list_renamed_children):
        yield Change(
            _OPERATIONS[entry.operation],
            _TYPES[entry.type],
            entry.path,
            entry.old_path,
            entry.size,
            entry.inode,
            entry.birth_time,
            entry.change_time,
            entry.access_time,
        )


class Mutator:
    """Changes the tree at `top`. The same seed makes the same choices."""

    def __init__(self, top: Path, seed: int, *, big: bool = True) -> None:
        self.random = random.Random(seed)
        self.top = os.fsencode(top)
        self.big = big
        self.backdated: set[int] = set()
        """Inodes of files that were written without a trace in size and modify time, in the last `mutate`."""
        self._count = 0
        self._acts: list[tuple[int, Callable[[], None]]] = [
            (18, self.create), (8, self.modify), (3, self.truncate), (4, self.append), (3, self.chmod), (2, self.chown),
            (3, self.xattr), (8, self.rename), (5, self.rename_directory), (8, self.make_directory), (5, self.link),
            (4, self.write_linked), (3, self.unlink_linked), (2, self.symlink), (2, self.fifo), (1, self.socket),
            (6, self.unlink), (1, self.remove_directory), (2, self.file_to_directory), (1, self.directory_to_file),
            (1, self.sparse), (2, self.replace), (2, self.swap), (1, self.backdate), (1, self.device),
            (3, self.nest), (1, self.link_other),
        ]  # fmt: skip

    def mutate(self, count: int) -> None:
        """Do so many things."""
        self.backdated.clear()
        acts, weights = [act for _, act in self._acts], [weight for weight, _ in self._acts]
        for act in self.random.choices(acts, weights, k=count):
            with suppress(FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
                try:
                    act()
                except OSError as error:
                    if error.errno not in {16, 22, 36, 39, 40}:  # busy, invalid, too long, not empty, too many links
                        raise

    # What there is

    def objects(self) -> list[tuple[bytes, os.stat_result]]:
        found = []
        for directory, directories, files in os.walk(self.top):
            for name in sorted(directories + files):
                path = directory + b"/" + name
                found.append((path, os.lstat(path)))
        return sorted(found)

    def pick(self, kind: int | None = None, *, linked: bool = False) -> bytes:
        found = [
            path
            for path, s in self.objects()
            if (kind is None or stat.S_IFMT(s.st_mode) == kind) and (not linked or s.st_nlink > 1)
        ]
        if not found:
            raise FileNotFoundError
        return self.random.choice(found)

    def directory(self) -> bytes:
        found = [path for path, s in self.objects() if stat.S_ISDIR(s.st_mode)]
        return self.random.choice([self.top, *found])

    def fresh(self) -> bytes:
        name = self.random.choice(NAMES)
        if self.random.random() < 0.7:
            self._count += 1
            name += b"%d" % self._count
        return self.directory() + b"/" + name

    def data(self) -> bytes:
        kind = self.random.random()
        if self.big and kind < 0.03:
            return self.random.randbytes(self.random.randrange(600_000, 20_000_000))
        if kind < 0.15:
            return b""
        return self.random.randbytes(self.random.randrange(1, 3000)) + b"x" * self.random.randrange(2000)

    # What users do

    def create(self) -> None:
        with open(self.fresh(), "xb") as file:
            file.write(self.data())

    def modify(self) -> None:
        path = self.pick(stat.S_IFREG)
        with open(path, "r+b") as file:
            file.seek(self.random.randrange(os.path.getsize(path) + 1))
            file.write(self.data())

    def truncate(self) -> None:
        path = self.pick(stat.S_IFREG)
        os.truncate(path, self.random.randrange(os.path.getsize(path) + 1))

    def append(self) -> None:
        with open(self.pick(stat.S_IFREG), "ab") as file:
            file.write(self.data())

    def chmod(self) -> None:
        path = self.pick()
        if not os.path.islink(path):
            os.chmod(path, self.random.choice([0o600, 0o755, 0o4711, 0o2750, 0o1777, 0o777]) | 0o700)

    def chown(self) -> None:
        if os.geteuid() == 0:
            os.chown(
                self.pick(), self.random.choice([0, 1, 54321]), self.random.choice([0, 12345]), follow_symlinks=False
            )

    def xattr(self) -> None:
        path = self.pick(self.random.choice([stat.S_IFREG, stat.S_IFDIR]))
        name = self.random.choice([b"user.one", b"user.two", "user.<é>".encode()])
        if self.random.random() < 0.7:
            os.setxattr(path, name, self.random.randbytes(self.random.randrange(0, 50)))
        else:
            for known in os.listxattr(path):
                if known.startswith("user."):
                    os.removexattr(path, known)

    def rename(self) -> None:
        os.rename(self.pick(self.random.choice([stat.S_IFREG, None])), self.fresh())

    def rename_directory(self) -> None:
        os.rename(self.pick(stat.S_IFDIR), self.fresh())

    def make_directory(self) -> None:
        path = self.fresh()
        os.mkdir(path)
        for number in range(self.random.randrange(4)):
            with open(path + b"/f%d" % number, "wb") as file:
                file.write(self.data())

    def nest(self) -> None:
        path = self.fresh()
        for _ in range(self.random.randrange(1, 8)):
            os.mkdir(path)
            path += b"/" + self.random.choice(NAMES)
        with open(path, "wb") as file:
            file.write(self.data())

    def link(self) -> None:
        os.link(self.pick(stat.S_IFREG), self.fresh())

    def link_other(self) -> None:
        os.link(self.pick(self.random.choice([stat.S_IFIFO, stat.S_IFLNK])), self.fresh(), follow_symlinks=False)

    def write_linked(self) -> None:
        with open(self.pick(stat.S_IFREG, linked=True), "r+b") as file:
            file.write(self.data())

    def unlink_linked(self) -> None:
        os.unlink(self.pick(stat.S_IFREG, linked=True))

    def symlink(self) -> None:
        os.symlink(self.random.choice([b"plain", b"../..", b"/etc/passwd", b"\xff<&>", b"nowhere"]), self.fresh())

    def fifo(self) -> None:
        os.mkfifo(self.fresh())

    def socket(self) -> None:
        os.mknod(self.fresh(), stat.S_IFSOCK | 0o600)

    def device(self) -> None:
        os.mknod(self.fresh(), self.random.choice([stat.S_IFCHR, stat.S_IFBLK]) | 0o600, os.makedev(1, 3))

    def unlink(self) -> None:
        os.unlink(self.pick())

    def remove_directory(self) -> None:
        tree.remove(Path(os.fsdecode(self.pick(stat.S_IFDIR))))

    def file_to_directory(self) -> None:
        path = self.pick(stat.S_IFREG)
        os.unlink(path)
        os.mkdir(path)
        with open(path + b"/inside", "wb") as file:
            file.write(self.data())

    def directory_to_file(self) -> None:
        path = self.pick(stat.S_IFDIR)
        tree.remove(Path(os.fsdecode(path)))
        with open(path, "wb") as file:
            file.write(self.data())

    def sparse(self) -> None:
        with open(self.fresh(), "xb") as file:
            file.truncate(self.random.randrange(3_000_000))
            file.seek(self.random.randrange(1_000_000))
            file.write(b"island")

    def replace(self) -> None:
        """As an editor saves: the name goes to another file, here perhaps one of several names."""
        os.replace(self.pick(stat.S_IFREG), self.pick(stat.S_IFREG))

    def swap(self) -> None:
        kind = self.random.choice([stat.S_IFDIR, stat.S_IFREG])
        tree.exchange(Path(os.fsdecode(self.pick(kind))), Path(os.fsdecode(self.pick(kind))))

    def backdate(self) -> None:
        """Write, and set the modify time back."""
        path = self.pick(stat.S_IFREG)
        before = os.stat(path)
        with open(path, "r+b") as file:
            file.write(self.random.randbytes(min(before.st_size, 100)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.backdated.add(before.st_ino)
