"""A change list by walking: two snapshots that can be read side by side are compared, object by object.

The meaning is that of `snapkeep.model.changes`. What proves what:

* **Identity** is the inode number, with type and (where the file system tells it) time of birth. Snapshots of one
  share have the same inodes; copies have not. There objects are told by their paths alone: a rename is then a `DELETE`
  and an `ADD`, and change times, which no copy keeps, are not looked at.
* **MODIFY**: size or modification time differ (never for directories). Times alone do not prove that content is the
  same, but size, modification and change time and inode together are what every backup program trusts.
* **METADATA**: only mode, owner or change time differ; for a directory also its modification time. A change time that
  a rename, or a name added or removed, explains does not count.
* **Hard links** are never renamed: names come as `ADD` and go as `DELETE`. A change of the object is listed once, at
  the first of the names that it kept.

Many directories are read at once, for the latency of a network file system is what a walk waits for. Memory is flat:
only what is on one side alone is kept to be matched by inode, in a file.
"""

from __future__ import annotations

import marshal
import sqlite3
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from snapkeep.changes.trees import Node, Nodes, Tree, join, opened, order
from snapkeep.changes.walker import WORKERS, Progress, Step, Stop, Walker, paired
from snapkeep.model.changes import Change, ChangeOperation, ObjectType

_EVIDENCE = 2000
_DIRECTORIES_OF_EVIDENCE = 200
_BATCH = 1000


def walk_diff(
    base: Path | Tree | None,
    new: Path | Tree,
    *,
    by_inode: bool | None = None,
    workers: int = WORKERS,
    scratch: Path | None = None,
    progress: Progress = lambda _: None,
    stop: Stop = lambda: None,
) -> Iterator[Change]:
    """Yield what changed from the directory `base` to the directory `new`; without a base, all of `new` as ADD.

    `by_inode`: whether inodes identify objects on both sides; None: find out (see `same_inodes`). `scratch`: where
    temporary files go. `stop` is called often and raises to end the walk. Order: that of a walk, by the paths.
    Raises PermissionDenied, Incomplete or Unavailable when something cannot be read.
    """
    with opened(new, scratch) as after:
        if base is None:
            with Walker(None, after, workers, progress, stop) as walk:
                for step, _, nows in walk:
                    for now in nows:
                        yield _change(ChangeOperation.ADD, join(step.new, now.name), now)
                        if now.directory:
                            walk.below(Step(None, join(step.new, now.name)))
            return
        with (
            opened(base, scratch) as before,
            tempfile.TemporaryDirectory(prefix="snapkeep-walk-", dir=scratch) as directory,
        ):
            by_inode = same_inodes(before, after) if by_inode is None else by_inode
            with closing(_Comparison(before, after, by_inode, Path(directory), stop)) as comparison:
                with Walker(before, after, workers, progress, stop) as walk:
                    for step, olds, nows in walk:
                        comparison.directory(walk, step, olds, nows)
                comparison.match()
                yield from comparison.changes()


def same_inodes(base: Tree, new: Tree) -> bool:
    """Say whether the two sides are snapshots of one file system, so that an inode is the same object on both.

    One object at the same path with the same inode and change time proves it, for nobody can set a change time.
    Without such proof the majority of some thousand objects at the same paths decides.
    """
    same = different = 0
    waiting = [b""]
    for path in waiting:  # grows
        (_, olds), (_, nows) = base.read(path), new.read(path)
        for old, now in paired(olds, nows):
            if old is None or now is None or old.kind != now.kind:
                continue
            if old.inode != now.inode:
                different += 1
            elif old.ctime == now.ctime:
                return True
            else:
                same += 1
            if old.directory and len(waiting) < _DIRECTORIES_OF_EVIDENCE:
                waiting.append(join(path, old.name))
            if same + different >= _EVIDENCE:
                return same > different
    if same == different == 0:
        tops = base.node(b""), new.node(b"")
        return tops[0] is not None and tops[1] is not None and tops[0].inode == tops[1].inode
    return same > different


def difference(old: Node, now: Node, *, stamped: bool) -> ChangeOperation | None:
    """Say what differs between two states of one object; `stamped`: its change time counts."""
    touched = old.mtime != now.mtime
    if not now.directory and (touched or old.size != now.size):
        return ChangeOperation.MODIFY
    if touched or old.mode != now.mode or old.uid != now.uid or old.gid != now.gid:
        return ChangeOperation.METADATA
    return ChangeOperation.METADATA if stamped and old.ctime != now.ctime else None


# -- the comparison ----------------------------------------------------------------------------------------------------
class _Name(NamedTuple):
    """One name of an object on one side. `parent`: the directory that it is in, whatever that is called."""

    parent: bytes
    path: bytes
    node: Node


_Row = tuple[bool, int, bytes, int, bytes, bytes, bytes]
_SCHEMA = """
CREATE TABLE names (file INT, kind INT, inode BLOB, side INT, parent BLOB, path BLOB, node BLOB);
CREATE TABLE changes (place BLOB, rank INT, change BLOB);
"""
_OPERATIONS = tuple(ChangeOperation)
_TYPES = tuple(ObjectType)
_AT_ONE_PATH = (
    ChangeOperation.DELETE, ChangeOperation.ADD, ChangeOperation.RENAME, ChangeOperation.MODIFY,
    ChangeOperation.METADATA,
)  # fmt: skip


class _Comparison:
    """Compares what is at the same place at once, and by inode at the end what is on one side only."""

    def __init__(self, base: Tree, new: Tree, by_inode: bool, directory: Path, stop: Stop) -> None:
        self._base = base
        self._new = new
        self._by_inode = by_inode
        self._stop = stop
        self._database = sqlite3.connect(directory / "walk.sqlite", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -16384"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)
        self._names: list[_Row] = []
        self._found: list[tuple[bytes, int, bytes]] = []
        self._reused: set[bytes] = set()

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    def directory(self, walk: Walker, step: Step, olds: Nodes, nows: Nodes) -> None:
        """Compare the entries of one directory."""
        for old, now in paired(olds, nows):
            if old is not None and now is not None:
                if stat.S_ISREG(now.mode) and self._alike(old, now):
                    continue
                path = join(step.new, now.name)
                if self._same_here(path, old, now):
                    self._kept(step, path, old, now)
                    if now.directory:
                        walk.below(Step(path, path, _key(old.inode), _key(now.inode)))
                    continue
            if old is not None:
                path = join(step.base, old.name)
                self._alone(0, step.base_id, path, old)
                if old.directory:
                    walk.below(Step(path, None, _key(old.inode)))
            if now is not None:
                path = join(step.new, now.name)
                self._alone(1, step.new_id, path, now)
                if now.directory:
                    walk.below(Step(None, path, b"", _key(now.inode)))

    def _alike(self, old: Node, now: Node) -> bool:
        """Say at once that nothing changed, as is so nearly always: no field differs but the access time."""
        if self._by_inode:
            return old[1:9] == now[1:9]
        return old.mode == now.mode and old[4:8] == now[4:8]

    def _same_here(self, path: bytes, old: Node, now: Node) -> bool:
        if old.kind != now.kind:
            return False
        if not self._by_inode:
            return True
        if old.inode != now.inode:
            return False
        return old.ctime == now.ctime or self._same_birth(path, path)

    def _same_birth(self, old: bytes, now: bytes) -> bool:
        """Say whether it is one object, not a new one that got the number of a removed one."""
        before = self._base.born(old)
        after = self._new.born(now) if before is not None else None
        return before is None or after is None or before == after

    def _kept(self, step: Step, path: bytes, old: Node, now: Node) -> None:
        operation = self._operation(path, old, now, stamped=True)
        if operation is None:
            return
        if self._by_inode and (old.linked or now.linked):
            self._alone(0, step.base_id, path, old)
            self._alone(1, step.new_id, path, now)
        else:
            self._tell(_change(operation, path, now))

    def _operation(self, path: bytes, old: Node, now: Node, *, stamped: bool) -> ChangeOperation | None:
        """Say what happened to the object itself; `stamped`: nothing else explains a new change time."""
        found = difference(old, now, stamped=stamped and self._by_inode)
        if found is None and not self._by_inode and now.kind == stat.S_IFLNK:
            return ChangeOperation.MODIFY if self._base.link(path) != self._new.link(path) else None
        return found

    def _alone(self, side: int, parent: bytes, path: bytes, node: Node) -> None:
        """Keep a name that is not at the same place on the other side, to be matched by inode."""
        if not self._by_inode:
            self._tell(_change((ChangeOperation.DELETE, ChangeOperation.ADD)[side], path, node))
            return
        data = marshal.dumps(tuple(node))
        self._names.append((not node.directory, node.kind, _key(node.inode), side, parent, path, data))
        if len(self._names) >= _BATCH:
            self._write_names()

    def _write_names(self) -> None:
        self._insert("INSERT INTO names VALUES (?, ?, ?, ?, ?, ?, ?)", self._names)
        self._names = []

    def _insert(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")

    # -- by inode --------------------------------------------------------------------------------------------------
    def match(self) -> None:
        """Find out which of the names that are on one side only belong to one object."""
        self._write_names()
        for olds, nows in self._objects(files=False):
            if olds and nows and not self._same_object(olds, nows):
                self._reused.add(_key(olds[0].node.inode))
        for olds, nows in self._objects():
            if olds and nows and self._same_object(olds, nows):
                self._survivor(olds, nows)
                continue
            for old in olds:
                self._tell(_change(ChangeOperation.DELETE, old.path, old.node))
            for now in nows:
                self._tell(_change(ChangeOperation.ADD, now.path, now.node))

    def _objects(self, *, files: bool = True) -> Iterator[tuple[list[_Name], list[_Name]]]:
        """Yield the names of each object on both sides; without `files` those of directories alone."""
        rows = self._database.execute(
            "SELECT kind, inode, side, parent, path, node FROM names WHERE ? OR NOT file "
            "ORDER BY kind, inode, side, path",
            (files,),
        )
        for number, (_, group) in enumerate(groupby(rows, key=lambda row: (row[0], row[1]))):
            if number % _BATCH == 0:
                self._stop()
            sides: tuple[list[_Name], list[_Name]] = ([], [])
            for _, _, side, parent, path, data in group:
                sides[side].append(_Name(parent, path, Node._make(marshal.loads(data))))  # noqa: S302 - ours
            yield sides

    def _same_object(self, olds: list[_Name], nows: list[_Name]) -> bool:
        if olds[0].node.directory and len(olds) + len(nows) > 2:  # a number that says nothing: of a nested file system
            return False
        return olds[0].node.ctime == nows[0].node.ctime or self._same_birth(olds[0].path, nows[0].path)

    def _survivor(self, olds: list[_Name], nows: list[_Name]) -> None:
        """Tell what happened to an object that is on both sides: its names, then the object."""
        gone = {self._place(0, old): old for old in olds}
        kept: list[tuple[_Name, _Name]] = []
        fresh: list[_Name] = []
        for now in nows:
            old = gone.pop(self._place(1, now), None)
            if old is None:
                fresh.append(now)
            else:
                kept.append((old, now))
        stamped = not gone and not fresh
        if olds[0].node.linked or nows[0].node.linked or len(olds) > 1 or len(nows) > 1:
            for name in gone.values():
                self._tell(_change(ChangeOperation.DELETE, name.path, name.node)._replace(type=ObjectType.HARD_LINK))
            for name in fresh:
                self._tell(_change(ChangeOperation.ADD, name.path, name.node)._replace(type=ObjectType.HARD_LINK))
        else:
            kept = [(olds[0], nows[0])]
            if fresh:
                self._tell(_change(ChangeOperation.RENAME, nows[0].path, nows[0].node, olds[0].path))
        if kept:
            old, now = min(kept, key=lambda pair: pair[1].path)
            operation = self._operation(now.path, old.node, now.node, stamped=stamped)
            if operation is not None:
                self._tell(_change(operation, now.path, now.node))

    def _place(self, side: int, name: _Name) -> tuple[int, bytes, bytes]:
        """Return where the name is: the directory, whatever it is called, and the name in it."""
        return (side if name.parent in self._reused else 0, name.parent, name.node.name)

    # -- what was found --------------------------------------------------------------------------------------------
    def _tell(self, change: Change) -> None:
        operation, kind, *rest = change
        row = marshal.dumps((_OPERATIONS.index(operation), _TYPES.index(kind), *rest))
        self._found.append((order(change.path), _AT_ONE_PATH.index(operation), row))
        if len(self._found) >= _BATCH:
            self._write_found()

    def _write_found(self) -> None:
        self._insert("INSERT INTO changes VALUES (?, ?, ?)", self._found)
        self._found = []

    def changes(self) -> Iterator[Change]:
        """Yield what was found, in the order of a walk."""
        self._write_found()
        for number, (row,) in enumerate(self._database.execute("SELECT change FROM changes ORDER BY place, rank")):
            if number % _BATCH == 0:
                self._stop()
            operation, kind, *rest = marshal.loads(row)  # noqa: S302 - ours
            yield Change(_OPERATIONS[operation], _TYPES[kind], *rest)


def _key(inode: int) -> bytes:
    """Return a number of 64 bits, signed or not, as bytes: SQLite's integers are too small."""
    return (inode & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")


def _change(operation: ChangeOperation, path: bytes, node: Node, old_path: bytes | None = None) -> Change:
    return Change(operation, node.type, path, old_path, node.size, node.inode, None, node.ctime, node.atime)
