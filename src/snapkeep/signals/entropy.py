"""How random the content of changed files is: of a few files, a piece of each.

Encrypted data cannot be told from random data, and that has almost 8 bits of entropy per byte (Shannon, "A Mathematical
Theory of Communication", 1948). So has compressed data: an asset is held against its own usual values alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from snapkeep.model.changes import Change, ChangeOperation, ObjectType

FILES = 64
"""So many files of a change list are looked at."""
PIECE = 16 << 10
"""Bytes that are read of each, at a place that the seed chooses."""
SMALLEST = 1 << 10
"""Bytes of the smallest file that says something: n bytes have log2(n) bits at most."""

_CONTENT = frozenset({ChangeOperation.MODIFY, ChangeOperation.RENAME})
"""Of these is known that there was content before. New files say little: people import photos."""
_FILES = frozenset({ObjectType.FILE, ObjectType.HARD_LINK})


class Candidate(NamedTuple):
    """A file to look at: its path, and where its piece is."""

    path: bytes
    offset: int


class EntropySample(NamedTuple):
    """What was found: mean entropy in bits per byte (0 to 8), of so many files; others could not be read."""

    bits: float
    files: int
    unreadable: int


def shannon(data: bytes) -> float:
    """Return the entropy of bytes, H = -sum(p * log2(p)), in bits per byte: 0 to 8; of nothing, 0."""
    if not data:
        return 0.0
    counts = Counter(data).values()
    return max(0.0, math.log2(len(data)) - sum(count * math.log2(count) for count in counts) / len(data))


def choose(changes: Iterable[Change], seed: int, files: int = FILES) -> list[Candidate]:
    """Return files that were modified or renamed, each as likely as any other; the same for the same seed.

    Memory does not grow with the list. Algorithm L of Li, "Reservoir-Sampling Algorithms of Time Complexity
    O(n(1+log(N/n)))", ACM TOMS 20 (1994): chance is asked only for those that are taken.
    """
    chance = random.Random(seed)
    taken: list[Change] = []
    weight, following = math.exp(math.log(1 - chance.random()) / files), 0
    wanted = (
        change
        for change in changes
        if change.operation in _CONTENT and change.type in _FILES and change.size >= SMALLEST
    )
    for number, change in enumerate(wanted):
        if number < files:
            taken.append(change)
            following = number
            if number + 1 < files:
                continue
        elif number == following:
            taken[chance.randrange(files)] = change
            weight *= math.exp(math.log(1 - chance.random()) / files)
        else:
            continue
        following += int(math.log(1 - chance.random()) / math.log1p(-weight)) + 1 if weight < 1 else 1
    return [Candidate(change.path, chance.randrange(max(1, change.size - PIECE + 1))) for change in taken]
