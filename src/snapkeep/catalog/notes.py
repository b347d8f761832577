"""What a catalog notes about itself: the proof that a secret key belongs to it, and from what others are derived."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import notes
from snapkeep.model.errors import InvalidInput, Unavailable

PROOF = "secret-key"
ROOT = "derivation-root"
SEALED = (PROOF, ROOT)
"""The notes that are sealed with the secret key."""


async def require_key(database: Database, box: SecretBox) -> None:
    """Raise InvalidInput when the keys are not those of this catalog."""
    try:
        await _opened(database, box, PROOF, {"purpose": "proof of the key"})
    except (InvalidInput, Unavailable) as error:
        raise InvalidInput(
            f"The secret key does not belong to this catalog: {error.message}",
            next_step="Give every server and worker of a catalog the same secret keys (SNAPKEEP_SECRET_KEY_FILE).",
        ) from error


async def root_key(database: Database, box: SecretBox) -> bytes:
    """Return the key from which those for other purposes than secrets are derived.

    It was drawn once for this catalog, is sealed like a secret, and stays the same when the secret key is rotated.
    """
    return bytes.fromhex((await _opened(database, box, ROOT, {"root": secrets.token_hex(32)}))["root"])


async def derived_key(database: Database, box: SecretBox, purpose: str) -> bytes:
    """Return the key for a purpose, derived from the root (HKDF, RFC 5869)."""
    root = await root_key(database, box)
    return HKDF(SHA256(), 32, salt=None, info=f"snapkeep {purpose}".encode()).derive(root)


async def _opened(database: Database, box: SecretBox, key: str, first: Mapping[str, str]) -> dict[str, str]:
    """Return what a note holds; where there is none yet, `first` is put there, unless another process was quicker."""
    query = select(notes.c.value).where(notes.c.key == key)
    async with database.connect() as connection:
        found = await connection.scalar(query)
    if found is None:
        insert = database.insert(notes).values(key=key, value=box.seal(key, first))
        async with database.begin() as connection:
            await connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]))
            found = await connection.scalar(query)
    return box.open(key, found or b"")
