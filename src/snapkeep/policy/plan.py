"""What retention would do now: each point kept or deleted, with its reason. Pure, and nothing depends on the clock.

A point is deleted only if the policy has made it, no part of the rule of its step keeps it, and nothing else does: a
hold, a lock, an incremental chain that goes on from it, an export, or that it is the only good recovery point left.
What the policy has not made itself, or made for a step or an asset that it has no more, it never deletes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from snapkeep.policy.document import Policy
from snapkeep.policy.retention import Zone, judge

LAST = "the only good recovery point left"


class Point(NamedTuple):
    """A snapshot or a recovery point, as far as retention goes by it."""

    id: str
    asset_id: str
    taken: int
    """Seconds since 1970 UTC."""
    policy: str
    """Which has made it; empty: none."""
    step: str
    kept_by: tuple[str, ...] = ()
    """What else keeps it, in words: `hold until 2027-01-01 (case 12)`."""
    is_good: bool = True
    """All of the asset can be restored from it, as far as is known."""


class Item(NamedTuple):
    """What happens to one point, and why."""

    point: Point
    deleted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """So many would go of one step and asset that a person must want it."""

    asset_id: str
    step: str
    count: int
    most: int


def plan_asset(points: Iterable[Point], policy: Policy, zone: Zone) -> list[Item]:
    """Decide about all points of one asset that is under a policy; the newest come first.

    `points`: all recovery points of the asset, whoever made them. `zone`: of the policy.
    """
    rules = policy.keeping
    over = {name: f"older than all that {keep.summary} keeps" for name, keep in rules.items()}
    newest_first = sorted(points, key=lambda point: (point.taken, point.id), reverse=True)
    verdicts: dict[str, Iterator[tuple[str, ...]]] = {}
    for name, keep in rules.items():
        own = [point.taken for point in newest_first if point.step == name and point.policy == policy.name]
        verdicts[name] = iter([("forever",)] * len(own)) if keep.forever else judge(own, keep.rule, zone)
    items = []
    for point in newest_first:
        if point.policy != policy.name:
            made = f"the policy {point.policy!r} has made it" if point.policy else "no policy has made it"
            items.append(Item(point, False, made))
        elif point.step not in rules:
            items.append(Item(point, False, f"the policy has no step {point.step!r} any more"))
        elif reasons := (*next(verdicts[point.step]), *point.kept_by):
            items.append(Item(point, False, "; ".join(reasons)))
        else:
            items.append(Item(point, True, over[point.step]))
    return _with_the_last(items)


def _with_the_last(items: list[Item]) -> list[Item]:
    """Keep the newest good point, where no other good one stays."""
    if any(item.point.is_good and not item.deleted for item in items):
        return items
    for number, item in enumerate(items):
        if item.point.is_good and item.deleted:
            return [*items[:number], Item(item.point, False, LAST), *items[number + 1 :]]
    return items


def refused(items: Sequence[Item], policy: Policy) -> list[Refused]:
    """Return where more of one asset and step would go than a run may delete by itself."""
    counts: dict[tuple[str, str], int] = {}
    for item in items:
        if item.deleted:
            key = (item.point.asset_id, item.point.step)
            counts[key] = counts.get(key, 0) + 1
    most = policy.delete_at_most
    return [Refused(asset, step, count, most) for (asset, step), count in counts.items() if count > most]


class Digest:
    """The hash of a plan: the same as long as the same points would go. Who applies a plan gives it."""

    def __init__(self) -> None:
        self._ids: list[bytes] = []

    def add(self, items: Iterable[Item]) -> None:
        """Take what goes into account."""
        self._ids.extend(hashlib.sha256(item.point.id.encode()).digest() for item in items if item.deleted)

    def hexdigest(self) -> str:
        """Return it, in 64 hexadecimal digits."""
        return hashlib.sha256(b"".join(sorted(self._ids))).hexdigest()
