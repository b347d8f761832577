"""What docs/how-to/policies.md promises, computed as it is written there: slowly, and by nothing of the product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)

PERIODS: Mapping[str, Callable[[datetime, datetime], object]] = {
    # An hour that comes twice in autumn is two hours; days and all that is longer are those of the wall calendar.
    "hourly": lambda utc, _: (utc.date(), utc.hour),
    "daily": lambda _, local: local.date(),
    "weekly": lambda _, local: local.isocalendar()[:2],
    "monthly": lambda _, local: (local.year, local.month),
    "yearly": lambda _, local: local.year,
}
"""Which period a point is of, in a zone whose offset is of whole hours."""


def kept(points: Iterable[datetime], rule: Mapping[str, int], zone: ZoneInfo) -> set[datetime]:
    """Return what a rule keeps of all points that were ever made: "each part of `keep` keeps the newest point of each
    of the newest periods that have one, and a point stays as long as one part keeps it"."""
    newest_first = sorted(points, reverse=True)
    local = {point: point.astimezone(zone) for point in newest_first}
    found = set(newest_first[: rule.get("last", 0)])
    for part, period in PERIODS.items():
        newest: dict[object, datetime] = {}
        for point in newest_first:
            newest.setdefault(period(point, local[point]), point)
        found |= set(list(newest.values())[: rule.get(part, 0)])
    return found


def hours(after: datetime, until: datetime) -> list[datetime]:
    """Return each full hour after one moment and not after another: "what comes every so many minutes or hours goes by
    the time that really passes"."""
    first = after.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    return [first + number * HOUR for number in range((until - first) // HOUR + 1)]


def nights(first: date, last: date, zone: ZoneInfo, hour: int, minute: int) -> list[datetime]:
    """Return a time of each day: "what comes at fixed times comes once a day, right after the gap in spring, and the
    first time in autumn"."""
    found = []
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=0).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) != datetime(day.year, day.month, day.day, hour, minute):  # noqa: DTZ001
            # The local time does not come. After the gap, the first moment is that at which the offset grows.
            moment = _gap(day, zone)
        found.append(moment)
    return found


def _gap(day: date, zone: ZoneInfo) -> datetime:
    moment = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    while (moment + timedelta(minutes=1)).astimezone(zone).utcoffset() == moment.astimezone(zone).utcoffset():
        moment += timedelta(minutes=1)
    return moment + timedelta(minutes=1)
