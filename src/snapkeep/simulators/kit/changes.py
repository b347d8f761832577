"""Inode maps of snapshots, and what changed between two of them.

A map tells of every path in a snapshot what the live tree held there: kept on disk in tree order (see `tree`), read
as a stream. `differences` compares two maps; its rules are the promise of `Volume.diff`:

* **Identity** is the inode number with its birth time and type, so a reused number is another object. A restore
  gives objects new inodes; `Origins` lets them keep the identity that they had in the snapshot.
* **ADD** an identity that the base lacks; **DELETE** one that the new lacks; **RENAME** one that moved.
  A name that went to another object is DELETE of the old one (with its type) and ADD or RENAME of the new one.
* **MODIFY**: size, modify time or link text differ (for directories: never). **META_MODIFY**: only mode, owner,
  attributes or change time do, or for a directory its modify time. A change time that a rename, or a name added or
  removed, explains does not count. Either follows the RENAME of an object that moved and changed.
* **Renamed directories**: one RENAME; what it carried along is not listed. What left it has its own entry, even
  where its path is the same as before (`old_path == path`: another directory now has the name). With
  `list_renamed_children` each path that changed is a RENAME of its own, and one that did not has none.
* **Hard links**: names of an object with several (not directories) have type HARD_LINK. They are never renamed:
  names come as ADD and go as DELETE, always HARD_LINK while the object lives in both snapshots, even when one
  name is left. Only names that a renamed directory carried along are treated as its other children. A change
  of the object is listed once, at the first in byte order of the names that it kept; if it kept none, the ADDs
  bring it.
* `path` is the path in the new snapshot, for DELETE in the base; `old_path` is always the path in the base. Size,
  inode and times are those of the snapshot that `path` is in. The root itself is not listed.
* **Order**: tree order of `path`; at one path DELETE, ADD, RENAME, MODIFY, META_MODIFY. The list is a set of facts
  about two trees, no script: a swap of names cannot be done one entry after another.
"""

import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from snapkeep.simulators.kit import tree

Identity = tuple[int, ...]


class Operation(StrEnum):
    """What happened to an object."""

    ADD = "ADD"
    MODIFY = "MODIFY"
    META_MODIFY = "META_MODIFY"
    DELETE = "DELETE"
    RENAME = "RENAME"


class ObjectType(StrEnum):
    """What an object is; HARD_LINK is any name of an object (but a directory) that has several."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"
    LINK = "LINK"
    HARD_LINK = "HARD_LINK"
    FIFO = "FIFO"
    SOCKET = "SOCKET"
    BLOCK = "BLOCK"
    CHARACTER = "CHARACTER"


@dataclass(frozen=True, slots=True)
class Entry:
    """One change; what the fields hold is in the module's text. Times: ns since 1970, 0 if unknown."""

    operation: Operation
    type: ObjectType
    path: bytes
    old_path: bytes | None
    size: int
    inode: int
    birth_time: int
    change_time: int
    access_time: int
    modify_time: int


_AT_ONE_PATH = [Operation.DELETE, Operation.ADD, Operation.RENAME, Operation.MODIFY, Operation.META_MODIFY]
_TYPES = {
    stat.S_IFREG: ObjectType.FILE,
    stat.S_IFDIR: ObjectType.DIRECTORY,
    stat.S_IFLNK: ObjectType.LINK,
    stat.S_IFIFO: ObjectType.FIFO,
    stat.S_IFSOCK: ObjectType.SOCKET,
    stat.S_IFBLK: ObjectType.BLOCK,
    stat.S_IFCHR: ObjectType.CHARACTER,
}


class Record(NamedTuple):
    """One path of a map. `generation` and `origin` are the identity's: the inode in the tree where it was born."""

    path: bytes
    generation: int
    origin: int
    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    birth_time: int
    change_time: int
    access_time: int
    modify_time: int
    target: bytes
    attributes: bytes

    @property
    def identity(self) -> Identity:
        """What makes it the same object in two snapshots."""
        return (self.generation, self.origin, self.birth_time, stat.S_IFMT(self.mode))

    @property
    def directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def linked(self) -> bool:
        """Whether the object has several names."""
        return self.nlink > 1 and not self.directory

    @property
    def content(self) -> tuple[int | bytes, ...]:
        """What a MODIFY is about; the size of a directory says nothing."""
        return () if self.directory else (self.size, self.modify_time, self.target)

    @property
    def metadata(self) -> tuple[int | bytes, ...]:
        """What a META_MODIFY is about, but for the change time."""
        held = (self.mode, self.uid, self.gid, self.attributes)
        return (*held, self.modify_time) if self.directory else held


class Origins:
    """The identities that restored objects had before the restore.

    `generation` counts how often the live tree was replaced; it keeps apart an identity of before and an inode that
    happens to have its number now, where the file system knows no birth times.
    """

    _ROW = struct.Struct("=QqqQQqq")

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self._known: dict[tuple[int, int], tuple[int, int, int, int, int]] = {}

    def keep(self, node: tree.Node, record: Record) -> None:
        """From now on `node` is the object that `record` tells of."""
        s = node.stat
        was = (record.generation, record.origin, record.birth_time, record.change_time)
        self._known[s.inode, s.birth_time] = (s.change_time, *was)

    def record(self, node: tree.Node) -> Record:
        """The map's record of an object of the live tree."""
        s = node.stat
        generation, origin, birth, change = self.generation, s.inode, s.birth_time, s.change_time
        if known := self._known.get((s.inode, s.birth_time)):
            untouched, generation, origin, birth, before = known
            change = before if change == untouched else change
        rest = (s.mode, s.nlink, s.uid, s.gid, s.size, birth, change, s.access_time, s.modify_time)
        return Record(node.path, generation, origin, s.inode, *rest, node.target, node.attributes)

    def save(self, path: Path) -> None:
        """Write all to `path`."""
        with path.open("wb") as file:
            file.write(struct.pack("=Q", self.generation))
            for (inode, birth), known in self._known.items():
                file.write(self._ROW.pack(inode, birth, *known))

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote; when there is no such file, origins that know nothing."""
        if not path.exists():
            return cls()
        with path.open("rb") as file:
            found = cls(*struct.unpack("=Q", file.read(8)))
            while row := file.read(cls._ROW.size):
                inode, birth, change, generation, origin, born, changed = cls._ROW.unpack(row)
                found._known[inode, birth] = (change, generation, origin, born, changed)
        return found


class Header(NamedTuple):
    """What a map starts with: how many paths it has, and bytes of file content, each object's once."""

    name: str
    objects: int
    size: int


_HEADER = struct.Struct("=8sQQH")
_MAGIC = b"SKMAP\x00\x00\x01"
_RECORD = struct.Struct("=IQQQIIIIQqqqq16s16s")
_NOTHING = bytes(16)


def write_map(path: Path, name: str, records: Iterable[Record]) -> None:
    """Write the map of the snapshot `name`; the records come in tree order."""
    encoded, objects, size, counted = name.encode(), 0, 0, set()
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, 0, 0, len(encoded)) + encoded)
        for record in records:
            where, *numbers, target, attributes = record
            file.write(_RECORD.pack(len(where), *numbers, target, attributes) + where)
            objects += 1
            if stat.S_ISREG(record.mode) and record.inode not in counted:
                size += record.size
                if record.linked:
                    counted.add(record.inode)
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, objects, size, len(encoded)))


def read_header(path: Path) -> Header:
    """The map's header. FileNotFoundError when there is none, ValueError when the file is no map."""
    with path.open("rb") as file:
        return _header(file)


def _header(file: BinaryIO) -> Header:
    raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size or not raw.startswith(_MAGIC):
        raise ValueError("not an inode map, or one of another version")
    _, objects, size, length = _HEADER.unpack(raw)
    return Header(file.read(length).decode(), objects, size)


def read_map(path: Path) -> Iterator[Record]:
    """The map's records in tree order."""
    with path.open("rb") as file:
        _header(file)
        while fixed := file.read(_RECORD.size):
            length, *numbers, target, attributes = _RECORD.unpack(fixed)
            digests = (b"" if target == _NOTHING else target, b"" if attributes == _NOTHING else attributes)
            yield Record._make((file.read(length), *numbers, *digests))


def differences(base: Path | None, new: Path, *, list_renamed_children: bool = False) -> Iterator[Entry]:
    """What changed from the map `base` to the map `new`, or with no base all of `new` as ADD; see the module."""
    if base is None:
        return (_entry(Operation.ADD, record) for record in read_map(new))
    before, after = _load(base, new)
    found: list[Entry] = []
    for identity in before.objects.keys() | after.objects.keys():
        names = before.objects.get(identity, []), after.objects.get(identity, [])
        if names[0] and names[1]:
            found += _Survivor(before, after, each_child=list_renamed_children).compare(*names)
        else:
            found += (_entry(Operation.DELETE, record) for record in names[0])
            found += (_entry(Operation.ADD, record) for record in names[1])
    found.sort(key=lambda entry: (tree.order(entry.path), _AT_ONE_PATH.index(entry.operation)))
    return iter(found)


def _entry(
    operation: Operation, record: Record, *, type: ObjectType | None = None, old_path: bytes | None = None
) -> Entry:
    own = ObjectType.HARD_LINK if record.linked else _TYPES[stat.S_IFMT(record.mode)]
    times = (record.birth_time, record.change_time, record.access_time, record.modify_time)
    return Entry(operation, type or own, record.path, old_path, record.size, record.inode, *times)


class _Side:
    """One of the two snapshots, without what is known to be unchanged."""

    def __init__(self) -> None:
        self.objects: dict[Identity, list[Record]] = {}
        self._directories: dict[bytes, Identity] = {b"": ()}

    def place(self, record: Record) -> tuple[Identity, bytes]:
        """Where the name is: the directory's identity, whatever it is called now, and the name in it."""
        parent, _, name = record.path.rpartition(b"/")
        return self._directories[parent], name

    def meet(self, record: Record) -> None:
        """Take note of a directory's path: what is below it comes later."""
        if record.directory:
            self._directories[record.path] = record.identity

    def add(self, record: Record) -> None:
        """Keep the record for the comparison."""
        self.objects.setdefault(record.identity, []).append(record)


def _load(base: Path, new: Path) -> tuple[_Side, _Side]:
    """Both snapshots, less the objects with one name that have not changed in any way: memory stays small."""
    before, after = _Side(), _Side()
    for old, now in _paired(read_map(base), read_map(new)):
        if old:
            before.meet(old)
        if now:
            after.meet(now)
        if old and now and _unchanged(old, now) and before.place(old) == after.place(now):
            continue
        if old:
            before.add(old)
        if now:
            after.add(now)
    return before, after


def _paired(olds: Iterator[Record], news: Iterator[Record]) -> Iterator[tuple[Record | None, Record | None]]:
    """Both maps side by side: the records of one path together."""
    old, new = next(olds, None), next(news, None)
    while old or new:
        if new is None or (old and tree.order(old.path) < tree.order(new.path)):
            yield old, None
            old = next(olds, None)
        elif old is None or tree.order(new.path) < tree.order(old.path):
            yield None, new
            new = next(news, None)
        else:
            yield old, new
            old, new = next(olds, None), next(news, None)


def _unchanged(old: Record, now: Record) -> bool:
    single = not (old.linked or now.linked)
    return single and old.identity == now.identity and _change(old, now, stamped=True) is None


def _change(old: Record, now: Record, *, stamped: bool) -> Operation | None:
    """What happened to the object itself; `stamped` when nothing else explains a new change time."""
    if old.content != now.content:
        return Operation.MODIFY
    if old.metadata != now.metadata or (stamped and old.change_time != now.change_time):
        return Operation.META_MODIFY
    return None


class _Survivor:
    """Compares the names and the state of one object that is in both snapshots."""

    def __init__(self, before: _Side, after: _Side, *, each_child: bool) -> None:
        self._before, self._after, self._each_child = before, after, each_child

    def compare(self, olds: list[Record], nows: list[Record]) -> Iterator[Entry]:
        """Its entries, in no order."""
        gone = {self._before.place(old): old for old in olds}
        kept, fresh = [], []
        for now in nows:
            old = gone.pop(self._after.place(now), None)
            if old:
                kept.append((old, now))
            else:
                fresh.append(now)
        stamped = not gone and not fresh
        if self._each_child:
            yield from (_renamed(old, now) for old, now in kept if old.path != now.path)
        if len(olds) == len(nows) == 1 and not (olds[0].linked or nows[0].linked):
            if fresh and not (self._each_child and olds[0].path == nows[0].path):
                yield _renamed(olds[0], nows[0])
            kept = [(olds[0], nows[0])]
        else:
            yield from self._names(list(gone.values()), fresh, kept)
        yield from _changed_once(kept, stamped=stamped)

    def _names(self, gone: list[Record], fresh: list[Record], kept: list[tuple[Record, Record]]) -> Iterator[Entry]:
        """Names that went and came; those that did both at one path go to `kept` if only paths count."""
        same = {old.path: old for old in gone} if self._each_child else {}
        came = {now.path: now for now in fresh}
        both = same.keys() & came.keys()
        kept.extend((same[path], came[path]) for path in both)
        for operation, names in ((Operation.DELETE, gone), (Operation.ADD, fresh)):
            left = (record for record in names if record.path not in both)
            yield from (_entry(operation, record, type=ObjectType.HARD_LINK) for record in left)


def _renamed(old: Record, now: Record) -> Entry:
    return _entry(Operation.RENAME, now, old_path=old.path)


def _changed_once(kept: list[tuple[Record, Record]], *, stamped: bool) -> Iterator[Entry]:
    if kept:
        old, now = min(kept, key=lambda pair: pair[1].path)
        if operation := _change(old, now, stamped=stamped):
            yield _entry(operation, now)
