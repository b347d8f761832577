"""What keeps a recovery point: holds, and locks with a date."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProtectionKind(StrEnum):
    """What keeps it."""

    HOLD = "hold"
    """Until somebody who may releases it, or until its date."""
    LOCK = "lock"
    """Until its date."""


class LockMode(StrEnum):
    """Who may let a lock end sooner."""

    GOVERNANCE = "governance"
    """Who has the right to shorten locks."""
    COMPLIANCE = "compliance"
    """Nobody."""


@dataclass(frozen=True, slots=True)
class Cooling:
    """What slows down a mass deletion: within an hour, so many deletions begin at once, and further ones later."""

    limit: int | None = 20
    """None: any number."""
    hours: int = 4
    """After how long a further one begins; until then it can be cancelled."""
