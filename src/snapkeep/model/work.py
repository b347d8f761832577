"""What passes between the engine and a plug-in while long work goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from snapkeep.model.assets import Asset
from snapkeep.model.changes import Change
from snapkeep.model.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Ticket:
    """The receipt of started work: small, JSON-safe, enough to poll it from another process."""

    data: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> str:
        return self.data[key]


@dataclass(frozen=True, slots=True)
class Pending:
    """The work goes on. Ask again `after` seconds; `progress` is 0..1, None when the system does not say."""

    after: float = 1.0
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The work came to its end and there is nothing more to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryBatch:
    """Some of what lies on a system. An asset comes before its snapshots; a child may come before its parent.

    `cursor` resumes after this batch; `complete` is true on the last one and on it only.
    """

    assets: Sequence[Asset] = ()
    snapshots: Sequence[Snapshot] = ()
    cursor: str
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBatch:
    """Some of a change list. `cursor` resumes after this batch; `complete` is true on the last one only."""

    changes: Sequence[Change] = ()
    cursor: str
    complete: bool = False


class Outcome(StrEnum):
    """The verdict of one check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `system check`: what was looked at, the verdict, and what to do about it."""

    check: str
    outcome: Outcome
    message: str
    next_step: str = ""
