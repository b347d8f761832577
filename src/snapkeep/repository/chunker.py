"""Where files are cut into chunks: restic's Rabin fingerprint, with the very same cuts.

A chunk ends where the fingerprint of the 64 bytes before has 20 zero bits at its end. It has at least 512 KiB (but for
the last one of a file) and at most 8 MiB. So an insertion into a file changes the chunks around it and no others. The
polynomial is the repository's own: the sizes of chunks tell nobody who lacks it what a file holds.

The inner loop is in C (`_chunker.c`) and lets other threads run meanwhile. Where it was not compiled, the same loop in
Python does it, many times slower.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator

from snapkeep.model.errors import InvalidInput

MIN_SIZE = 512 * 1024
MAX_SIZE = 8 * 1024 * 1024
DEGREE = 53
"""Of each repository's polynomial."""

_WINDOW = 64
_MASK = (1 << 20) - 1

_Data = bytes | bytearray | memoryview
_Scan = Callable[[bytes, _Data, int, int], int]


class Chunker:
    """Finds the cuts of one file after the other. It remembers some bytes and keeps no data; not for two threads."""

    def __init__(self, polynomial: int) -> None:
        self._tables = _tables(polynomial)
        self._scan = _fastest_scan()
        self._length = 0  # of the chunk that is open
        self._before = bytes(_WINDOW)  # the last bytes of what was given so far

    def cuts(self, data: _Data, *, final: bool = False) -> list[int]:
        """Return the offsets in `data` at which chunks end. `data` is the next part of the file, of any size.

        With `final` the file ends here, and so does its last chunk; the next call begins a new file.
        """
        with memoryview(data) as original, original.cast("B") as view:
            found = list(self._ends(view))
            if final:
                end = found[-1] if found else -self._length
                self._length = 0
                return [*found, len(view)] if end < len(view) else found
            self._length = len(view) - found[-1] if found else self._length + len(view)
            self._before = (self._before + bytes(view[-_WINDOW:]))[-_WINDOW:]
            return found

    def _ends(self, view: memoryview) -> Iterator[int]:
        start = -self._length
        while (end := self._next_end(view, start)) is not None:
            yield end
            start = end

    def _next_end(self, view: memoryview, start: int) -> int | None:
        """Return where the chunk ends that began at `start`, which may lie before the view; None: not in here."""
        first = max(start + MIN_SIZE, 1)
        last = start + MAX_SIZE
        stop = min(last, len(view)) + 1
        if first < min(_WINDOW, stop):  # the window reaches back into what was given before
            edge = min(_WINDOW, stop)
            found = self._scan(self._tables, self._before + view[:edge], first + _WINDOW, edge + _WINDOW) - _WINDOW
            if found >= 0:
                return found
            first = edge
        if first < stop:
            found = self._scan(self._tables, view, first, stop)
            if found >= 0:
                return found
        return last if last < stop else None


def scan(tables: bytes, data: _Data, first: int, last: int, /) -> int:
    """Return the first position in [first, last) at which a chunk may end, or -1. The inner loop, in Python."""
    out, mod = _unpacked(tables)
    value = 0
    for byte in data[first - _WINDOW : first]:
        value = (value << 8 | byte) ^ mod[value >> 45]
    if not value & _MASK:
        return first
    leaving = memoryview(data)[first - _WINDOW : last - 1 - _WINDOW]
    for position, (old, byte) in enumerate(zip(leaving, memoryview(data)[first : last - 1], strict=True), first + 1):
        value ^= out[old]
        value = (value << 8 | byte) ^ mod[value >> 45]
        if not value & _MASK:
            return position
    return -1


@functools.cache
def _fastest_scan() -> _Scan:
    try:
        from snapkeep.repository import _chunker  # noqa: PLC0415  (it may be absent)
    except ImportError:
        import structlog  # noqa: PLC0415  (to import it takes every reader process a while)

        log = structlog.get_logger(__name__)
        log.warning("the chunker was not compiled: backups read many times slower", next_step="install with a compiler")
        return scan
    return _chunker.scan


@functools.cache
def _tables(polynomial: int) -> bytes:
    """Return what a byte is worth when it leaves the window (256 numbers), and the 8 highest bits when shifted out."""
    if polynomial.bit_length() != DEGREE + 1:
        raise InvalidInput(f"The chunker's polynomial must have degree {DEGREE}, not {polynomial.bit_length() - 1}")
    mod = [remainder(byte << DEGREE, polynomial) | byte << DEGREE for byte in range(256)]
    out = []
    for byte in range(256):
        value = byte
        for _ in range(_WINDOW - 1):
            value = (value << 8) ^ mod[value >> 45]
        out.append(value)
    return struct.pack("=512Q", *out, *mod)


@functools.cache
def _unpacked(tables: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    numbers = struct.unpack("=512Q", tables)
    return numbers[:256], numbers[256:]


def remainder(value: int, polynomial: int) -> int:
    """Return the remainder of a division of polynomials over GF(2)."""
    while (shift := value.bit_length() - polynomial.bit_length()) >= 0:
        value ^= polynomial << shift
    return value
