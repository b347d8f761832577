"""Secrets at rest: AES-256-GCM, the id of the record as associated data, so no row can pose as another."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from snapkeep.model.errors import InvalidInput

_VERSION = b"\x01"
_NONCE = 12
_KEY = 32


class SecretBox:
    """Seals and opens the secrets of records with one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY:
            raise InvalidInput("The secret key must be 32 bytes", next_step="Restore the key file from its backup.")
        self._cipher = AESGCM(key)

    def seal(self, record_id: str, values: Mapping[str, str]) -> bytes:
        """Return version byte, nonce and ciphertext."""
        nonce = os.urandom(_NONCE)
        plain = json.dumps(dict(values)).encode()
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, record_id.encode())

    def open(self, record_id: str, sealed: bytes) -> dict[str, str]:
        """Return the secrets. Raises InvalidInput when the key is another one or the bytes were changed."""
        nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            values: dict[str, str] = json.loads(self._cipher.decrypt(nonce, body, record_id.encode()))
        except (InvalidTag, ValueError) as error:
            raise InvalidInput(
                "The stored secrets cannot be opened with this key",
                next_step="Restore the secret key that belongs to this catalog, or add the system again.",
            ) from error
        return values


def load_key(path: Path) -> bytes:
    """Read the key, or make it at first start: base64, readable by the owner only."""
    if not path.exists():
        _make_key(path)
    return read_key(path)


def read_key(path: Path) -> bytes:
    """Read the key. Raises InvalidInput when there is none."""
    try:
        return base64.b64decode(path.read_bytes().strip(), validate=True)
    except OSError as error:
        raise InvalidInput(
            f"The secret key cannot be read from {path}: {error.strerror}",
            next_step="Copy secret.key from the server's data directory, and name it by SNAPKEEP_SECRET_KEY_FILE.",
        ) from error
    except ValueError as error:
        raise InvalidInput(f"{path} does not hold a key", next_step="Restore it from its backup.") from error


def _make_key(path: Path) -> None:
    """Write a new key so that the file is there whole or not at all; one that exists is never replaced."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(_KEY)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
