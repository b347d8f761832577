"""What will be done, drawn from the seed before anything runs: the strikes of the killer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Store = Literal["sqlite", "postgresql"]

SETTLED = 0.75
"""How often the killer first waits until its victims, and what all need, are up; else it also hits what is starting."""
TWO_AT_ONCE = 0.12
LONGEST_PAUSE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is asked to do."""

    kills: int
    seed: int
    store: Store = "sqlite"
    workers: int = 3
    victims: tuple[str, ...] = ()
    """Which may be killed; empty: all."""
    clients: int = 6
    keep: Path | None = None
    """Where logs and data stay; otherwise they stay after a failure only."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One moment of the killer: who is killed, and for how long each stays dead."""

    victims: tuple[str, ...]
    settled: bool
    after: float
    pauses: tuple[float, ...]


def strikes(options: Options, names: Sequence[str]) -> list[Strike]:
    """Draw strikes that kill exactly `options.kills` times."""
    chance = random.Random(f"{options.seed} killer")
    drawn: list[Strike] = []
    left = options.kills
    while left:
        count = 2 if chance.random() < TWO_AT_ONCE and left > 1 and len(names) > 1 else 1
        settled = chance.random() < SETTLED
        drawn.append(
            Strike(
                tuple(chance.sample(list(names), count)),
                settled,
                chance.uniform(0.0, 1.5 if settled else 0.8),
                tuple(chance.uniform(0.0, LONGEST_PAUSE) for _ in range(count)),
            )
        )
        left -= count
    return drawn
