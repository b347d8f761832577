"""Which of the recovery points of one asset a rule keeps, and why.

Each part of a rule keeps the newest point of each of the newest N periods that have one (hours, days, ISO weeks, months
and years of the time zone of the policy), as `restic forget` and BorgBackup's `prune` do; a point is kept as long as
one part keeps it. So a rule with one more part never keeps less, a time in which nothing was made uses nothing up, and
the newest point is always kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

PERIODS: Final = ("hourly", "daily", "weekly", "monthly", "yearly")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_QUARTER: Final = 900
"""Seconds: offsets of time zones change at the quarters of an hour alone (tz database, since 1970)."""
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Keep:
    """A rule: what to keep. All counts are 0 where nothing is said, and `within` is None."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta | None = None
    """All that are at most so much older than the newest one: a machine that was off for a month loses nothing."""

    @property
    def keeps_something(self) -> bool:
        """Say whether there is any part."""
        return self.within is not None or self.last > 0 or any(getattr(self, period) > 0 for period in PERIODS)


class Zone:
    """A time zone for moments in seconds since 1970: of a million of them, most are looked up."""

    def __init__(self, name: str) -> None:
        """Raises ZoneInfoNotFoundError, or ValueError for what can be no name of a zone."""
        self._zone = ZoneInfo(name)
        self._offsets: dict[int, int] = {}

    def local(self, moment: int) -> int:
        """Return local time, in seconds since 1970 as if it were UTC."""
        quarter = moment // _QUARTER
        offset = self._offsets.get(quarter)
        if offset is None:
            there = (_EPOCH + timedelta(seconds=quarter * _QUARTER)).astimezone(self._zone)
            offset = self._offsets[quarter] = round((there.replace(tzinfo=UTC) - there).total_seconds())
        return moment + offset


def judge(moments: Iterable[int], keep: Keep, zone: Zone) -> Iterator[tuple[str, ...]]:
    """Say of each point why it is kept, such as `weekly 3 of 4`; nothing: no part of the rule keeps it.

    `moments`: when the points were taken, in seconds since 1970, the newest first. Raises ValueError for another order.
    """
    periods = [_Period(name, getattr(keep, name), start) for name, start in _STARTS.items() if getattr(keep, name) > 0]
    youngest: int | None = None
    before: int | None = None
    for number, moment in enumerate(moments, 1):
        if before is not None and moment > before:
            raise ValueError("the newest must come first")
        before = moment
        if youngest is None:
            youngest = moment
        reasons = [f"last {number} of {keep.last}"] if number <= keep.last else []
        if keep.within is not None and youngest - moment <= keep.within.total_seconds():
            reasons.append(f"within {words(keep.within)}")
        if periods:
            local = zone.local(moment)
            if found := [reason for period in periods if (reason := period.take(moment, local))]:
                reasons += found
                periods = [period for period in periods if not period.is_over]
        yield tuple(reasons)


class _Period:
    """One part of a rule, on its way from the newest point to the oldest."""

    __slots__ = ("_most", "_name", "_seen", "_start", "_taken")

    def __init__(self, name: str, most: int, start: Callable[[int, int], int]) -> None:
        self._name = name
        self._most = most
        self._start = start
        self._taken = 0
        self._seen: int | None = None

    @property
    def is_over(self) -> bool:
        return self._taken >= self._most

    def take(self, moment: int, local: int) -> str:
        """Return why a point is kept, when it is the first that is met of its period; else nothing."""
        start = self._start(moment, local)
        if start == self._seen:
            return ""
        self._seen = start
        self._taken += 1
        return f"{self._name} {self._taken} of {self._most}"


@lru_cache(maxsize=100_000)
def _month(day: int) -> int:
    then = date.fromordinal(_EPOCH_DAY + day)
    return then.year * 12 + then.month


_STARTS: Final[dict[str, Callable[[int, int], int]]] = {
    "hourly": lambda moment, local: moment - local % 3600,  # an hour that comes twice in autumn is two hours
    "daily": lambda _, local: local // _DAY,
    "weekly": lambda _, local: (local // _DAY + 3) // 7,  # 1970 began on a Thursday, weeks begin on Mondays
    "monthly": lambda _, local: _month(local // _DAY),
    "yearly": lambda _, local: (_month(local // _DAY) - 1) // 12,
}
"""For each period, a number that is the same for all moments in it."""


def words(time: timedelta) -> str:
    """Return a time as it is written in a policy: `14d`, `36h`."""
    seconds = round(time.total_seconds())
    for unit, size in (("d", _DAY), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
