"""Passwords: kept as argon2id (RFC 9106), tried in as much time for names that nobody has."""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from snapkeep.model.errors import InvalidInput

LEAST, MOST = 12, 1024
"""Characters of a password."""

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


@cache
def _nobodys() -> str:
    return _hasher.hash("the password of nobody")


_at_once = asyncio.Semaphore(2)
"""Each takes 64 MiB for a moment: who tries many at once waits, and does not fill the memory."""


def require_password(password: str) -> None:
    """Raise InvalidInput for one that is too short to be one."""
    if not LEAST <= len(password) <= MOST or len(set(password)) < 5:
        raise InvalidInput(
            f"A password has {LEAST} to {MOST} characters, of at least five kinds",
            next_step="Take a sentence, or let a password manager make one.",
        )


async def hash_password(password: str) -> str:
    """Return what is kept of a password. Raises InvalidInput."""
    require_password(password)
    async with _at_once:
        return await asyncio.to_thread(_hasher.hash, password)


async def is_password(kept: str | None, password: str) -> bool:
    """Say whether it is the password; without one that is kept, no, in the same time."""
    if len(password) > MOST:
        return False

    def verify() -> bool:
        try:
            _hasher.verify(kept or _nobodys(), password)
        except (VerifyMismatchError, InvalidHashError):
            return False
        return kept is not None

    async with _at_once:
        return await asyncio.to_thread(verify)


def is_outdated(kept: str) -> bool:
    """Say whether it was kept with other parameters than those of today."""
    return _hasher.check_needs_rehash(kept)
