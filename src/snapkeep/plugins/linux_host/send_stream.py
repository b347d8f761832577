"""Reading a btrfs send stream without data (`btrfs send --no-data`), as it comes, in any pieces.

Format: https://btrfs.readthedocs.io/en/latest/dev/dev-send-stream.html and the kernel's fs/btrfs/send.h, versions 1
to 3. A stream begins with `btrfs-stream\\0` and a version (u32), then come commands: length (u32), number (u16),
CRC-32C (u32), and attributes, each type (u16), length (u16) and value; all little-endian. The checksum is not looked
at: the stream comes through a pipe or an authenticated connection, and a stream without its END is not whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from snapkeep.model.errors import Incomplete

_MAGIC = b"btrfs-stream\0"
_LATEST = 3
_HEADER = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")
_U64 = struct.Struct("<Q")
_LONGEST = 1 << 20
"""No command without data is longer: names are at most 4,095 bytes, attributes of files 64 KiB."""


class Verb(IntEnum):
    """What a command does. Those that we do not know change something of what they name."""

    SUBVOLUME = 1
    SNAPSHOT = 2
    MKFILE = 3
    MKDIR = 4
    MKNOD = 5
    MKFIFO = 6
    MKSOCK = 7
    SYMLINK = 8
    RENAME = 9
    LINK = 10
    UNLINK = 11
    RMDIR = 12
    SET_XATTR = 13
    REMOVE_XATTR = 14
    WRITE = 15
    CLONE = 16
    TRUNCATE = 17
    CHMOD = 18
    CHOWN = 19
    UTIMES = 20
    END = 21
    UPDATE_EXTENT = 22
    FALLOCATE = 23
    FILE_ATTRIBUTES = 24
    ENCODED_WRITE = 25
    ENABLE_VERITY = 26


class _Attribute(IntEnum):
    UUID = 1
    INODE = 3
    PATH = 15
    PATH_TO = 16
    PATH_LINK = 17
    CLONE_UUID = 20


class Step(NamedTuple):
    """One command. Paths are those of the moment: the stream renames what lies on the way."""

    verb: int
    path: bytes
    other: bytes = b""
    """Of a rename: the new path. Of a link: a path that the file has already."""
    inode: int | None = None
    uuid: bytes = b""
    """Of SNAPSHOT and SUBVOLUME: the new snapshot's."""
    parent: bytes = b""
    """Of SNAPSHOT: the base's."""


class SendStream:
    """Takes the bytes of a stream and gives its commands."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._begun = False
        self.ended = False
        """Whether END was read: without it the stream was cut."""

    def feed(self, piece: bytes) -> Iterator[Step]:
        """Take the next bytes; yield the commands that they complete. Raises Incomplete for what is no stream."""
        data = self._bytes
        data += piece
        start = 0
        if not self._begun:
            start = len(_MAGIC) + 4
            if len(data) < start:
                return
            self._begin(bytes(data[:start]))
        while not self.ended and len(data) - start >= _HEADER.size:
            length, verb, _ = _HEADER.unpack_from(data, start)
            if length > _LONGEST:
                raise Incomplete(f"The send stream has a command of {length} bytes: it carries data, or is broken")
            end = start + _HEADER.size + length
            if len(data) < end:
                break
            yield self._step(verb, bytes(data[start + _HEADER.size : end]))
            start = end
        del data[:start]

    def _begin(self, header: bytes) -> None:
        version = int.from_bytes(header[len(_MAGIC) :], "little")
        if not header.startswith(_MAGIC) or not 1 <= version <= _LATEST:
            raise Incomplete(f"What btrfs send gives is no stream that can be read: {header!r}")
        self._begun = True

    def _step(self, verb: int, body: bytes) -> Step:
        if verb == Verb.END:
            self.ended = True
            return Step(verb, b"")
        found = dict(_attributes(body))
        inode = found.get(_Attribute.INODE)
        return Step(
            verb,
            found.get(_Attribute.PATH, b""),
            found.get(_Attribute.PATH_TO) or found.get(_Attribute.PATH_LINK) or b"",
            _U64.unpack(inode)[0] if inode is not None and len(inode) == _U64.size else None,
            found.get(_Attribute.UUID, b""),
            found.get(_Attribute.CLONE_UUID, b""),
        )


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(body):
        if at + _ATTRIBUTE.size > len(body):
            raise Incomplete("The send stream is broken: an attribute has no room")
        kind, length = _ATTRIBUTE.unpack_from(body, at)
        at += _ATTRIBUTE.size
        if at + length > len(body):
            raise Incomplete("The send stream is broken: an attribute is longer than its command")
        yield kind, body[at : at + length]
        at += length
