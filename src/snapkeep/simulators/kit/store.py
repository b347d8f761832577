"""The simulator's memory between two runs: documents in SQLite, written in one transaction for each change.

A simulator holds its state in memory and writes every changed document here before it answers, so that a killed
simulator comes up as it was.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Store:
    """Documents by kind and id. Not for several threads."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS documents (position INTEGER PRIMARY KEY, kind TEXT NOT NULL,"
            " id TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (kind, id))"
        )
        self._depth = 0
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each transaction."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside are kept, or none (when an exception leaves the block). May be nested."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")
            self.on_commit()

    def put(self, kind: str, key: str, value: Any) -> None:
        """Write one document; an existing one keeps its place in the order."""
        self.put_all(kind, [(key, value)])

    def put_all(self, kind: str, values: Iterable[tuple[str, Any]]) -> None:
        """Write many documents. Raises ``RuntimeError`` outside of a transaction."""
        if self._depth == 0:
            raise RuntimeError("documents are written inside a transaction")
        self._connection.executemany(
            "INSERT INTO documents (kind, id, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
            ((kind, key, msgspec.json.encode(value)) for key, value in values),
        )

    def delete(self, kind: str, key: str) -> None:
        """Remove one document; an absent one is no error."""
        self._connection.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, key))

    def clear(self, kind: str) -> None:
        """Remove all documents of a kind."""
        self._connection.execute("DELETE FROM documents WHERE kind = ?", (kind,))

    def get(self, kind: str, key: str, of: type[T]) -> T | None:
        """One document, or None."""
        row = self._connection.execute("SELECT body FROM documents WHERE kind = ? AND id = ?", (kind, key)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=of)

    def all(self, kind: str, of: type[T]) -> list[T]:
        """All documents of a kind, in the order in which they were made."""
        decoder = msgspec.json.Decoder(of)
        rows = self._connection.execute("SELECT body FROM documents WHERE kind = ? ORDER BY position", (kind,))
        return [decoder.decode(body) for (body,) in rows]

    def close(self) -> None:
        """Write what is left to the main file."""
        self._connection.close()
