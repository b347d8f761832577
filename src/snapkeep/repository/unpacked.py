"""Files of a repository that are no packs: one JSON document each, compressed and encrypted as a whole."""

from __future__ import annotations

import hashlib

import zstandard

from snapkeep.model.errors import Damaged
from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.crypto import Key

_COMPRESSED = b"\x02"
_MOST = 1 << 30  # bytes of one document: a bound against a bomb, far above what anybody writes


def save_unpacked(backend: Backend, key: Key, kind: FileKind, text: bytes) -> tuple[str, int]:
    """Store a document; return its name, and its size there."""
    data = key.seal(_COMPRESSED + zstandard.ZstdCompressor(level=3).compress(text))
    name = hashlib.sha256(data).hexdigest()
    backend.save(kind, name, data)
    return name, len(data)


def load_unpacked(backend: Backend, key: Key, kind: FileKind, name: str) -> bytes:
    """Return a document. Raises NotFound, Damaged."""
    data = backend.load(kind, name)
    if hashlib.sha256(data).hexdigest() != name:
        raise Damaged(f"File {kind}/{name} does not match its checksum")
    text = key.open(data)
    if text[:1] in (b"{", b"["):  # as version 1 of the format wrote it
        return text
    if text[:1] != _COMPRESSED:
        raise Damaged(f"File {kind}/{name} has an encoding that this program does not know")
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(text[1:])
        plain = reader.read(_MOST)
    except zstandard.ZstdError as error:
        raise Damaged(f"File {kind}/{name} cannot be decompressed: {error}") from error
    if len(plain) == _MOST:
        raise Damaged(f"File {kind}/{name} is too large")
    return plain
