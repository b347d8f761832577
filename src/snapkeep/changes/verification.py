"""Is a change list true? It is held against both snapshots.

A backup takes the base, applies the list, and never looks at what the list does not name. So that is what is checked:
for each object of the new snapshot the list says where it lay in the base; there it must be, and unless the list
says otherwise it must be the same. What differs and is not listed is **missed**: a backup would keep what is old for
ever, so one such case condemns the list. What is listed and does not differ is **over-reported**: it costs time only.

`sample` looks at some directories, drawn by a seed, `full` at all. Objects are compared by size, modification time,
mode and owner; by change time, too, where the inodes show that both are snapshots of one file system.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from snapkeep.changes.trees import Node, Nodes, Tree, join, opened
from snapkeep.changes.walk import difference, same_inodes
from snapkeep.changes.walker import WORKERS, Progress, Step, Stop, Walker, paired
from snapkeep.model.changes import Change, ChangeOperation

DIRECTORIES = 1000
"""How many directories a sample has."""

EXAMPLES = 20
"""How many examples a verdict gives."""

How = Literal["sample", "full"]


@dataclass(frozen=True)
class Verdict:
    """What a verification found. `whole`: every directory was looked at, which a sample of a small tree does, too."""

    how: How
    whole: bool
    by_inode: bool
    directories: int
    objects: int
    missed: int
    over_reported: int
    examples: tuple[str, ...]
    """The first that were missed, for people: what, and the path with bytes that are not UTF-8 escaped."""

    @property
    def trusted(self) -> bool:
        """True when nothing was missed."""
        return self.missed == 0

    def __str__(self) -> str:
        looked = f"{self.directories:,} directories with {self.objects:,} objects{', all there are' * self.whole}"
        parts = [
            f"the list is true (compared: {looked})"
            if self.trusted
            else f"the list is WRONG: {self.missed:,} changes are not in it (compared: {looked})"
        ]
        if self.over_reported:
            parts.append(f"{self.over_reported:,} entries tell of what did not change, which is harmless")
        if not self.by_inode:
            parts.append("inodes differ between the two, so change times were not compared: ACLs may differ unseen")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form."""
        return {**asdict(self), "examples": list(self.examples), "verdict": str(self)}


def verify(
    changes: Iterable[Change],
    base: Path | Tree,
    new: Path | Tree,
    how: How,
    *,
    seed: int = 0,
    directories: int = DIRECTORIES,
    by_inode: bool | None = None,
    workers: int = WORKERS,
    scratch: Path | None = None,
    progress: Progress = lambda _: None,
    stop: Stop = lambda: None,
) -> Verdict:
    """Compare a whole change list with the two directories that it is about.

    `directories` and `seed`: of a sample. `by_inode`: whether inodes identify objects on both sides; None: find out.
    `scratch`: where temporary files go. `stop` is called often and raises to end it. Raises what `walk_diff` raises.
    """
    with (
        opened(base, scratch) as before,
        opened(new, scratch) as after,
        tempfile.TemporaryDirectory(prefix="snapkeep-verify-", dir=scratch) as directory,
        closing(_Listed(Path(directory))) as listed,
    ):
        by_inode = same_inodes(before, after) if by_inode is None else by_inode
        listed.take(changes, stop)
        check = _Check(listed, before, after, by_inode)
        sample = directories if how == "sample" else None
        with Walker(before, after, workers, progress, stop, sample=sample, seed=seed) as walk:
            for step, olds, nows in walk:
                check.directory(walk, step, olds, nows)
            return Verdict(
                how, walk.whole, by_inode, walk.directories, walk.objects, check.missed, check.over_reported,
                tuple(check.examples),
            )  # fmt: skip


# -- the list, to be asked by directory --------------------------------------------------------------------------------
_SCHEMA = """
CREATE TABLE entries (parent BLOB, path BLOB, operation TEXT, old_parent BLOB, old_path BLOB, directory INT);
CREATE TABLE touched (side INT, inode TEXT, operation TEXT, PRIMARY KEY (side, inode, operation)) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX by_parent ON entries (parent);
CREATE INDEX by_old_parent ON entries (old_parent) WHERE old_parent IS NOT NULL;
"""
_BATCH = 1000
_LOOK_AGAIN = frozenset({ChangeOperation.ADD, ChangeOperation.UNKNOWN})
_CONTENT = frozenset({ChangeOperation.MODIFY, *_LOOK_AGAIN})
_ATTRIBUTES = frozenset({ChangeOperation.METADATA, *_CONTENT})


class _Said:
    """What the list says of one path of the new snapshot."""

    def __init__(self) -> None:
        self.operations: set[ChangeOperation] = set()
        self.old_path: bytes | None = None


class _Listed:
    """The entries in a file, so that memory does not grow with them."""

    def __init__(self, directory: Path) -> None:
        self._database = sqlite3.connect(directory / "list.sqlite", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -16384"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def take(self, changes: Iterable[Change], stop: Stop) -> None:
        """Read the whole list."""
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", self._rows(changes, stop))
        self._database.execute("COMMIT")
        self._database.executescript(_INDEXES)

    @staticmethod
    def _rows(changes: Iterable[Change], stop: Stop) -> Iterator[tuple[object, ...]]:
        for number, change in enumerate(changes):
            if number % _BATCH == 0:
                stop()
            if change.path:  # the top itself is always there
                old = change.old_path
                yield (
                    _parent(change.path), change.path, change.operation.value,
                    None if old is None else _parent(old), old, change.type == "directory",
                )  # fmt: skip

    def of_new(self, directory: bytes) -> dict[bytes, _Said]:
        """Return what is said of the objects that are in this directory of the new snapshot."""
        found: dict[bytes, _Said] = {}
        for path, operation, old_path in self._database.execute(
            "SELECT path, operation, old_path FROM entries WHERE parent = ? AND operation <> 'delete'", (directory,)
        ):
            said = found.setdefault(path, _Said())
            said.operations.add(ChangeOperation(operation))
            said.old_path = old_path if operation == ChangeOperation.RENAME else said.old_path
        return found

    def gone_from(self, directory: bytes) -> tuple[set[bytes], set[bytes]]:
        """Return what was deleted in this directory of the base, and what was renamed."""
        deleted = self._database.execute(
            "SELECT path FROM entries WHERE parent = ? AND operation = 'delete'", (directory,)
        )
        left = self._database.execute("SELECT old_path FROM entries WHERE old_parent = ?", (directory,))
        return {path for (path,) in deleted}, {path for (path,) in left}

    def names_in(self, directory: bytes, origin: bytes) -> bool:
        """Say whether anything in this directory is listed."""
        found = self._database.execute(
            "SELECT EXISTS (SELECT 1 FROM entries WHERE parent IN (?, ?))"
            " OR EXISTS (SELECT 1 FROM entries WHERE old_parent = ?)",
            (directory, origin, origin),
        )
        return bool(found.fetchone()[0])

    def touch(self, base: Tree, new: Tree) -> None:
        """Find the inodes of everything that is listed: of a file with many names one may stand for all."""
        rows = self._database.execute("SELECT path, operation FROM entries WHERE NOT directory").fetchmany
        while found := rows(_BATCH):
            touched = []
            for path, operation in found:
                side = int(operation != ChangeOperation.DELETE)
                node = (base, new)[side].node(path)
                if node is not None and (side == 0 or node.linked):
                    touched.append((side, str(node.inode), operation))
            self._database.executemany("INSERT OR IGNORE INTO touched VALUES (?, ?, ?)", touched)

    def touched(self, old: Node, now: Node) -> set[ChangeOperation]:
        """Return what is said of an object under any of its names."""
        return {
            ChangeOperation(operation)
            for (operation,) in self._database.execute(
                "SELECT operation FROM touched WHERE (side = 1 AND inode = ?) OR (side = 0 AND inode = ?)",
                (str(now.inode), str(old.inode)),
            )
        }


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


# -- the check ---------------------------------------------------------------------------------------------------------
class _Check:
    """Counts what the list says and does not say."""

    def __init__(self, listed: _Listed, base: Tree, new: Tree, by_inode: bool) -> None:
        self._listed = listed
        self._base = base
        self._new = new
        self._by_inode = by_inode
        self._touched = False
        self.missed = 0
        self.over_reported = 0
        self.examples: list[str] = []

    def directory(self, walk: Walker, step: Step, olds: Nodes, nows: Nodes) -> None:
        """Check one directory of the new snapshot against the one that it was by the list, if it was one."""
        said = self._listed.of_new(step.new)
        deleted, left = self._listed.gone_from(step.base) if step.in_base else (set(), set())
        for old, now in paired(olds, nows):
            before = None if old is None else join(step.base, old.name)
            gone = before in deleted or before in left
            deleted.discard(before or b"")
            if now is None:
                if not gone and before is not None:
                    self._miss("is gone", before)
                continue
            path = join(step.new, now.name)
            told = said.pop(path, None) or _Said()
            origin, origin_path = (None, None) if gone else (old, before)
            if told.old_path is not None:
                origin, origin_path = self._base.node(told.old_path), told.old_path
            if told.operations & _LOOK_AGAIN:
                self._count_needless(origin if told.old_path is None else None, now)
                origin_path = None
            elif origin is None or origin_path is None:
                self._miss("is new" if told.old_path is None else "is renamed from what is not there", path)
                origin_path = None
            elif origin.kind != now.kind:
                self._miss("is of another type", path)
                origin_path = None
            else:
                self._object(path, origin_path, origin, now, told)
            if now.directory:
                walk.below(Step(origin_path, path))
        self.over_reported += len(deleted) + len(said)  # of what was never there, or is not

    def _object(self, path: bytes, origin_path: bytes, old: Node, now: Node, told: _Said) -> None:
        """Compare one object with what it was."""
        stamped = self._by_inode and told.old_path is None
        found = difference(old, now, stamped=stamped)
        if found is None and not self._by_inode and now.type == "symlink":
            same = self._base.link(origin_path) == self._new.link(path)
            found = None if same else ChangeOperation.MODIFY
        if found is None:
            visible = _ATTRIBUTES if self._by_inode else _CONTENT  # an ACL shows in the change time only
            self.over_reported += bool(told.operations & visible)
            return
        enough = _CONTENT if found is ChangeOperation.MODIFY else _ATTRIBUTES
        if told.operations & enough:
            return
        if now.directory and self._listed.names_in(path, origin_path):
            alike = now._replace(mtime=old.mtime)  # names that come and go change the times of their directory
            if difference(old, alike, stamped=False) is None:
                return
        if old.linked or now.linked:
            said = self._anywhere(old, now)
            if said & enough or (said and difference(old, now, stamped=False) is None):
                return
        if ChangeOperation.METADATA in told.operations and self._same_content(origin_path, path, old, now):
            return
        self._miss("has other content" if found is ChangeOperation.MODIFY else "has other attributes", path)

    def _anywhere(self, old: Node, now: Node) -> set[ChangeOperation]:
        if not self._touched:
            self._touched = True
            self._listed.touch(self._base, self._new)
        return self._listed.touched(old, now)

    def _same_content(self, old_path: bytes, path: bytes, old: Node, now: Node) -> bool:
        """Read both: the list says that only attributes differ, and a modification time is one of them."""
        if now.type == "symlink":
            return self._base.link(old_path) == self._new.link(path)
        if now.type not in {"file", "hard-link"} or old.size != now.size:
            return old.size == now.size
        with self._base.open(old_path) as before, self._new.open(path) as after:
            while True:
                one, two = before.read(1 << 20), after.read(1 << 20)
                if one != two:
                    return False
                if not one:
                    return True

    def _count_needless(self, old: Node | None, now: Node) -> None:
        same = old is not None and old.kind == now.kind and difference(old, now, stamped=self._by_inode) is None
        self.over_reported += same and (not self._by_inode or (old is not None and old.inode == now.inode))

    def _miss(self, what: str, path: bytes) -> None:
        self.missed += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{what}: {path.decode('utf-8', 'backslashreplace')}")
