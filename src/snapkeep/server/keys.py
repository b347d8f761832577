"""The secret keys of a running process: read again when they change, and rotated without a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.key_sources import KeyFile, new_key
from snapkeep.catalog.outages import is_outage
from snapkeep.catalog.secrets import key_id
from snapkeep.model.errors import Busy, Conflict, InvalidInput, NotFound, Unsupported

LOOK_SECONDS = 2.0
"""How often it is looked whether the keys are others."""
WAIT_SECONDS = 6.0
"""How long a rotation waits for workers that read the same file."""

Living = Callable[[], Awaitable[list[str]]]
State = Literal["primary", "next", "used", "unused", "missing"]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """A key: what it does, how many records need it, and which living workers lack it."""

    id: str
    state: State
    records: int
    lacking: list[str]


@asynccontextmanager
async def watched_keys(catalog: Catalog, worker: str, *, seals: bool) -> AsyncIterator[None]:
    """Read the keys again when they change, and tell the others which ones are here.

    Who `seals`, the server, also seals anew what was sealed with another key than the first: so a rotation that a
    crash has cut off is brought to its end.
    """
    task = asyncio.create_task(_Watch(catalog, worker, seals=seals).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Watch:
    def __init__(self, catalog: Catalog, worker: str, *, seals: bool) -> None:
        self._sealing = catalog.sealing
        self._worker = worker
        self._seals = seals
        self._untold = True
        """What is here now is not in the catalog yet."""
        self._complaint = ""

    async def run(self) -> None:
        while True:
            try:
                self._complain(await self._look())
            except InvalidInput as error:
                self._complain(f"the secret keys cannot be read again; the old ones stay: {error.message}")
            except Exception as error:
                if not is_outage(error):
                    log.exception("looking after the secret keys failed; it is tried again")
            await asyncio.sleep(LOOK_SECONDS)

    def _complain(self, text: str) -> None:
        """Once, not every two seconds."""
        if text and text != self._complaint:
            log.warning(text)
        self._complaint = text

    async def _look(self) -> str:
        """Look once; return what is wrong."""
        sealing, box = self._sealing, self._sealing.box
        if await asyncio.to_thread(box.refresh):
            log.info("other secret keys", keys=",".join(box.key_ids))
            self._untold = True
        if self._untold:
            await sealing.announce(self._worker)
            if self._seals:
                await sealing.set_primary()
                if done := await sealing.seal_anew():
                    log.info("records sealed anew", records=done, key=box.key_ids[0])
            self._untold = False
        needed = await sealing.primary()
        if needed is None or needed in box.key_ids:
            return ""
        return f"this worker lacks the secret key {needed}, with which the server seals: put it into {box.source.name}"


async def keys(catalog: Catalog, living: Living) -> list[KeyStatus]:
    """Return the keys of the server in their order, and behind them those that records need but nobody has."""
    sealing, needed = catalog.sealing, await catalog.sealing.needed()
    following, workers = await sealing.next_key(), await living()
    ids = sealing.box.key_ids
    found = []
    for each in [*ids, *(item for item in needed if item not in ids)]:
        state: State = "used" if needed[each] else "unused"
        state = "next" if each == following else "primary" if each == ids[0] else state
        state = state if each in ids else "missing"
        found.append(KeyStatus(each, state, needed[each], await sealing.without(each, workers)))
    return found


async def rotate(catalog: Catalog, living: Living, worker: str) -> int:
    """Let a new key follow; return how many records were sealed anew with it.

    It is put behind the others first, so that whoever has the file can open what is sealed with it; it seals once all
    living workers have it. Asked again, it goes on where it was. Raises Busy naming the workers that lack the key,
    Unsupported where the keys are in no file, PermissionDenied where the file cannot be written.
    """
    sealing, box = catalog.sealing, catalog.sealing.box
    file = _file(catalog)
    async with sealing.rotating:
        box.refresh()
        following = await sealing.next_key()
        if following is None or following not in box.key_ids:
            key = new_key()
            following = key_id(key)
            await sealing.set_next(following)
            file.write([*file.read(), key])
            box.refresh()
            await sealing.announce(worker)
        if lacking := await _lacking(catalog, following, living):
            raise Busy(
                f"The new secret key {following} is made, but these workers do not have it: {', '.join(lacking)}",
                next_step=f"Copy {file.name} to where they have theirs, or stop them; then rotate again.",
                dependents=lacking,
            )
        file.write(sorted(file.read(), key=lambda key: key_id(key) != following))
        box.refresh()
        await sealing.set_primary()
        done = await sealing.seal_anew()
        await sealing.set_next(None)
        log.info("secret key rotated", key=following, records=done)
        return done


async def retire(catalog: Catalog, wanted: str) -> None:
    """Take a key that no record needs out of the file. Raises NotFound, Conflict, Busy, and what `rotate` raises."""
    sealing, box = catalog.sealing, catalog.sealing.box
    file = _file(catalog)
    async with sealing.rotating:
        box.refresh()
        if wanted not in box.key_ids:
            raise NotFound(f"There is no secret key {wanted}", next_step="See `snapkeep key list`.")
        if wanted == box.key_ids[0]:
            raise Conflict(
                f"The secret key {wanted} seals now", next_step="Let another one follow: snapkeep key rotate"
            )
        if records := (await sealing.needed())[wanted]:
            raise Busy(
                f"{records} records still need the secret key {wanted}",
                next_step="Try again in a moment: the server seals them anew.",
            )
        if wanted == await sealing.next_key():
            await sealing.set_next(None)
        file.write([key for key in file.read() if key_id(key) != wanted])
        box.refresh()
        log.info("secret key retired", key=wanted)


def _file(catalog: Catalog) -> KeyFile:
    source = catalog.sealing.box.source
    if not isinstance(source, KeyFile):
        raise Unsupported(
            f"The secret keys come from {source.name}: the server cannot change them there",
            next_step="Put a new key behind the old one there, for all workers and the server, and then before it.",
        )
    return source


async def _lacking(catalog: Catalog, key: str, living: Living) -> list[str]:
    """Return the living workers that lack a key; those that read the same file get a moment to see it."""
    until = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        lacking = await catalog.sealing.without(key, await living())
        if not lacking or asyncio.get_running_loop().time() > until:
            return lacking
        await asyncio.sleep(0.2)
