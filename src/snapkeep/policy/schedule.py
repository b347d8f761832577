"""When something is due: cron in a time zone, with days without it, and hours in which it may begin.

Days on which the clocks change go by Debian's cron(8), as `cronsim` computes it: what is to run at fixed times runs
once on each day, right after the gap in spring and the first time in autumn; what has a `*` in minutes or hours goes by
the time that really passes, so that what does not come in spring is not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

LONGEST_JITTER = timedelta(hours=12)
_MOST_STEPS = 3660


@dataclass(frozen=True, slots=True)
class Window:
    """Hours in which something may begin, in local time; one that ends before it begins goes over midnight."""

    begin: time
    end: time

    def __contains__(self, local: datetime) -> bool:
        at = local.time()
        if self.begin <= self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is to run. Raises ValueError for what is no cron expression, or never comes."""

    cron: str
    zone: ZoneInfo
    jitter: timedelta = timedelta(0)
    """So much later at most, for each asset always the same: so that not all begin in the same second."""
    window: Window | None = None
    """When it may begin; what is due outside of it waits."""
    blackout: frozenset[date] = frozenset()
    """Local days on which nothing is due."""

    def __post_init__(self) -> None:
        try:
            next(CronSim(self.cron, datetime(2000, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise ValueError(f"{self.cron!r} is no cron expression: {error}") from error
        except StopIteration as error:
            raise ValueError(f"{self.cron!r} never comes") from error
        if len(self.cron.split()) != 5:
            raise ValueError(f"{self.cron!r} has not five fields: minute, hour, day, month, day of the week")

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Give the moments after one at which it is due, in UTC, without end, the jitter left out."""
        previous = moment
        for due in CronSim(self.cron, moment.astimezone(self.zone)):
            exact = due.astimezone(UTC)
            if exact > previous and due.date() not in self.blackout:
                previous = exact
                yield exact

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Give the moments at which it is due after one moment and not after another."""
        return takewhile(lambda due: due <= until, self.after(after))

    def delay(self, *parts: str) -> timedelta:
        """Return by how much later the one begins that is named by some texts."""
        digest = hashlib.sha256("\0".join(parts).encode()).digest()
        return timedelta(seconds=int(self.jitter.total_seconds() * int.from_bytes(digest[:4], "big") / 2**32))

    def begin(self, moment: datetime) -> datetime | None:
        """Return the first moment from one on at which something may begin; None: there is none within ten years."""
        if self.window is None and not self.blackout:
            return moment
        for _ in range(_MOST_STEPS):
            local = moment.astimezone(self.zone)
            if local.date() in self.blackout:
                moment = self._at(local.date() + timedelta(days=1), time(0))
            elif self.window is not None and local not in self.window:
                opening = self._at(local.date(), self.window.begin)
                moment = opening if opening > moment else self._at(local.date() + timedelta(days=1), self.window.begin)
            else:
                return moment
        return None

    def _at(self, day: date, at: time) -> datetime:
        """Return a local time of a day; one that does not come, when clocks are set forward: as if they were not."""
        return datetime.combine(day, at, self.zone).astimezone(UTC)
