"""What a policy would have made, and what would be there, after so many days: nothing is done."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from snapkeep.policy.document import KeepRule, Policy, Step
from snapkeep.policy.retention import Zone, judge


@dataclass(frozen=True, slots=True)
class Size:
    """What is assumed of an asset, to estimate storage."""

    whole: int
    """Bytes."""
    changed_a_day: int
    """Bytes that are written anew on a day."""

    def held(self, moments: list[int], *, alone: bool) -> int:
        """Estimate the bytes that points hold (oldest first) which share what did not change between them.

        Each holds what has changed until the next one, never more than the whole; the newest all of it where they
        stand `alone`, as backups do. Snapshots share it with the asset itself.
        """
        if not moments:
            return 0
        gaps = (later - sooner for sooner, later in pairwise(moments))
        changed = sum(min(self.whole, gap * self.changed_a_day // 86_400) for gap in gaps)
        return changed + self.whole if alone else changed


@dataclass(slots=True)
class Kept:
    """The points of one step."""

    step: Step
    keep: KeepRule
    moments: list[int] = field(default_factory=list)
    """Seconds since 1970, the oldest first."""
    made: int = 0
    deleted: int = 0

    def add(self, moment: int) -> None:
        """Make one."""
        self.moments.append(moment)
        self.made += 1

    def prune(self, zone: Zone) -> None:
        """Let retention go over them. Once a day leaves the same as after each run: what one part of a rule keeps no
        more, it never keeps again."""
        if self.keep.forever:
            return
        verdicts = judge(reversed(self.moments), self.keep.rule, zone)
        left = [then for then, reasons in zip(reversed(self.moments), verdicts, strict=True) if reasons]
        self.deleted += len(self.moments) - len(left)
        self.moments = left[::-1]

    def reasons(self, zone: Zone) -> list[tuple[int, str]]:
        """Return what is there with why, the newest first."""
        newest_first = self.moments[::-1]
        if self.keep.forever:
            return [(moment, "forever") for moment in newest_first]
        verdicts = judge(newest_first, self.keep.rule, zone)
        return [(moment, "; ".join(reasons)) for moment, reasons in zip(newest_first, verdicts, strict=True)]


@dataclass(frozen=True, slots=True)
class Day:
    """How it is at the end of a day of the policy's time zone."""

    date: str
    counts: dict[str, int]
    """Points of each step."""
    held_bytes: dict[str, int]
    """Estimates; nothing without a size."""
    oldest_at: dict[str, datetime]


def _due(policy: Policy, step: Step, start: datetime) -> Iterator[tuple[datetime, str]]:
    for moment in policy.schedule(step).after(start):
        yield moment, step.name


def simulate(policy: Policy, start: datetime, days: int, size: Size | None = None) -> Iterator[tuple[Day, list[Kept]]]:
    """Give each day with all that is there at its end, for one asset whose every run succeeds on time."""
    zone = Zone(policy.timezone)
    kept = {step.name: Kept(step, step.keep) for step in policy.steps if step.keep is not None}
    due = heapq.merge(*(_due(policy, one.step, start) for one in kept.values()))
    local = start.astimezone(policy.zone)
    following = next(due, None)
    for number in range(1, days + 1):
        date = (local + timedelta(days=number)).date()
        end = datetime(date.year, date.month, date.day, tzinfo=policy.zone).astimezone(UTC)
        while following is not None and following[0] < end:
            kept[following[1]].add(int(following[0].timestamp()))
            following = next(due, None)
        for one in kept.values():
            one.prune(zone)
        there = {name: one.moments for name, one in kept.items()}
        yield (
            Day(
                (date - timedelta(days=1)).isoformat(),
                {name: len(moments) for name, moments in there.items()},
                {name: size.held(one.moments, alone=one.step.do == "backup") for name, one in kept.items()}
                if size
                else {},
                {name: datetime.fromtimestamp(moments[0], UTC) for name, moments in there.items() if moments},
            ),
            list(kept.values()),
        )
