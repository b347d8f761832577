"""Encryption of a repository: AES-256 in counter mode, authenticated by Poly1305-AES; keys behind a password.

    sealed = IV (16 bytes) || ciphertext || MAC (16 bytes)

The MAC's one-time key is r || AES-128 of the IV under k.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import socket
import threading
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any, Self

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from snapkeep.model.errors import Damaged

OVERHEAD = 32
"""Bytes that sealing adds."""

_SCRYPT_N = 32768
_SCRYPT_R = 8
_SCRYPT_P = 3
_MOST_MEMORY = 1 << 30  # what the parameters of a key file may ask for

_tag = Poly1305.generate_tag
_random = os.urandom


class _Ciphers(threading.local):
    """The two AES contexts of a thread: to make one costs ten times what to use it costs."""

    def __init__(self, encrypt: bytes, mac_k: bytes) -> None:
        self.counter = Cipher(algorithms.AES256(encrypt), modes.CTR(bytes(16))).encryptor()
        self.block = Cipher(algorithms.AES128(mac_k), modes.ECB()).encryptor().update  # noqa: S305  (Poly1305-AES)


class Key:
    """The keys of a repository. May be pickled, so that worker processes can seal."""

    def __init__(self, encrypt: bytes, mac_k: bytes, mac_r: bytes) -> None:
        if (len(encrypt), len(mac_k), len(mac_r)) != (32, 16, 16):
            raise Damaged("The keys of the repository have a wrong length")
        self._parts = (encrypt, mac_k, mac_r)
        self._mac_r = mac_r
        self._ciphers = _Ciphers(encrypt, mac_k)

    @classmethod
    def random(cls) -> Self:
        """Return new keys."""
        return cls(secrets.token_bytes(32), secrets.token_bytes(16), secrets.token_bytes(16))

    def __reduce__(self) -> tuple[type[Key], tuple[bytes, bytes, bytes]]:
        return Key, self._parts

    def __repr__(self) -> str:
        return "Key(...)"

    def seal(self, plain: bytes) -> bytes:
        """Encrypt and authenticate."""
        ciphers = self._ciphers
        iv = _random(16)
        counter = ciphers.counter
        counter.reset_nonce(iv)
        text = counter.update(plain)
        return iv + text + _tag(self._mac_r + ciphers.block(iv), text)

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed. Raises Damaged when it is not what this key sealed."""
        if len(sealed) < OVERHEAD:
            raise Damaged("Encrypted data of the repository is too short")
        ciphers = self._ciphers
        iv = sealed[:16]
        text = sealed[16:-16]
        if not compare_digest(_tag(self._mac_r + ciphers.block(iv), text), sealed[-16:]):
            raise Damaged("Encrypted data of the repository does not match its checksum, or belongs to another key")
        ciphers.counter.reset_nonce(iv)
        return ciphers.counter.update(text)

    def to_json(self) -> bytes:
        """Return the document that a key file holds, sealed."""
        encrypt, mac_k, mac_r = (base64.b64encode(part).decode() for part in self._parts)
        return json.dumps({"mac": {"k": mac_k, "r": mac_r}, "encrypt": encrypt}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Raises Damaged."""
        try:
            keys = msgspec.json.decode(text, type=_MasterKeys)
        except msgspec.DecodeError as error:
            raise Damaged("The keys in a key file of the repository cannot be read") from error
        return cls(keys.encrypt, keys.mac.k, keys.mac.r)


class _MacKeys(msgspec.Struct):
    k: bytes
    r: bytes


class _MasterKeys(msgspec.Struct):
    mac: _MacKeys
    encrypt: bytes


class _KeyFile(msgspec.Struct):
    kdf: str
    N: int
    r: int
    p: int
    salt: bytes
    data: bytes


def make_key_file(key: Key, password: str) -> bytes:
    """Return a key file: the keys, sealed by what scrypt makes of the password."""
    salt = secrets.token_bytes(64)
    sealed = _derive(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P).seal(key.to_json())
    content: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "username": "snapkeep",
        "hostname": socket.gethostname(),
        "kdf": "scrypt",
        "N": _SCRYPT_N,
        "r": _SCRYPT_R,
        "p": _SCRYPT_P,
        "salt": base64.b64encode(salt).decode(),
        "data": base64.b64encode(sealed).decode(),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def open_key_file(content: bytes, password: str) -> Key | None:
    """Return the keys; None when the password is not this file's. Raises Damaged."""
    try:
        file = msgspec.json.decode(content, type=_KeyFile)
    except msgspec.DecodeError as error:
        raise Damaged(f"A key file of the repository cannot be read: {error}") from error
    if file.kdf != "scrypt" or file.r < 1 or file.p < 1 or not 1 < file.N <= _MOST_MEMORY // 128 // file.r:
        raise Damaged("A key file of the repository derives its key in a way that this program does not know")
    try:
        user = _derive(password, file.salt, file.N, file.r, file.p)
    except ValueError as error:
        raise Damaged(f"A key file of the repository has unusable parameters: {error}") from error
    try:
        text = user.open(file.data)
    except Damaged:
        return None
    return Key.from_json(text)


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> Key:
    memory = 128 * r * (n + p + 2) + (1 << 20)
    raw = hashlib.scrypt(password.encode("utf-8", "surrogateescape"), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=64)
    return Key(raw[:32], raw[32:48], raw[48:])
