"""The work of an incremental backup: what must be looked at, and what came of it. On disk, so memory stays small.

Every path in it is a path of the new snapshot. A path brings all directories above it: their times have changed.

What is to be written waits in memory until there is some of it, or until it is asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from snapkeep.model.errors import Incomplete

WALK = 1
"""A directory of this path must be walked whole: it is new, or nobody knows what happened to it."""
DOUBT = 2
"""A file of this path may have new content, whatever its times say: it is read."""

_SCHEMA = """
CREATE TABLE entries (
    parent BLOB, name BLOB, depth INTEGER NOT NULL, flags INTEGER NOT NULL, old BLOB,
    done INTEGER NOT NULL DEFAULT 0, node BLOB, directory INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE INDEX to_do ON entries (depth, parent, name) WHERE done = 0;
CREATE TABLE directories (path BLOB PRIMARY KEY, depth INTEGER, base BLOB, walked INTEGER, tree BLOB) WITHOUT ROWID;
CREATE INDEX by_depth ON directories (depth, path);
CREATE TABLE linked (path BLOB PRIMARY KEY, inode TEXT, links INTEGER) WITHOUT ROWID;
CREATE INDEX by_inode ON linked (inode);
CREATE TABLE gone (path BLOB PRIMARY KEY) WITHOUT ROWID;
"""


_WAIT = 5000  # rows that wait to be written


class Entry(NamedTuple):
    """A path to look at."""

    parent: bytes
    name: bytes
    flags: int
    old: bytes | None
    """Where it was in the parent, if it was renamed."""


class Place(NamedTuple):
    """A directory of the new snapshot."""

    base: bytes | None
    """The id of the tree that it had in the parent."""
    walked: bool
    """All that it holds is looked at; nothing is taken over unseen."""


class WorkList:
    """Used by one thread."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)
        self._database.execute("BEGIN")
        self._new: list[tuple[bytes, bytes, int, int, bytes | None]] = []
        self._done: list[tuple[bytes | None, bool, bytes, bytes]] = []
        self._places: dict[bytes, Place] = {}
        self._trees: dict[bytes, bytes] = {}
        self._above: set[bytes] = {b""}  # directories that are known to be in it; emptied now and then

    def __len__(self) -> int:
        count: int = self._written().execute("SELECT count(*) FROM entries").fetchone()[0]
        return count

    def close(self) -> None:
        """Throw it away."""
        self._database.close()

    # What to look at

    def add(self, path: bytes, flags: int = 0, old: bytes | None = None) -> None:
        """Look at a path of the new snapshot; to add it again adds to what is known of it.

        Raises Incomplete for what is no path below the share: such a list is not to be trusted.
        """
        if not path:
            return
        check_path(path)
        parent, _, name = path.rpartition(b"/")
        self._insert(parent, name, flags, old)
        while parent not in self._above:
            self._above.add(parent)
            above, _, name = parent.rpartition(b"/")
            self._insert(above, name, 0, None)
            parent = above
        if len(self._above) > 200_000:
            self._above = {b""}

    def add_names(self, directory: bytes, names: Iterable[bytes]) -> None:
        """Look at these names of a directory."""
        depth = _depth(directory)
        rows = ((directory, name, depth) for name in names)
        self._written().executemany(
            "INSERT OR IGNORE INTO entries (parent, name, depth, flags) VALUES (?, ?, ?, 0)", rows
        )

    def flags(self, path: bytes) -> int:
        """Return what is known of a path."""
        parent, _, name = path.rpartition(b"/")
        if self._new:
            self._write_entries()
        found = self._database.execute("SELECT flags FROM entries WHERE parent = ? AND name = ?", (parent, name))
        row = found.fetchone()
        return int(row[0]) if row else 0

    def paths(self) -> Iterator[tuple[bytes, int]]:
        """Yield all paths and what is known of them; more may be added meanwhile."""
        last = (b"", b"")
        while (
            rows := self._written()
            .execute(
                "SELECT parent, name, flags FROM entries WHERE (parent, name) > (?, ?) "
                "ORDER BY parent, name LIMIT 1000",
                last,
            )
            .fetchall()
        ):
            yield from ((parent + b"/" + name if parent else name, flags) for parent, name, flags in rows)
            last = rows[-1][:2]

    def to_do(self, most: int) -> list[Entry]:
        """Return the next paths to look at, all of one depth, together what is in one directory."""
        found = self._written().execute("SELECT depth FROM entries WHERE done = 0 ORDER BY depth LIMIT 1").fetchone()
        if found is None:
            return []
        rows = self._database.execute(
            "SELECT parent, name, flags, old FROM entries WHERE done = 0 AND depth = ? ORDER BY parent, name LIMIT ?",
            (found[0], most),
        )
        return [Entry(*row) for row in rows]

    def add_gone(self, path: bytes) -> None:
        """Note a path of the parent's snapshot that is no longer what it was. Raises Incomplete."""
        check_path(path)
        self._database.execute("INSERT OR IGNORE INTO gone VALUES (?)", (path,))

    def gone(self) -> Iterator[bytes]:
        """Yield those paths."""
        last = b""
        while rows := self._database.execute(
            "SELECT path FROM gone WHERE path > ? ORDER BY path LIMIT 1000", (last,)
        ).fetchall():
            yield from (row[0] for row in rows)
            last = rows[-1][0]

    def is_gone(self, path: bytes) -> bool:
        """Say whether a path of the parent's snapshot is one of them."""
        return self._database.execute("SELECT 1 FROM gone WHERE path = ?", (path,)).fetchone() is not None

    # What came of it

    def done(self, parent: bytes, found: Iterable[tuple[bytes, bytes | None, bool]]) -> None:
        """Note for names of one directory their node (None: not there) and whether it is a directory's."""
        self._done += ((node, directory, parent, name) for name, node, directory in found)
        if len(self._done) > _WAIT:
            self._write_entries()

    def found(self, parent: bytes) -> Iterator[tuple[bytes, bytes | None, bool]]:
        """Yield name, node and whether it is a directory of all in one directory, in the order of the names."""
        rows = self._written().execute(
            "SELECT name, node, directory FROM entries WHERE parent = ? ORDER BY name", (parent,)
        )
        return ((name, node, bool(directory)) for name, node, directory in rows)

    def all_found(self) -> Iterator[tuple[bytes, bool, bool]]:
        """Yield path, whether it is there, and whether it is a directory, of all that was looked at."""
        rows = self._written().execute("SELECT parent, name, node IS NOT NULL, directory FROM entries")
        for parent, name, there, directory in rows:
            yield parent + b"/" + name if parent else name, bool(there), bool(directory)

    def set_place(self, path: bytes, place: Place) -> None:
        """Note a directory of the new snapshot."""
        self._places[path] = place
        if len(self._places) > _WAIT:
            self._write_directories()

    def place(self, path: bytes) -> Place | None:
        """Return what was noted; None: there is no such directory."""
        if place := self._places.get(path):
            return place
        found = self._database.execute("SELECT base, walked FROM directories WHERE path = ?", (path,)).fetchone()
        return Place(found[0], bool(found[1])) if found else None

    def drop_place(self, path: bytes) -> None:
        """Forget a directory: it cannot be read."""
        self._write_directories()
        self._database.execute("DELETE FROM directories WHERE path = ?", (path,))

    def directories(self) -> Iterator[list[tuple[bytes, Place]]]:
        """Yield all directories, the deepest first, in handy portions of one depth each."""
        self._write_directories()
        depths = self._database.execute("SELECT DISTINCT depth FROM directories ORDER BY depth DESC").fetchall()
        for (depth,) in depths:
            last: bytes | None = None
            while rows := self._database.execute(
                "SELECT path, base, walked FROM directories WHERE depth = ? AND (?2 IS NULL OR path > ?2) "
                "ORDER BY path LIMIT 500",
                (depth, last),
            ).fetchall():
                yield [(path, Place(base, bool(walked))) for path, base, walked in rows]
                last = rows[-1][0]

    def set_tree(self, path: bytes, tree: bytes) -> None:
        """Note the new tree of a directory."""
        self._trees[path] = tree
        if len(self._trees) > _WAIT:
            self._write_directories()

    def tree(self, path: bytes) -> bytes | None:
        """Return it; None: there is no such directory."""
        if tree := self._trees.get(path):
            return tree
        found = self._database.execute("SELECT tree FROM directories WHERE path = ?", (path,)).fetchone()
        return found[0] if found else None

    # Files with several names

    def add_linked(self, names: Iterable[tuple[bytes, int, int]]) -> None:
        """Note path, inode and count of names of what was met."""
        rows = ((path, str(inode), links) for path, inode, links in names)
        self._database.executemany("INSERT OR REPLACE INTO linked VALUES (?, ?, ?)", rows)

    def linked(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield them all."""
        rows = self._database.execute("SELECT path, inode, links FROM linked")
        return ((path, int(inode), links) for path, inode, links in rows)

    def linked_inodes(self) -> list[tuple[int, int, int]]:
        """Return each inode, the count of its names, and how many of them were met."""
        rows = self._database.execute("SELECT inode, max(links), count(*) FROM linked GROUP BY inode")
        return [(int(inode), links, met) for inode, links, met in rows]

    def _insert(self, parent: bytes, name: bytes, flags: int, old: bytes | None) -> None:
        self._new.append((parent, name, _depth(parent), flags, old))
        if len(self._new) > _WAIT:
            self._write_entries()

    def _written(self) -> sqlite3.Connection:
        """Return the database with all entries in it."""
        self._write_entries()
        return self._database

    def _write_entries(self) -> None:
        write = self._database.executemany
        if self._new:
            write(
                "INSERT INTO entries (parent, name, depth, flags, old) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET flags = flags | excluded.flags, old = coalesce(old, excluded.old)",
                self._new,
            )
            self._new.clear()
        if self._done:
            write("UPDATE entries SET done = 1, node = ?, directory = ? WHERE parent = ? AND name = ?", self._done)
            self._done.clear()

    def _write_directories(self) -> None:
        write = self._database.executemany
        if self._places:
            rows = ((path, _depth(path), place.base, place.walked) for path, place in self._places.items())
            write("INSERT OR REPLACE INTO directories VALUES (?, ?, ?, ?, NULL)", rows)
            self._places.clear()
        if self._trees:
            write(
                "UPDATE directories SET tree = ? WHERE path = ?", ((tree, path) for path, tree in self._trees.items())
            )
            self._trees.clear()


def check_path(path: bytes) -> None:
    """Raise Incomplete for what is no path below the share."""
    parts = path.split(b"/")
    if b"\0" in path or any(part in {b"", b".", b".."} for part in parts):
        raise Incomplete(f"The change list names what is no path below the share: {path!r}")


def _depth(path: bytes) -> int:
    return path.count(b"/") + 1 if path else 0
