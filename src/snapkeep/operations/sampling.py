"""How random the content of changed files is: a few pieces are read while the snapshot is mounted."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog

from snapkeep.backup.reading import opened
from snapkeep.catalog.fencing import Superseded
from snapkeep.catalog.outages import is_outage
from snapkeep.model.changes import Change
from snapkeep.operations.run import Unwanted
from snapkeep.signals.entropy import PIECE, SMALLEST, EntropySample, choose, shannon

SECONDS = 20.0
"""After that nothing further is looked at: a backup does not wait for a sample."""

_BLOCK = 4096
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = structlog.get_logger(__name__)


def sample_entropy(
    source: Path, changes: Callable[[], Iterable[Change]], seed: int, stop: Callable[[], None]
) -> EntropySample | None:
    """Read pieces of some changed files below a directory. None when that was not possible: no backup fails by it.

    What cannot be read is counted. Raises what `stop` raises, and that the catalog is away.
    """
    try:
        return _sample(source, changes(), seed, stop)
    except (Unwanted, Superseded):
        raise
    except Exception as error:
        if is_outage(error):
            raise
        log.warning("changed files could not be sampled", exc_info=error)
        return None


def _sample(source: Path, changes: Iterable[Change], seed: int, stop: Callable[[], None]) -> EntropySample:
    end = time.monotonic() + SECONDS
    chosen = choose(_bounded(changes, end, stop), seed)
    bits, unreadable = [], 0
    top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for candidate in chosen:
            stop()
            if time.monotonic() >= end:
                break
            try:
                data = _read(top, candidate.path, candidate.offset)
            except OSError:
                unreadable += 1
                continue
            if len(data) >= SMALLEST:
                bits.append(shannon(data))
    finally:
        os.close(top)
    return EntropySample(sum(bits) / len(bits) if bits else 0.0, len(bits), unreadable)


def _bounded(changes: Iterable[Change], end: float, stop: Callable[[], None]) -> Iterator[Change]:
    """Give changes as long as there is time: of a list of many millions, the sample is of those that come first."""
    for number, change in enumerate(changes):
        if number % _BLOCK == 0:
            stop()
            if time.monotonic() >= end:
                return
        yield change


def _read(top: int, path: bytes, offset: int) -> bytes:
    """Return a piece of a file; nothing of what is none. Never through a symbolic link."""
    parent, _, name = path.rpartition(b"/")
    with opened(top, parent) as here:
        file = os.open(name, _FILE, dir_fd=here)
    try:
        return os.pread(file, PIECE, offset) if stat.S_ISREG(os.fstat(file).st_mode) else b""
    finally:
        os.close(file)
