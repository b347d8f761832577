"""Random trees and mutations, recordings that keep the inodes, and what really changed between two of them."""

from __future__ import annotations

import os
import random
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from snapkeep.changes.trees import Node, Nodes, Tree, join
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.plugins.nutanix_files import mapping
from snapkeep.simulators.kit.changes import Entry
from snapkeep.simulators.kit.volumes import Volume

NAMES = [b"a", b"b", b"c", b"d.txt", b"e f", b"\xff\xfe", b"new\nline", b"a-b", b"a.b", b"caf\xc3\xa9"]


class Mutator:
    """Does to a directory what users do."""

    def __init__(self, top: Path, seed: int) -> None:
        self._top = os.fsencode(top)
        self._random = random.Random(seed)

    def mutate(self, count: int) -> None:
        """Do so many things; those that cannot be done are passed over."""
        actions = [
            self.create, self.create, self.folder, self.folder, self.modify, self.modify, self.touch, self.chmod,
            self.remove, self.move, self.move, self.move_folder, self.move_folder, self.link, self.link, self.symlink,
            self.replace, self.swap, self.fifo, self.remove_folder, self.save,
        ]  # fmt: skip
        for _ in range(count):
            with suppress(OSError):
                self._random.choice(actions)()

    def _all(self, *, folders: bool) -> list[bytes]:
        found = []
        for where, directories, files in os.walk(self._top):
            found += [where + b"/" + name for name in (directories if folders else files)]
            if folders:
                found = [path for path in found if not Path(os.fsdecode(path)).is_symlink()]
        return sorted(found)

    def _one(self, *, folders: bool = False) -> bytes:
        found = self._all(folders=folders)
        if not found:
            raise FileNotFoundError
        return self._random.choice(found)

    def _place(self) -> bytes:
        return self._random.choice([self._top, *self._all(folders=True)]) + b"/" + self._random.choice(NAMES)

    def create(self) -> None:
        with open(self._place(), "xb") as file:  # noqa: PTH123
            file.write(self._random.randbytes(self._random.randrange(20)))

    def folder(self) -> None:
        os.mkdir(self._place())  # noqa: PTH102

    def modify(self) -> None:
        with open(self._regular(), "ab") as file:  # noqa: PTH123
            file.write(b"more")

    def _regular(self) -> bytes:
        path = self._one()
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise FileNotFoundError
        return path

    def touch(self) -> None:
        os.utime(self._regular(), ns=(5, self._random.randrange(10**18)))

    def chmod(self) -> None:
        path = self._regular() if self._random.random() < 0.5 else self._one(folders=True)
        os.chmod(path, self._random.choice((0o700, 0o755)))  # noqa: PTH101

    def remove(self) -> None:
        os.unlink(self._one())  # noqa: PTH108

    def remove_folder(self) -> None:
        top = self._one(folders=True)
        for where, directories, files in os.walk(top, topdown=False):
            for name in files:
                os.unlink(where + b"/" + name)  # noqa: PTH108
            for name in directories:
                path = where + b"/" + name
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)  # noqa: PTH106, PTH108, PTH114
        os.rmdir(top)  # noqa: PTH106

    def move(self) -> None:
        os.rename(self._one(), self._place())  # noqa: PTH104

    def move_folder(self) -> None:
        os.rename(self._one(folders=True), self._place())  # noqa: PTH104

    def link(self) -> None:
        os.link(self._one(), self._place(), follow_symlinks=False)

    def symlink(self) -> None:
        os.symlink(self._random.choice((b"x", b"yy", b"..")), self._place())  # noqa: PTH211

    def fifo(self) -> None:
        os.mkfifo(self._place())

    def replace(self) -> None:
        """Another object under the same name, quite likely with the same inode number."""
        path = self._one()
        os.unlink(path)  # noqa: PTH108
        if self._random.random() < 0.5:
            os.mkdir(path)  # noqa: PTH102
        else:
            with open(path, "xb") as file:  # noqa: PTH123
                file.write(b"other")

    def save(self) -> None:
        """As editors do: a new file takes the name."""
        path = self._regular()
        with open(path + b"~", "xb") as file:  # noqa: PTH123
            file.write(self._random.randbytes(7))
        os.rename(path + b"~", path)  # noqa: PTH104

    def swap(self) -> None:
        folders = self._random.random() < 0.5
        one, two = self._one(folders=folders), self._one(folders=folders)
        spare = self._top + b"/spare"
        if one == two or two.startswith(one + b"/") or one.startswith(two + b"/"):
            return
        os.rename(one, spare)  # noqa: PTH104
        os.rename(two, one)  # noqa: PTH104
        os.rename(spare, two)  # noqa: PTH104


class Recording(Tree):
    """A tree as it is now, with its inodes: what a snapshot on an array shows, which a copy cannot."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self._folders: dict[bytes, list[Node]] = {}
        self._births: dict[bytes, int | None] = {}
        self._node = super().node(b"")
        waiting = [b""]
        for path in waiting:
            self._births[path] = super().born(path)
            self._folders[path] = list(super().read(path)[1])
            for node in self._folders[path]:
                below = join(path, node.name)
                self._births[below] = super().born(below)
                if node.directory:
                    waiting.append(below)
        self.close()

    def read(self, path: bytes) -> tuple[int, Nodes]:
        return len(self._folders[path]), self._folders[path]

    def node(self, path: bytes) -> Node | None:
        if not path:
            return self._node
        parent, _, name = path.rpartition(b"/")
        return next((node for node in self._folders.get(parent, ()) if node.name == name), None)

    def born(self, path: bytes) -> int | None:
        return self._births[path]

    def link(self, path: bytes) -> bytes:
        raise AssertionError("inodes tell enough")

    def forget_births(self) -> None:
        """From now on it is on a file system that does not know when an object was born."""
        self._births = dict.fromkeys(self._births)

    def objects(self) -> Iterator[tuple[bytes, bytes, Node]]:
        """Yield (directory, path, node) of everything."""
        for folder, nodes in self._folders.items():
            for node in nodes:
                yield folder, join(folder, node.name), node


Fact = tuple[str, str, bytes, bytes | None]


def facts(changes: Iterable[Change]) -> set[Fact]:
    """What a list says, without order, sizes and times."""
    found = [(change.operation.value, change.type.value, change.path, change.old_path) for change in changes]
    assert len(set(found)) == len(found), "something is listed twice"
    return set(found)


def by_the_system(volume: Volume, base: str, new: str) -> Iterator[Change]:
    """The simulator's own diff, through the words of the plug-in."""
    for entry in volume.diff(base, new):
        yield _change(entry)


def _change(entry: Entry) -> Change:
    return Change(
        mapping.OPERATIONS[entry.operation], mapping.OBJECT_TYPES[entry.type], entry.path, entry.old_path,
        entry.size, entry.inode, entry.birth_time, entry.change_time, entry.access_time,
    )  # fmt: skip


Identity = tuple[int, int | None, int]
_KINDS = {
    stat.S_IFREG: ObjectType.FILE, stat.S_IFDIR: ObjectType.DIRECTORY, stat.S_IFLNK: ObjectType.SYMLINK,
    stat.S_IFIFO: ObjectType.FIFO,
}  # fmt: skip


class Truth:
    """What differs between two recordings, by brute force from all inodes."""

    def __init__(self, base: Recording, new: Recording) -> None:
        self._sides = base, new
        self._names = [self._by_object(side) for side in self._sides]

    def _identity(self, side: Recording, path: bytes) -> Identity:
        if not path:
            return (0, 0, 0)
        node = side.node(path)
        assert node is not None
        return node.inode, side.born(path), stat.S_IFMT(node.mode)

    def _by_object(self, side: Recording) -> dict[Identity, dict[tuple[Identity, bytes], tuple[bytes, Node]]]:
        found: dict[Identity, dict[tuple[Identity, bytes], tuple[bytes, Node]]] = defaultdict(dict)
        for folder, path, node in side.objects():
            found[self._identity(side, path)][self._identity(side, folder), node.name] = path, node
        return found

    def facts(self) -> set[Fact]:
        found: set[Fact] = set()
        before, after = self._names
        for identity in before.keys() | after.keys():
            olds, nows = before.get(identity, {}), after.get(identity, {})
            several = identity[2] != stat.S_IFDIR and (len(olds) > 1 or len(nows) > 1)
            lives = bool(olds) and bool(nows)
            linked = ObjectType.HARD_LINK.value
            own = [
                linked if len(names) > 1 and identity[2] != stat.S_IFDIR else _KINDS[identity[2]].value
                for names in (olds, nows)
            ]
            if not lives or several:
                for place, (path, _) in olds.items():
                    if place not in nows:
                        found.add(("delete", linked if lives else own[0], path, None))
                for place, (path, _) in nows.items():
                    if place not in olds:
                        found.add(("add", linked if lives else own[1], path, None))
            if not lives:
                continue
            moved = olds.keys() != nows.keys()
            if not several and moved:
                found.add(("rename", own[1], next(iter(nows.values()))[0], next(iter(olds.values()))[0]))
            kept = sorted(nows[place][0] for place in nows if place in olds or not several)
            old, now = next(iter(olds.values()))[1], next(iter(nows.values()))[1]
            content = ("size", "mtime") if not now.directory else ()
            attributes = ("mode", "uid", "gid", "mtime", *(() if moved else ("ctime",)))
            if kept and any(getattr(old, field) != getattr(now, field) for field in content):
                found.add(("modify", own[1], kept[0], None))
            elif kept and any(getattr(old, field) != getattr(now, field) for field in attributes):
                found.add(("metadata", own[1], kept[0], None))
        return found


def operations(changes: Iterable[Change]) -> set[ChangeOperation]:
    return {change.operation for change in changes}
