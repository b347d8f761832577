"""SQLite without a thread, for single statements: most take less time than the way to a thread and back.

aiosqlite gives each connection a thread, and SQLAlchemy asks it four times for each statement; with threads of the
engine at work too, every hop waits for the interpreter. Here the statement runs in the event loop itself. That is for
reads of a page and writes of a row, never for a transaction: who holds the write lock must not wait for a loop that
waits for it. And the loop waits for no disk: a commit is in the log at once, and is forced to the disk by the next
transaction of another connection (SQLite's synchronous=NORMAL).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

BUSY_SECONDS = 1.0
"""How long the loop stands still, at most, when another process holds the lock; then it is an outage."""


class InLoopCursor:
    """What SQLAlchemy's aiosqlite dialect asks of a cursor."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    async def __aenter__(self) -> InLoopCursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cursor.close()

    @property
    def description(self) -> Any:
        """The columns of the answer; None after a statement without one."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row that was inserted last."""
        return self._cursor.lastrowid

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> InLoopCursor:
        """Run one statement; the others in the loop have their turn before it."""
        await asyncio.sleep(0)
        self._cursor.execute(statement, parameters)
        return self

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> InLoopCursor:
        """Run one statement for each set of parameters."""
        await asyncio.sleep(0)
        self._cursor.executemany(statement, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """Let go of the answer."""
        self._cursor.close()


class InLoopConnection:
    """What SQLAlchemy's aiosqlite dialect asks of a connection; each statement is a transaction of its own."""

    isolation_level = None

    def __init__(self, database: str) -> None:
        self._connection = sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)

    def cursor(self) -> InLoopCursor:
        """Return a new cursor; it is entered before it is used."""
        return InLoopCursor(self._connection.cursor())

    async def create_function(self, name: str, count: int, function: Callable[..., Any], **options: Any) -> None:
        """Let SQL call `function`."""
        self._connection.create_function(name, count, function, **options)

    async def commit(self) -> None:
        """Do nothing: every statement is committed."""

    async def rollback(self) -> None:
        """Do nothing, likewise."""

    async def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def stop(self) -> None:
        """Close the file, from outside of a coroutine."""
        self._connection.close()


def opener(database: str) -> Callable[..., Awaitable[InLoopConnection]]:
    """Return what SQLAlchemy calls, with arguments for aiosqlite, to open a connection."""

    async def connect(*_: Any, **__: Any) -> InLoopConnection:
        return InLoopConnection(database)

    return connect
