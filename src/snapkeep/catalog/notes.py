"""What a catalog notes about itself: the proof that a secret key belongs to it."""

from __future__ import annotations

from sqlalchemy import select

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import notes
from snapkeep.model.errors import InvalidInput

_PROOF = "secret-key"


async def require_key(database: Database, box: SecretBox) -> None:
    """Raise InvalidInput when the key is not the one with which this catalog was begun."""
    proof = box.seal(_PROOF, {"purpose": "proof of the key"})
    insert = database.insert(notes).values(key=_PROOF, value=proof).on_conflict_do_nothing(index_elements=["key"])
    async with database.connect() as connection:
        found = await connection.scalar(select(notes.c.value).where(notes.c.key == _PROOF))
    if found is None:
        async with database.begin() as connection:
            await connection.execute(insert)
            found = await connection.scalar(select(notes.c.value).where(notes.c.key == _PROOF))
    try:
        box.open(_PROOF, found or b"")
    except InvalidInput as error:
        raise InvalidInput(
            "The secret key does not belong to this catalog",
            next_step="Give every server and worker of a catalog the same file secret.key (SNAPKEEP_SECRET_KEY_FILE).",
        ) from error
