"""A block: some thousands of changes as zstd-compressed msgpack. The version is the first byte."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import zstandard

from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete

BLOCK = 4096
"""Entries of a full block: large enough to compress well, small enough to be quick to reach."""

_VERSION = b"\x01"
_OPERATIONS = tuple(ChangeOperation)
_TYPES = tuple(ObjectType)
_OPERATION_NUMBER = {value: number for number, value in enumerate(_OPERATIONS)}
_TYPE_NUMBER = {value: number for number, value in enumerate(_TYPES)}

_Row = tuple[int, int, bytes, bytes | None, int, int | None, int | None, int | None, int | None]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Row])


def encode(changes: Sequence[Change]) -> bytes:
    """Return the block of these changes. A time beyond 64 bits, which anybody may give a file, counts as not told."""
    rows = [
        (
            _OPERATION_NUMBER[change.operation],
            _TYPE_NUMBER[change.type],
            change.path,
            change.old_path,
            change.size,
            change.inode,
            change.created_ns,
            change.changed_ns,
            change.accessed_ns,
        )
        for change in changes
    ]
    try:
        data = _encoder.encode(rows)
    except OverflowError:
        data = _encoder.encode([(*row[:6], *map(_time, row[6:])) for row in rows])
    return _VERSION + zstandard.ZstdCompressor(level=3).compress(data)


def _time(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None or not -(2**63) <= nanoseconds < 2**63 else nanoseconds


def decode(data: bytes) -> list[Change]:
    """Return the changes of a block. Raises Incomplete when it is damaged or of a newer version."""
    try:
        if data[:1] != _VERSION:
            raise Incomplete("A block of the change list has a version that this program does not know")
        rows = _decoder.decode(zstandard.ZstdDecompressor().decompress(data[1:]))
        return [Change(_OPERATIONS[row[0]], _TYPES[row[1]], *row[2:]) for row in rows]
    except (zstandard.ZstdError, msgspec.DecodeError, IndexError) as error:
        raise Incomplete(f"A block of the change list is damaged: {error}") from error
