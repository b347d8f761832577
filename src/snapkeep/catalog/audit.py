"""The audit log in the database: lines are appended, one behind the other, and never changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.audit_chain import Chain, Entry, Head, Line, Outcome
from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.tables import audit, notes
from snapkeep.model.errors import Damaged

HEAD = "audit-head"
"""Under which key the head is noted."""

_TOGETHER = 200
"""Lines of one transaction, at most."""
_PAGE = 1000

_IS_HEAD = notes.c.key == HEAD
_HEAD = select(notes.c.value).where(_IS_HEAD)
_AT_HEAD = (notes.c.value, database_clock())
_LOCK = {
    # The lock that the next line needs is taken before the head is read: by a write, where there is no other way.
    "postgresql": select(*_AT_HEAD).where(_IS_HEAD).with_for_update(),
    "sqlite": update(notes).where(_IS_HEAD).values(value=notes.c.value).returning(*_AT_HEAD),
}
_MOVE = update(notes).where(_IS_HEAD).values(value=bindparam("moved"))
_INSERT = insert(audit)
_NEXT_STEP = "Run `snapkeep audit verify`. Until the catalog is restored from its backup, nothing can be changed."


class Audit:
    """The audit log. Every process appends to the same chain; the database says whose turn it is."""

    def __init__(self, database: Database, engine: Engine, thread: Executor, key: bytes) -> None:
        """`engine` belongs to `thread`; `key` is the one of the chain."""
        self._database = database
        self._engine = engine
        self._thread = thread
        self._chain = Chain(key)
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    # -- writing -----------------------------------------------------------------------------------------------------
    async def append(self, entry: Entry) -> None:
        """Append a line; it is on disk when this returns. What waits at the same time goes into one transaction.

        Raises what the database raises, and Damaged when somebody else has written to the log.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def append_in(self, connection: AsyncConnection, entries: Sequence[Entry]) -> None:
        """Append lines in the transaction of a connection, as the last thing that it locks. Raises as `append`."""
        await connection.run_sync(self._append, entries)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            try:
                async with self._database.turn():
                    await loop.run_in_executor(self._thread, self._commit, [entry for entry, _ in taken])
            except Exception as error:  # noqa: BLE001 - each of those that wait raises it
                for _, written in taken:
                    if not written.done():
                        written.set_exception(error)
            else:
                for _, written in taken:
                    if not written.done():
                        written.set_result(None)
            finally:
                for _, written in taken:
                    written.cancel()  # nothing, unless this task itself was ended

    def _commit(self, entries: Sequence[Entry]) -> None:
        with self._engine.begin() as connection:
            self._append(connection, entries)

    def _append(self, connection: Connection, entries: Sequence[Entry]) -> None:
        head, now = self._lock(connection)
        lines, head = self._chain.link(head, now, entries)
        try:
            connection.execute(_INSERT, [_row(line) for line in lines])
        except IntegrityError as error:
            raise Damaged("The audit log has lines that Snapkeep did not write", next_step=_NEXT_STEP) from error
        connection.execute(_MOVE, {"moved": head.to_bytes()})

    def _lock(self, connection: Connection) -> tuple[Head, datetime]:
        """Wait for the turn of this transaction; return the head, and the time by the clock of the database."""
        locking = _LOCK[connection.dialect.name]
        row = connection.execute(locking).first()
        if row is None:
            self._begin(connection)
            row = connection.execute(locking).one()
        head = Head.from_bytes(row[0])
        if head is None or not self._chain.has_signed(head):  # signed anew, it would hide what was cut off
            raise Damaged("The head of the audit log was altered", next_step=_NEXT_STEP)
        return head, row[1]

    def _begin(self, connection: Connection) -> None:
        """Note the head of an empty log, unless another process is quicker."""
        noting = self._database.insert(notes).values(key=HEAD, value=self._chain.head().to_bytes())
        noting = noting.on_conflict_do_nothing(index_elements=["key"])
        noted = connection.scalar(noting.returning(notes.c.key))
        if noted and connection.scalar(select(audit.c.seq).limit(1)) is not None:
            raise Damaged("The audit log has lost its head", next_step=_NEXT_STEP)

    # -- reading -----------------------------------------------------------------------------------------------------
    async def head(self) -> Head:
        """Return the head as it is noted. Raises Damaged when it is none."""
        async with self._database.connect() as connection:
            noted = await connection.scalar(_HEAD)
        head = self._chain.head() if noted is None else Head.from_bytes(noted)
        if head is None:
            raise Damaged("The head of the audit log was altered", next_step=_NEXT_STEP)
        return head

    async def find(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        outcome: Outcome | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        newest_first: bool = True,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Line]:
        """Return lines; `after` is the number of the last one of the page before. `until` itself is not among them."""
        query = select(audit).order_by(audit.c.seq.desc() if newest_first else audit.c.seq).limit(limit)
        for column, wanted in ((audit.c.actor, actor), (audit.c.action, action), (audit.c.outcome, outcome)):
            query = query if wanted is None else query.where(column == wanted)
        query = query if since is None else query.where(audit.c.at >= since)
        query = query if until is None else query.where(audit.c.at < until)
        if after is not None:
            query = query.where(audit.c.seq < after if newest_first else audit.c.seq > after)
        async with self._database.connect() as connection:
            return [line_of(row) for row in await connection.execute(query)]

    async def lines(self, first: int, last: int) -> AsyncIterator[Line]:
        """Yield the lines from one to another, the oldest first."""
        while first <= last:
            page = await self.find(newest_first=False, after=first - 1, limit=min(_PAGE, last - first + 1))
            for line in page:
                yield line
            if not page:
                return
            first = page[-1].seq + 1


@asynccontextmanager
async def open_audit(database: Database, engine: Engine, key: bytes) -> AsyncIterator[Audit]:
    """Open the audit log; `engine` is its own, and is closed at the end."""
    with ThreadPoolExecutor(1, "audit") as thread:
        try:
            yield Audit(database, engine, thread, key)
        finally:
            await asyncio.get_running_loop().run_in_executor(thread, engine.dispose)


def _row(line: Line) -> dict[str, Any]:
    entry = line.entry
    return {
        "seq": line.seq,
        "at": line.at,
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "source": entry.source,
        "request_id": entry.request_id,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome.value,
        "status": entry.status,
        "detail": dict(entry.detail),
        "previous": line.previous,
        "hash": line.hash,
    }


def line_of(row: Any) -> Line:
    """Return the line of a row of the table. Raises ValueError when no line can have been there."""
    values = dict(row._mapping)
    seq, at, previous, own = (values.pop(name) for name in ("seq", "at", "previous", "hash"))
    values["outcome"] = Outcome(values["outcome"])
    return Line(seq, at, Entry(**values), previous, own)
