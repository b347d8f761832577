"""What a rule keeps: by a second reading of its description, with dates instead of numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.policy.retention import PERIODS, Keep, Zone, judge, words

ZONES = ["UTC", "Europe/Zurich", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
START = datetime(2026, 1, 1, tzinfo=UTC)

NAMES: dict[str, Callable[[datetime], object]] = {
    "hourly": lambda at: (at.date(), at.hour, at.utcoffset()),
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: at.year,
}


def expected(moments: list[int], keep: Keep, zone: str) -> list[set[str]]:
    """What the description says, in the slowest way: for each point, look at all others."""
    local = [datetime.fromtimestamp(moment, ZoneInfo(zone)) for moment in moments]
    found: list[set[str]] = []
    for number, at in enumerate(local):
        why = {f"last {number + 1} of {keep.last}"} if number < keep.last else set()
        for period, name_of in NAMES.items():
            newer = {name_of(other) for other in local[:number]}
            if name_of(at) not in newer and len(newer) < getattr(keep, period):
                why.add(f"{period} {len(newer) + 1} of {getattr(keep, period)}")
        if keep.within is not None and moments[0] - moments[number] <= keep.within.total_seconds():
            why.add(f"within {words(keep.within)}")
        found.append(why)
    return found


counts = st.integers(0, 5)
rules = st.builds(
    Keep, last=counts, hourly=counts, daily=counts, weekly=counts, monthly=counts, yearly=counts,
    within=st.none() | st.integers(1, 57_600).map(lambda minutes: timedelta(minutes=minutes)),
)  # fmt: skip
around = st.sampled_from(
    ["2026-03-29T01:00", "2026-10-25T01:00", "2028-02-29T00:00", "2026-12-31T23:00", "2026-04-05T15:00"]
)
moments = st.builds(
    lambda near, spread, offsets: sorted(
        {int(datetime.fromisoformat(f"{near}+00:00").timestamp()) + offset * spread for offset in offsets}, reverse=True
    ),
    around,
    st.sampled_from([60, 1800, 3600, 40_000, 600_000, 9_000_000]),
    st.lists(st.integers(-40, 40), max_size=60),
)


@given(moments, rules, st.sampled_from(ZONES))
@settings(max_examples=150, deadline=None)
def test_a_rule_keeps_what_its_description_says(points: list[int], keep: Keep, zone: str) -> None:
    found = [set(reasons) for reasons in judge(points, keep, Zone(zone))]
    assert found == expected(points, keep, zone)


@given(moments, rules, st.sampled_from([*PERIODS, "last", "within"]), st.integers(1, 4), st.sampled_from(ZONES))
@settings(max_examples=100, deadline=None)
def test_one_more_part_never_keeps_less(points: list[int], keep: Keep, part: str, more: int, zone: str) -> None:
    values = {name: getattr(keep, name) for name in ("last", *PERIODS, "within")}
    if part == "within":
        values[part] = (keep.within or timedelta(0)) + timedelta(days=more)
    else:
        values[part] += more
    less = [bool(reasons) for reasons in judge(points, keep, Zone(zone))]
    wider = [bool(reasons) for reasons in judge(points, Keep(**values), Zone(zone))]
    assert all(after or not before for before, after in zip(less, wider, strict=True))


@given(moments.filter(bool), rules.filter(lambda keep: keep.keeps_something))
@settings(max_examples=100, deadline=None)
def test_the_newest_is_always_kept(points: list[int], keep: Keep) -> None:
    assert next(judge(points, keep, Zone("UTC")))


def test_an_hour_that_comes_twice_is_two_hours() -> None:
    first = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())
    found = list(judge([first + 3600, first], Keep(hourly=2), Zone("Europe/Zurich")))
    assert found == [("hourly 1 of 2",), ("hourly 2 of 2",)]
    assert list(judge([first + 1000, first], Keep(hourly=2), Zone("Europe/Zurich")))[1] == ()


def test_a_time_without_points_uses_nothing_up() -> None:
    days = [START - timedelta(days=gap) for gap in (0, 1, 40, 41, 400)]
    found = list(judge([int(day.timestamp()) for day in days], Keep(daily=4), Zone("UTC")))
    assert [bool(reasons) for reasons in found] == [True, True, True, True, False]


def test_the_order_is_asked_for() -> None:
    with pytest.raises(ValueError, match="newest must come first"):
        list(judge([1, 2], Keep(last=1), Zone("UTC")))


@pytest.mark.parametrize("time", ["1m", "90m", "36h", "14d", "45s"])
def test_times_are_written_as_in_a_policy(time: str) -> None:
    size = {"s": 1, "m": 60, "h": 3600, "d": 86_400}[time[-1]]
    assert words(timedelta(seconds=int(time[:-1]) * size)) == time
