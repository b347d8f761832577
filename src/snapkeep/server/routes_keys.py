"""The keys of the stored secrets. No key ever comes here: only what they are called."""

from __future__ import annotations

from fastapi import APIRouter, status
from pydantic import Field

from snapkeep.catalog.records import WorkerState
from snapkeep.model.access import Action
from snapkeep.server.access import allow
from snapkeep.server.context import Context, Parts
from snapkeep.server.keys import KeyStatus, State, keys, retire, rotate
from snapkeep.server.schemas import Out, Page

router = APIRouter(tags=["keys"], dependencies=[allow(Action.KEY_ROTATE)])


class KeyOut(Out):
    """A key of the stored secrets."""

    id: str = Field(description="By what it is called; it tells nothing about the key.")
    state: State = Field(
        description="primary: it seals. next: it was made to follow. used, unused: whether records need it. missing: "
        "records need it, and the server does not have it."
    )
    records: int = Field(description="How many records need it.")
    lacking: list[str] = Field(description="Living workers that do not have it.")

    @classmethod
    def of(cls, key: KeyStatus) -> KeyOut:
        """Map the status."""
        return cls(id=key.id, state=key.state, records=key.records, lacking=key.lacking)


class RotationOut(Out):
    """A rotation that came to its end."""

    key: str = Field(description="The key that seals now.")
    records: int = Field(description="How many records were sealed anew.")


@router.get("/keys")
async def list_keys(parts: Parts) -> Page[KeyOut]:
    """List the keys of the stored secrets: which one seals, and which ones are still needed."""
    return Page(data=[KeyOut.of(key) for key in await keys(parts.catalog, lambda: _living(parts))])


@router.post("/keys/rotate")
async def rotate_key(parts: Parts) -> RotationOut:
    """Let a new key follow the one that seals, and seal everything anew. Asked again, it goes on where it was."""
    records = await rotate(parts.catalog, lambda: _living(parts), parts.host.name)
    return RotationOut(key=parts.catalog.sealing.box.key_ids[0], records=records)


@router.delete("/keys/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
async def retire_key(key_id: str, parts: Parts) -> None:
    """Take out a key that no record needs. Backups of the catalog from before need it to be opened."""
    await retire(parts.catalog, key_id)


async def _living(parts: Context) -> list[str]:
    limit = parts.operations.takeover_seconds
    return [item.name for item in await parts.catalog.workers.find() if item.state(limit) is WorkerState.ALIVE]
