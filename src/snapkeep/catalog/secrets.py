"""Secrets at rest: AES-256-GCM, the id of the record as associated data, so no row can pose as another.

A sealed record names its key, so that several can be in use while one follows another. Those of before that had no
choice name none: version 1 is the nonce and the ciphertext, version 2 has the id of the key before them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from snapkeep.catalog.key_sources import FixedKeys, KeySource
from snapkeep.model.errors import InvalidInput, Unavailable

_FIRST_VERSION = b"\x01"
_VERSION = b"\x02"
_ID = 8
_NONCE = 12


class SecretBox:
    """Seals the secrets of records with the first of its keys, and opens them with whichever they name."""

    def __init__(self, keys: KeySource | bytes) -> None:
        """`keys`: where the keys are, or the only one. Raises InvalidInput when there is none."""
        self.source = FixedKeys((keys,)) if isinstance(keys, bytes) else keys
        self._stamp = self.source.stamp()
        self._ciphers = _ciphers(self.source.read())

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of its keys; the first one seals. An id tells nothing about its key."""
        return tuple(self._ciphers)

    def refresh(self) -> bool:
        """Read the keys again, if they may be others; say whether they are. Raises InvalidInput; then they stay."""
        stamp = self.source.stamp()
        if stamp == self._stamp:
            return False
        found = _ciphers(self.source.read())
        changed = tuple(found) != self.key_ids
        self._stamp, self._ciphers = stamp, found
        return changed

    def seal(self, record_id: str, values: Mapping[str, Any]) -> bytes:
        """Return version byte, id of the key, nonce and ciphertext."""
        key_id, cipher = next(iter(self._ciphers.items()))
        head, nonce = _VERSION + bytes.fromhex(key_id), os.urandom(_NONCE)
        plain = json.dumps(dict(values)).encode()
        return head + nonce + cipher.encrypt(nonce, plain, head + record_id.encode())

    def open(self, record_id: str, sealed: bytes) -> dict[str, Any]:
        """Return the secrets.

        Raises Unavailable when their key is not here (yet), InvalidInput when no key opens them.
        """
        return self._open(record_id, sealed)[1]

    def key_of(self, record_id: str, sealed: bytes) -> str:
        """Return the id of the key that a record needs. Raises what `open` raises."""
        if sealed[:1] == _VERSION:
            return sealed[1 : 1 + _ID].hex()
        return self._open(record_id, sealed)[0]

    def is_outdated(self, sealed: bytes) -> bool:
        """Say whether a record was sealed otherwise than it would be now."""
        return sealed[: 1 + _ID] != _VERSION + bytes.fromhex(self.key_ids[0])

    def _open(self, record_id: str, sealed: bytes) -> tuple[str, dict[str, Any]]:
        if sealed[:1] == _VERSION and len(sealed) > 1 + _ID + _NONCE:
            key_id, head, body = sealed[1 : 1 + _ID].hex(), sealed[: 1 + _ID], sealed[1 + _ID :]
            tried, associated = [(key_id, self._cipher(key_id))], head + record_id.encode()
        else:
            tried, body, associated = list(self._ciphers.items()), sealed[1:], record_id.encode()
        for key_id, cipher in tried if sealed[:1] in {_VERSION, _FIRST_VERSION} else ():
            try:
                plain = cipher.decrypt(body[:_NONCE], body[_NONCE:], associated)
            except (InvalidTag, ValueError):
                continue
            values: dict[str, Any] = json.loads(plain)
            return key_id, values
        raise InvalidInput(
            "The stored secrets cannot be opened with this key",
            next_step="Restore the secret key that belongs to this catalog, or add the system again.",
        )

    def _cipher(self, key_id: str) -> AESGCM:
        if key_id not in self._ciphers and self.source.is_quick:
            self.refresh()
        if key_id not in self._ciphers:
            raise Unavailable(
                f"The stored secrets need the secret key {key_id}, which is not in {self.source.name}",
                next_step=f"Copy the server's secret keys to {self.source.name}: they are read without a restart.",
            )
        return self._ciphers[key_id]


def key_id(key: bytes) -> str:
    """Return by what a key is called."""
    return hashlib.sha256(b"snapkeep secret key " + key).digest()[:_ID].hex()


def _ciphers(keys: tuple[bytes, ...]) -> dict[str, AESGCM]:
    return {key_id(key): AESGCM(key) for key in keys}
