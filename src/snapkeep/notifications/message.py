"""What a channel is given to send, and what became of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.model.notifications import one_line, payload

SEND_SECONDS = 25.0
"""Longest time for sending once, all together; shorter than a lease."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a channel leads: its settings, with its secrets in their places."""

    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return "Target()"

    def text(self, name: str) -> str:
        """Return a setting that is a text, empty where there is none."""
        return str(self.settings.get(name) or "")


class Result(Enum):
    """What is to be done next."""

    SENT = "sent"
    RETRY = "retry"
    NEVER = "never"
    """The other side does not want it, and will not want it later."""
    GONE = "gone"
    """The other side wants nothing any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How sending once ended."""

    result: Result
    answer: str
    """What the other side said, or why it said nothing; one line."""
    after: float | None = None
    """When the other side wants it again, in seconds."""
    left: tuple[str, ...] | None = None
    """Of an e-mail: who has not got it; None: all of them, or nobody."""

    @classmethod
    def sent(cls, answer: str) -> Outcome:
        """The other side has taken it."""
        return cls(Result.SENT, one_line(answer))

    @classmethod
    def retry(cls, answer: str, after: float | None = None, left: tuple[str, ...] | None = None) -> Outcome:
        """It may succeed later."""
        return cls(Result.RETRY, one_line(answer), after, left)

    @classmethod
    def never(cls, answer: str, *, gone: bool = False) -> Outcome:
        """It will not succeed."""
        return cls(Result.GONE if gone else Result.NEVER, one_line(answer))


def payload_of(delivery: DeliveryRecord) -> dict[str, Any]:
    """Return what is told by a delivery, always the same."""
    return payload(delivery.event, delivery.created_at, delivery.data)
