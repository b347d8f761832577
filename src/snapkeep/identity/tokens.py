"""Tokens: 256 random bits with a prefix by which scanners of secrets know them; kept as their SHA-256.

A slow hash would protect a secret that can be guessed; these cannot.
"""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "skt_"


def new_token() -> str:
    """Return a new token."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
