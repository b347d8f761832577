"""Which keys the sealed records need, who has them, and how another key follows."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, delete, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.notes import SEALED
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import channels, logins, notes, providers, repositories, systems
from snapkeep.model.errors import InvalidInput, Unavailable

TOGETHER = 50
"""Records that are sealed anew in one transaction."""

_NEXT = "next-secret-key"
_PRIMARY = "primary-secret-key"
_HOLDER = "holder-"
_PLACES: tuple[tuple[Column[Any], Column[Any]], ...] = (
    (systems.c.id, systems.c.secrets),
    (repositories.c.id, repositories.c.secrets),
    (providers.c.id, providers.c.secrets),
    (logins.c.id, logins.c.secrets),
    (channels.c.id, channels.c.secrets),
    (notes.c.key, notes.c.value),
)
"""Where sealed records are: the column of the id, and of what is sealed."""


@dataclass(frozen=True, slots=True)
class _Sealed:
    id: Column[Any]
    value: Column[Any]
    record_id: str
    sealed: bytes


class Sealing:
    """The keys of the catalog's secrets."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self._database = database
        self.box = box
        self.rotating = asyncio.Lock()
        """Held by who changes the keys themselves."""

    async def needed(self) -> Counter[str]:
        """Count the records that need each key. Raises InvalidInput when one cannot be opened at all."""
        return Counter([self.box.key_of(item.record_id, item.sealed) async for item in self._records()])

    async def seal_anew(self) -> int:
        """Seal with the first key what was sealed with others; return how many records that were.

        It is done in small transactions, each of which may be the last: what is left is done by the next call. What
        somebody changes meanwhile is left as he wrote it. Records whose key is not here are left, too.
        """
        done, batch = 0, []
        async for item in self._records():
            if not self.box.is_outdated(item.sealed):
                continue
            batch.append(item)
            if len(batch) == TOGETHER:
                done += await self._seal_anew(batch)
                batch = []
        return done + await self._seal_anew(batch)

    async def next_key(self) -> str | None:
        """Return the id of a key that was made to follow, and does not seal yet."""
        return await self._note(_NEXT)

    async def set_next(self, key_id: str | None) -> None:
        """Note which key is to follow."""
        await self._set_note(_NEXT, key_id)

    async def primary(self) -> str | None:
        """Return the id of the key with which the server seals."""
        return await self._note(_PRIMARY)

    async def set_primary(self) -> None:
        """Note, as the server, with which key it seals."""
        await self._set_note(_PRIMARY, self.box.key_ids[0])

    async def announce(self, worker: str) -> None:
        """Tell the others which keys this worker has."""
        await self._set_note(_holder(worker), json.dumps(self.box.key_ids))

    async def without(self, key_id: str, workers: Iterable[str]) -> list[str]:
        """Return those of the workers that have not said that they have a key."""
        held = {worker: await self._note(_holder(worker)) for worker in workers}
        return sorted(worker for worker, ids in held.items() if key_id not in json.loads(ids or "[]"))

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _records(self) -> AsyncIterator[_Sealed]:
        for id_column, value_column in _PLACES:
            query = select(id_column, value_column).order_by(id_column).limit(TOGETHER)
            last = ""
            while True:
                async with self._database.connect() as connection:
                    rows = (await connection.execute(query.where(id_column > last))).all()
                for record_id, sealed in rows:
                    if id_column.table is not notes or record_id in SEALED:
                        yield _Sealed(id_column, value_column, record_id, sealed)
                if len(rows) < TOGETHER:
                    break
                last = rows[-1][0]

    async def _seal_anew(self, items: list[_Sealed]) -> int:
        done = 0
        async with self._database.begin() as connection:
            for item in items:
                try:
                    sealed = self.box.seal(item.record_id, self.box.open(item.record_id, item.sealed))
                except (InvalidInput, Unavailable):
                    continue
                change = update(item.id.table).where(item.id == item.record_id, item.value == item.sealed)
                done += (await connection.execute(change.values({item.value: sealed}))).rowcount
        return done

    async def _note(self, key: str) -> str | None:
        async with self._database.connect() as connection:
            found: bytes | None = await connection.scalar(select(notes.c.value).where(notes.c.key == key))
        return found.decode() if found is not None else None

    async def _set_note(self, key: str, text: str | None) -> None:
        async with self._database.begin() as connection:
            if text is None:
                await connection.execute(delete(notes).where(notes.c.key == key))
                return
            insert = self._database.insert(notes).values(key=key, value=text.encode())
            await connection.execute(
                insert.on_conflict_do_update(index_elements=["key"], set_={"value": text.encode()})
            )


def _holder(worker: str) -> str:
    return _HOLDER + hashlib.sha256(worker.encode()).hexdigest()[:32]
