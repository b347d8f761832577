"""Watches what is covered: people are told once when an asset is late, and when it is good again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.paging import Paging
from snapkeep.model.notifications import Event, Notice
from snapkeep.operations.background import again_and_again, in_background
from snapkeep.operations.clock import Clock
from snapkeep.policy.coverage import Cover, Coverage, coverage, loaded
from snapkeep.policy.retention import words

LOOK_SECONDS: Final = 300.0
TOGETHER: Final = 100
"""Assets that are looked at together."""

_OUTSIDE: Final = frozenset({Cover.UNPROTECTED, Cover.IMPOSSIBLE})


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look over all assets has found."""

    counts: Mapping[Cover, int]
    """How many assets there are of each cover; all covers are there."""
    most_of_rpo: float
    """Of all assets with an RPO, the greatest age of a last good recovery point, as a multiple of that RPO; 0: there is
    none."""
    at: float
    """Monotonic seconds of this process."""


class Watcher:
    """Watches in this process; others may do so at the same time: each change is told by one."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self.seen: Seen | None = None
        """What the last look has found; None: there was none yet."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do so in the background."""
        rest = partial(self._clock.sleep, LOOK_SECONDS)
        async with in_background(again_and_again("watching what is covered", self.look, rest)):
            yield

    async def look(self) -> None:
        """Look at all assets once, some at a time."""
        policies = await loaded(self._catalog)
        counts, most, after = dict.fromkeys(Cover, 0), 0.0, ""
        while True:
            assets = await self._catalog.inventory.assets(paging=Paging(after=after, limit=TOGETHER))
            found = await coverage(self._catalog, assets, policies, self._clock.now())
            for one in found:
                counts[one.cover] += 1
                if one.age is not None and one.rpo is not None:
                    most = max(most, one.age / one.rpo)
            await self._tell(found)
            if assets.next is None:
                break
            after = assets.next
        await self._catalog.late_assets.forget_gone()
        self.seen = Seen(counts, most, self._clock.monotonic())

    @property
    def age(self) -> float | None:
        """How many seconds ago the last look ended; None: there was none yet."""
        return None if self.seen is None else self._clock.monotonic() - self.seen.at

    async def _tell(self, found: list[Coverage]) -> None:
        """Note what has changed of some assets, and have it told."""
        known = await self._catalog.late_assets.of([one.asset.id for one in found])
        now = self._clock.now()
        late: dict[str, Notice | None] = {}
        good: dict[str, Notice | None] = {}
        for one in found:
            since, told = known.get(one.asset.id, (now, False))
            if one.cover is Cover.LATE:
                if _is_to_be_told(one, since, now) and not told:
                    late[one.asset.id] = _missed(one)
                elif one.asset.id not in known:
                    late[one.asset.id] = None
            elif one.asset.id in known:
                good[one.asset.id] = None if one.cover in _OUTSIDE else _recovered(one)
        await self._catalog.late_assets.change(late, good, now)


def _is_to_be_told(one: Coverage, since: datetime, now: datetime) -> bool:
    """Say whether it is time: an asset that never had a good recovery point has its RPO to get the first."""
    return one.age is not None or one.rpo is None or not now - one.rpo < since <= now


def _missed(one: Coverage) -> Notice:
    rpo = words(one.rpo) if one.rpo is not None else ""
    last = one.last_good
    there = (
        f"the last one is of {last.taken:%Y-%m-%d %H:%M} UTC" if last is not None and last.taken else "there is none"
    )
    return _notice(
        one,
        Event.PROTECTION_MISSED,
        f"{one.asset.reference} has no good recovery point of the last {rpo}: {there}",
        "See why: `snapkeep coverage --problems`, and `snapkeep operation list --state failed`.",
    )


def _recovered(one: Coverage) -> Notice:
    return _notice(one, Event.PROTECTION_RECOVERED, f"{one.asset.reference} is protected again as promised")


def _notice(one: Coverage, event: Event, message: str, next_step: str = "") -> Notice:
    last = one.last_good
    details = {
        "policies": list(one.policies),
        "rpo": words(one.rpo) if one.rpo is not None else None,
        "last_good": last.reference if last is not None else None,
        "last_good_at": last.taken.isoformat() if last is not None and last.taken is not None else None,
    }
    return Notice(
        event=event,
        message=message,
        next_step=next_step,
        system=one.asset.system_name,
        subject=one.asset.reference,
        details=details,
    )
