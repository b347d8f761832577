"""Queries on answers that are kept, so that a request which is repeated under its key does nothing twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.tables import answers

KEPT = timedelta(hours=24)
ABANDONED = timedelta(minutes=5)
"""After so long, who began without an answer has died."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a key was used for. `status`: None as long as the first request has no answer yet."""

    digest: bytes
    status: int | None
    body: bytes | None


class Answers:
    """Answers by the id of their key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, answer_id: str, digest: bytes, now: datetime) -> Answer | None:
        """Take a key for a request; return what it was taken for before, None when it is this request's now."""
        insert = self._database.insert(answers).values(id=answer_id, digest=digest, created_at=now)
        taking = insert.on_conflict_do_nothing(index_elements=["id"]).returning(answers.c.id)
        async with self._database.begin() as connection:
            await connection.execute(delete(answers).where(answers.c.id == answer_id, _is_over(now)))
            if (await connection.execute(taking)).first() is not None:
                return None
            row = (await connection.execute(select(answers).where(answers.c.id == answer_id))).first()
        if row is None:  # dropped in the same moment: its request was refused
            return await self.begin(answer_id, digest, now)
        return Answer(row.digest, row.status, row.body)

    async def end(self, answer_id: str, status: int, body: bytes | None) -> None:
        """Keep the answer."""
        async with self._database.begin() as connection:
            await connection.execute(update(answers).where(answers.c.id == answer_id).values(status=status, body=body))

    async def drop(self, answer_id: str) -> None:
        """Let the key be used again: the request was refused, and changed nothing."""
        async with self._database.begin() as connection:
            await connection.execute(delete(answers).where(answers.c.id == answer_id))

    async def purge(self, now: datetime) -> None:
        """Forget what nobody will ask for."""
        async with self._database.single() as connection:
            await connection.execute(delete(answers).where(answers.c.created_at < now - KEPT))


def _is_over(now: datetime) -> ColumnElement[bool]:
    abandoned = answers.c.status.is_(None) & (answers.c.created_at < now - ABANDONED)
    return (answers.c.created_at < now - KEPT) | abandoned
