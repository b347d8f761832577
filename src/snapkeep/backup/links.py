"""Which names a file with several names has, and what could not be read: kept from one backup to the next.

A change that was made through one name of a file is listed under that name alone; the others must be looked at, too.
And what could not be read last time must be tried again, though it did not change. Both would take a walk over
everything to find out, so they are kept in a file beside the repository's cache. It tells of one recovery point; when
it is lost or tells of another, it is made again from the trees of the parent.

Paths are below the share.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from snapkeep.backup.nodes import Tree
from snapkeep.backup.reading import join
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

_AT_ONCE = 256  # trees
_INODES = re.compile(rb'"inode":(\d+)').findall

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (recovery_point TEXT);
CREATE TABLE IF NOT EXISTS names (path BLOB PRIMARY KEY, inode INTEGER NOT NULL, links INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_inode ON names (inode);
CREATE TABLE IF NOT EXISTS unreadable (path BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class LinkTable:
    """The table of one share. Changes count when `commit` was called. Used by one thread at a time."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make it; with no path it is lost at `close`, and also while another backup uses that file."""
        self._lock = _locked(path) if path is not None else None
        self._path = path if self._lock is not None else None
        try:
            self._database = self._open()
        except sqlite3.DatabaseError:  # damaged: it can be made again
            if self._path is None:
                raise
            self._path.unlink(missing_ok=True)
            self._database = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has_names(self) -> bool:
        """Say whether there is any file with several names."""
        return self._database.execute("SELECT 1 FROM names LIMIT 1").fetchone() is not None

    @property
    def recovery_point(self) -> str | None:
        """The id of the recovery point that it tells of."""
        row = self._database.execute("SELECT recovery_point FROM about").fetchone()
        return row[0] if row else None

    def clear(self) -> None:
        """Forget everything."""
        for statement in ("DELETE FROM about", "DELETE FROM names", "DELETE FROM unreadable"):
            self._database.execute(statement)

    def add(self, names: Iterable[tuple[bytes, int, int]]) -> None:
        """Note names: path, inode, count of names that the inode has."""
        rows = ((path, _signed(inode), links) for path, inode, links in names)
        self._database.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", rows)

    def names(self, inode: int) -> list[bytes]:
        """Return all known names of an inode."""
        rows = self._database.execute("SELECT path FROM names WHERE inode = ? ORDER BY path", (_signed(inode),))
        return [row[0] for row in rows]

    def inodes(self, path: bytes, *, below: bool = False) -> list[int]:
        """Return the inode that has this name; with `below`, also of all names below it."""
        rows = self._database.execute("SELECT inode FROM names WHERE path = ?", (path,)).fetchall()
        if below:
            rows += self._database.execute("SELECT DISTINCT inode FROM names WHERE path > ? AND path < ?", _below(path))
        return [row[0] & 0xFFFFFFFFFFFFFFFF for row in rows]

    def outside(self, inode: int) -> int:
        """Return how many names of an inode were not found, when it was looked for them last."""
        row = self._database.execute("SELECT max(links) - count(*) FROM names WHERE inode = ?", (_signed(inode),))
        return max(0, row.fetchone()[0] or 0)

    def remove(self, path: bytes, *, below: bool = True) -> None:
        """Forget a name; with `below`, also all below it."""
        self._database.execute("DELETE FROM names WHERE path = ?", (path,))
        if below:
            self._database.execute("DELETE FROM names WHERE path > ? AND path < ?", _below(path))

    def below(self, path: bytes) -> list[tuple[bytes, int, int]]:
        """Return path, inode and count of names of all below a directory."""
        rows = self._database.execute("SELECT path, inode, links FROM names WHERE path > ? AND path < ?", _below(path))
        return [(row[0], row[1] & 0xFFFFFFFFFFFFFFFF, row[2]) for row in rows]

    def add_unreadable(self, paths: Iterable[bytes]) -> None:
        """Note paths that must be tried again."""
        self._database.executemany("INSERT OR REPLACE INTO unreadable VALUES (?)", ((path,) for path in paths))

    def take_unreadable(self) -> Iterator[bytes]:
        """Return, and forget, the paths that must be tried again."""
        rows = self._database.execute("SELECT path FROM unreadable ORDER BY path").fetchall()
        self._database.execute("DELETE FROM unreadable")
        return (row[0] for row in rows)

    def commit(self, recovery_point: str) -> None:
        """From now on it tells of this recovery point."""
        self._database.execute("DELETE FROM about")
        self._database.execute("INSERT INTO about VALUES (?)", (recovery_point,))
        self._database.commit()

    def rollback(self) -> None:
        """Undo what was not committed."""
        with suppress(sqlite3.Error):
            self._database.rollback()

    def close(self) -> None:
        """End; what was not committed is lost."""
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path or "", check_same_thread=False)
        try:
            database.executescript(_SCHEMA)
            database.execute("SELECT count(*) FROM about").fetchone()
        except BaseException:
            database.close()
            raise
        return database


def _locked(path: Path) -> int | None:
    """Return a lock on the file, that ends with the process; None when another backup of the share holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def rebuild(table: LinkTable, repository: Repository, recovery_point: str, tree: bytes) -> None:
    """Make the table of a recovery point from its trees, `tree` being that of the share. Takes a while."""
    table.clear()
    for path, text in walk_trees(repository, tree):
        if b'"device_id":' in text:  # only what may have several names has one
            linked = ((name, known) for name, known in Tree(text).knowns() if known.device_id and known.type != "dir")
            table.add([(join(path, name), known.inode, known.links) for name, known in linked])
    table.commit(recovery_point)


def find_names(repository: Repository, tree: bytes, inodes: set[int]) -> Iterator[bytes]:
    """Yield all paths below a tree that have one of these inodes. Reads all trees."""
    for path, text in walk_trees(repository, tree):
        if not inodes.isdisjoint(map(int, _INODES(text))):
            yield from (join(path, name) for name, known in Tree(text).knowns() if known.inode in inodes)


def walk_trees(repository: Repository, tree: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield path and text of each tree that a tree leads to, itself among them, in no order."""
    waiting = [(b"", tree)]
    while waiting:
        taken = waiting[-_AT_ONCE:]
        del waiting[-_AT_ONCE:]
        paths: dict[bytes, list[bytes]] = {}
        for path, id in taken:
            paths.setdefault(id, []).append(path)
        for id, text in repository.load_many(BlobType.TREE, paths):
            below: list[tuple[bytes, bytes]] = []
            if b'"subtree":' in text:
                known = Tree(text).knowns()
                below = [(name, bytes.fromhex(one.subtree)) for name, one in known if one.subtree]
            for path in paths[id]:
                waiting += [(join(path, name), subtree) for name, subtree in below]
                yield path, text


def _signed(inode: int) -> int:
    """SQLite's numbers have a sign."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def _below(path: bytes) -> tuple[bytes, bytes]:
    """Return the two paths between which all below a directory lie."""
    return (path + b"/", path + b"0") if path else (b"", b"\xff" * 4096)
