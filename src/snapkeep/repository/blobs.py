"""Blobs: pieces of files, and trees; each is known by the SHA-256 of its content."""

from __future__ import annotations

import hashlib
import threading
from enum import IntEnum
from typing import NamedTuple

import zstandard

from snapkeep.model.errors import Damaged
from snapkeep.repository.crypto import Key

BlobId = bytes
"""SHA-256 of the plain content: 32 bytes."""


class BlobType(IntEnum):
    """What a blob holds. The numbers are the format's."""

    DATA = 0
    TREE = 1


class SealedBlob(NamedTuple):
    """A blob as it is stored: compressed, encrypted."""

    type: BlobType
    id: BlobId
    sealed: bytes
    uncompressed_length: int
    """0: it is stored as it is, since compression made it no smaller."""


_LEVELS = {BlobType.DATA: 3, BlobType.TREE: 1}
"""Of compression. Trees become no smaller by a higher one, and are most of what an incremental backup writes."""


class _Zstd(threading.local):
    def __init__(self) -> None:
        self.compress = {kind: zstandard.ZstdCompressor(level=level).compress for kind, level in _LEVELS.items()}
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()
_sha256 = hashlib.sha256


def seal_blob(key: Key, type: BlobType, plain: bytes, id: BlobId | None = None) -> SealedBlob:
    """Make a blob ready to be added. Pure, and nearly all the work: any process can do it.

    `id`: the SHA-256 of `plain`, when the caller knows it.
    """
    if id is None:
        id = _sha256(plain).digest()
    packed = _zstd.compress[type](plain)
    length = len(plain)
    if len(packed) < length:
        return SealedBlob(type, id, key.seal(packed), length)
    return SealedBlob(type, id, key.seal(plain), 0)


def open_blob(key: Key, id: BlobId, sealed: bytes, uncompressed_length: int) -> bytes:
    """Return the plain content. Raises Damaged when it is not what was stored."""
    plain = key.open(sealed)
    if uncompressed_length:
        try:
            plain = _zstd.decompress(plain, max_output_size=uncompressed_length)
        except zstandard.ZstdError as error:
            raise Damaged(f"Blob {id.hex()} cannot be decompressed: {error}") from error
    if _sha256(plain).digest() != id:
        raise Damaged(f"Blob {id.hex()} does not match its checksum")
    return plain
