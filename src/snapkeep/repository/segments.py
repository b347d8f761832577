"""Segments: side files in a cache directory that say where the blobs of some index files lie.

An index file is compressed JSON, and to read it all costs time and memory that grow with the repository. So each is
read once, and what it says is kept as sorted rows that are mapped into memory and searched there:

    head | index files that are in it | those that they supersede | checksum | packs | rows | tables

A row is the blob's id, the number of the pack, offset, length, uncompressed length. A table says for the first bits of
an id where such rows begin. A segment can always be made again: whatever is odd about one, it is thrown away.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

from snapkeep.repository.blobs import BlobId, BlobType

SUFFIX = ".segment"
ROW = struct.Struct("=32sIIII")

_MAGIC = b"snapkeep segment"
_VERSION = 1
_HEAD = struct.Struct("=16sII IIII QQ IIQ")  # in the machine's own byte order: another one cannot read the version
_WIDTH = ROW.size
_BLOCK = 4096  # rows
_number = struct.Struct("=I").unpack_from
_prefix = struct.Struct(">I").unpack_from


class Location(NamedTuple):
    """Where a blob is stored."""

    pack: bytes
    offset: int
    length: int
    uncompressed_length: int


class BadSegment(Exception):
    """The file is not what `write_segment` wrote, or is gone."""


class _Section(NamedTuple):
    """The rows of one type of blob."""

    start: int
    end: int
    shift: int
    table: memoryview


class Segment:
    """One side file, mapped. What nobody refers to any more is unmapped."""

    def __init__(self, path: Path) -> None:
        """Raises BadSegment."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise BadSegment(str(error)) from error
        try:
            self._read_head()
        except (struct.error, IndexError) as error:
            raise BadSegment("too short") from error
        self._map.madvise(mmap.MADV_RANDOM)
        self._find = self._map.find

    def _read_head(self) -> None:
        head = _HEAD.unpack_from(self._map)
        magic, version, checksum, sources, superseded, packs, _, data, trees, bits_data, bits_trees, length = head
        if (magic, version, length) != (_MAGIC, _VERSION, len(self._map)):
            raise BadSegment("another format, or another length")
        self._checksum: int = checksum
        position = _HEAD.size
        end = position + 32 * (sources + superseded)
        if self._map[end : end + 32] != hashlib.sha256(self._map[:end]).digest():
            raise BadSegment("the checksum of its head is wrong")
        names = [self._map[at : at + 32] for at in range(position, end, 32)]
        self.sources = frozenset(names[:sources])
        self.superseded = frozenset(names[sources:])
        if self.path.name != file_name(self.sources):
            raise BadSegment("it has the name of another one")
        self.rows = data + trees
        self._packs = end + 32
        self._body = self._packs
        start = self._packs + 32 * packs
        middle = start + data * _WIDTH
        tables = middle + trees * _WIDTH
        view = memoryview(self._map)
        split = tables + 4 * ((1 << bits_data) + 1)
        self._sections = (
            _Section(start, middle, 32 - bits_data, view[tables:split].cast("I")),
            _Section(middle, tables, 32 - bits_trees, view[split:].cast("I")),
        )
        self._pack_count = packs

    def find(self, blob_type: int, blob: BlobId) -> int:
        """Return where the first row of a blob is, or -1."""
        start, _, shift, table = self._sections[blob_type]
        bucket = _prefix(blob)[0] >> shift
        high = start + table[bucket + 1] * _WIDTH
        position = self._find(blob, start + table[bucket] * _WIDTH, high)
        while position != -1 and (position - start) % _WIDTH:  # across two rows: as good as impossible, but not quite
            position = self._find(blob, position + 1, high)
        return position

    def locations(self, blob_type: int, blob: BlobId) -> Iterator[Location]:
        """Yield all places of a blob."""
        end = self._sections[blob_type].end
        position = self.find(blob_type, blob)
        while position != -1:
            _, pack, *place = ROW.unpack_from(self._map, position)
            if pack < self._pack_count:
                yield Location(self._pack(pack), *place)
            position += _WIDTH
            if position >= end or self._map[position : position + 32] != blob:
                return

    def packs(self) -> Iterator[bytes]:
        """Yield the names of all packs."""
        for number in range(self._pack_count):
            yield self._pack(number)

    def sorted_rows(self, blob_type: int) -> Iterator[bytes]:
        """Yield the rows of one type."""
        start, end, _, _ = self._sections[blob_type]
        for position in range(start, end, _WIDTH):
            yield self._map[position : position + _WIDTH]

    def rows_between(self, blob_type: int, first: int, last: int) -> list[bytes]:
        """Return the rows of one type whose ids begin with one of these bytes: from `first`, before `last`."""
        section = self._sections[blob_type]
        start, end = (section.start + _WIDTH * self._rows_before(section, byte) for byte in (first, last))
        data = self._map[start:end]
        return [data[at : at + _WIDTH] for at in range(0, len(data), _WIDTH)]

    def _rows_before(self, section: _Section, byte: int) -> int:
        """Return how many rows of a section have ids that begin with a smaller byte."""
        bits = 32 - section.shift
        if bits >= 8:
            return section.table[byte << (bits - 8)]
        rows = range((section.end - section.start) // _WIDTH)
        return bisect_left(rows, byte, key=lambda row: self._map[section.start + _WIDTH * row])

    def is_sound(self) -> bool:
        """Read everything and compare it with its checksum."""
        checksum = 0
        for position in range(self._body, len(self._map), 1 << 20):
            checksum = zlib.crc32(self._map[position : position + (1 << 20)], checksum)
        return checksum == self._checksum

    def _pack(self, number: int) -> bytes:
        position = self._packs + 32 * number
        return self._map[position : position + 32]


def file_name(sources: Iterable[bytes]) -> str:
    """Return the name of the side file for these index files."""
    return hashlib.sha256(b"".join(sorted(sources))).hexdigest() + SUFFIX


def write_segment(
    directory: Path,
    sources: Collection[bytes],
    superseded: Collection[bytes],
    packs: Sequence[bytes],
    rows: Sequence[tuple[int, Iterable[bytes]]],
) -> Segment:
    """Write a side file and open it. `rows`: for each type of blob at most how many, and the rows in order."""
    path = directory / file_name(sources)
    temporary = directory / f"{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("wb") as file:
            _write(file, sources, superseded, packs, rows)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return Segment(path)


def _write(
    file: BinaryIO,
    sources: Collection[bytes],
    superseded: Collection[bytes],
    packs: Sequence[bytes],
    rows: Sequence[tuple[int, Iterable[bytes]]],
) -> None:
    names = b"".join((*sorted(sources), *sorted(superseded)))
    file.seek(_HEAD.size + len(names) + 32)
    checksum = 0

    def write(data: bytes) -> None:
        nonlocal checksum
        checksum = zlib.crc32(data, checksum)
        file.write(data)

    write(b"".join(packs))
    counts, bits, tables = [], [], []
    for most, section in rows:
        wanted = min(20, max(0, (most // 4).bit_length()))
        table = array("I", bytes(4 * ((1 << wanted) + 1)))
        counts.append(_write_rows(write, section, table, 32 - wanted))
        bits.append(wanted)
        tables.append(table)
    for table in tables:
        write(array("I", accumulate(table)).tobytes())
    length = file.tell()
    head = _HEAD.pack(
        _MAGIC, _VERSION, checksum, len(sources), len(superseded), len(packs), 0, *counts, *bits, length
    ) + names  # fmt: skip
    file.seek(0)
    file.write(head + hashlib.sha256(head).digest())


def _write_rows(write: Callable[[bytes], None], rows: Iterable[bytes], table: array[int], shift: int) -> int:
    """Write rows without repetitions, count them in `table`, and return how many they are."""
    count = 0
    last = b""
    block = []
    for row in rows:
        if row == last:
            continue
        last = row
        block.append(row)
        table[(int.from_bytes(row[:4], "big") >> shift) + 1] += 1
        if len(block) == _BLOCK:
            write(b"".join(block))
            count += _BLOCK
            block.clear()
    write(b"".join(block))
    return count + len(block)


def merge_segments(directory: Path, segments: Sequence[Segment]) -> Segment:
    """Write one side file in place of several. In memory is a small part of the rows at a time."""
    numbers: dict[bytes, int] = {}
    for segment in segments:
        for pack in segment.packs():
            numbers.setdefault(pack, len(numbers))
    return write_segment(
        directory,
        frozenset().union(*(segment.sources for segment in segments)),
        frozenset().union(*(segment.superseded for segment in segments)),
        list(numbers),
        [(sum(segment.rows for segment in segments), _merged(segments, kind, numbers)) for kind in BlobType],
    )


def _merged(segments: Sequence[Segment], blob_type: int, numbers: dict[bytes, int]) -> Iterator[bytes]:
    """Yield the rows of all, in order, with these numbers of packs."""
    renumbered = [[struct.pack("=I", numbers[pack]) for pack in segment.packs()] for segment in segments]
    for first in range(256):
        rows: list[bytes] = []
        for segment, new in zip(segments, renumbered, strict=True):
            rows += [
                row[:32] + new[_number(row, 32)[0]] + row[36:]
                for row in segment.rows_between(blob_type, first, first + 1)
            ]
        rows.sort()
        yield from rows
