"""Packs: files of blobs, with a header at the end that says what is in them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

from snapkeep.model.errors import Damaged
from snapkeep.repository.blobs import BlobId, BlobType, open_blob
from snapkeep.repository.crypto import OVERHEAD, Key

PACK_SIZE = 16 << 20
"""A pack is closed when it has grown to this."""

MAX_BLOBS = 350_000
"""A pack of more blobs would have a header larger than restic reads."""

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")


class Entry(NamedTuple):
    """Where a blob lies in its pack."""

    type: int
    id: BlobId
    offset: int
    length: int
    uncompressed_length: int


def pack_end(key: Key, entries: Iterable[Entry]) -> bytes:
    """Return what a pack has behind its blobs, which lie one behind the other: the header, and its length."""
    header = b"".join(
        _COMPRESSED.pack(entry.type + 2, entry.length, entry.uncompressed_length, entry.id)
        if entry.uncompressed_length
        else _PLAIN.pack(entry.type, entry.length, entry.id)
        for entry in entries
    )
    sealed = key.seal(header)
    return sealed + struct.pack("<I", len(sealed))


def read_header(key: Key, tail: bytes, size: int) -> list[Entry] | int:
    """Return what a pack of `size` bytes holds, given its last bytes; or how many of them that takes.

    Raises Damaged.
    """
    if len(tail) < 4:
        raise Damaged("A pack is too short")
    length = int.from_bytes(tail[-4:], "little")
    if not OVERHEAD < length <= size - 4:
        raise Damaged("A pack has no header at its end")
    if len(tail) < length + 4:
        return length + 4
    header = key.open(tail[-4 - length : -4])
    entries = []
    offset = position = 0
    try:
        while position < len(header):
            kind = header[position]
            if kind in (2, 3):
                _, stored, plain, blob = _COMPRESSED.unpack_from(header, position)
                position += _COMPRESSED.size
            elif kind in (0, 1):
                (_, stored, blob), plain = _PLAIN.unpack_from(header, position), 0
                position += _PLAIN.size
            else:
                raise Damaged(f"A pack holds a blob of the unknown type {kind}")
            entries.append(Entry(kind & 1, blob, offset, stored, plain))
            offset += stored
    except struct.error as error:
        raise Damaged("The header of a pack ends too early") from error
    if offset != size - length - 4:
        raise Damaged("The header of a pack does not match its size")
    return entries


def verify_pack(key: Key, name: str, data: bytes) -> list[Entry]:
    """Check a whole pack: its name, its header, and the content of every blob. Raises Damaged."""
    if hashlib.sha256(data).hexdigest() != name:
        raise Damaged(f"Pack {name} does not match its checksum")
    entries = read_header(key, data, len(data))
    assert not isinstance(entries, int)  # noqa: S101  (the whole pack is there)
    for entry in entries:
        blob = data[entry.offset : entry.offset + entry.length]
        open_blob(key, entry.id, blob, entry.uncompressed_length)
    return entries


def type_name(blob_type: int) -> str:
    """Return the name that index files use."""
    return "tree" if blob_type == BlobType.TREE else "data"
