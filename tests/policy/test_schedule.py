"""When something is due."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.policy.schedule import Schedule, Window

ZURICH = ZoneInfo("Europe/Zurich")


def local(schedule: Schedule, day: str, count: int) -> list[str]:
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=schedule.zone) - timedelta(seconds=1)
    return [f"{due.astimezone(schedule.zone):%dT%H:%M%z}"[:-2] for due in islice(schedule.after(start), count)]


@pytest.mark.parametrize(
    ("cron", "day", "due"),
    [
        ("30 2 * * *", "2026-03-28", ["28T02:30+01", "29T03:00+02", "30T02:30+02"]),  # the gap: right after it
        ("30 2 * * *", "2026-10-24", ["24T02:30+02", "25T02:30+02", "26T02:30+01"]),  # twice: the first time alone
        ("0 2,3 * * *", "2026-03-29", ["29T03:00+02", "30T02:00+02"]),  # two in one: once
        ("0 * * * *", "2026-03-29", ["29T00:00+01", "29T01:00+01", "29T03:00+02"]),
        ("0 * * * *", "2026-10-25", ["25T00:00+02", "25T01:00+02", "25T02:00+02", "25T02:00+01", "25T03:00+01"]),
        ("0 0 29 2 *", "2026-11-28", ["29T00:00+01", "29T00:00+01"]),
        ("0 0 L * *", "2026-02-01", ["28T00:00+01", "31T00:00+02"]),
        ("0 5 * * MON#1", "2026-11-28", ["07T05:00+01", "04T05:00+01"]),
    ],
)
def test_days_on_which_the_clocks_change(cron: str, day: str, due: list[str]) -> None:
    assert local(Schedule(cron, ZURICH), day, len(due)) == due


@given(
    st.sampled_from(["0 * * * *", "30 2 * * *", "*/20 1-3 * * *", "15 2,3 * * SUN", "0 0 1 * *"]),
    st.sampled_from(["UTC", "Europe/Zurich", "Australia/Lord_Howe", "America/Santiago"]),
    st.integers(0, 2 * 365 * 24 * 60),
    st.integers(1, 3 * 24 * 60),
)
@settings(max_examples=60, deadline=None)
def test_wherever_one_begins_to_look_the_same_is_due(cron: str, zone: str, begin: int, gap: int) -> None:
    schedule = Schedule(cron, ZoneInfo(zone))
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=begin)
    middle, end = start + timedelta(minutes=gap), start + timedelta(minutes=2 * gap)
    whole = list(schedule.between(start, end))
    assert whole == [*schedule.between(start, middle), *schedule.between(middle, end)]
    assert all(sooner < later for sooner, later in pairwise(whole))
    assert all(start < due <= end for due in whole)


def test_black_out_days_are_left_out() -> None:
    schedule = Schedule("0 12 * * *", ZURICH, blackout=frozenset({date(2026, 12, 24), date(2026, 12, 25)}))
    assert local(schedule, "2026-12-23", 2) == ["23T12:00+01", "26T12:00+01"]


@pytest.mark.parametrize(
    ("begin", "end", "inside", "outside"),
    [
        ("22:00", "06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "21:59"]),
        ("08:00", "09:30", ["08:00"], ["09:30", "07:59"]),
    ],
)
def test_a_window_holds_its_beginning_and_not_its_end(
    begin: str, end: str, inside: list[str], outside: list[str]
) -> None:
    window = Window(time.fromisoformat(begin), time.fromisoformat(end))
    schedule = Schedule("0 0 * * *", ZURICH, window=window)
    for text in inside + outside:
        moment = datetime.combine(date(2026, 7, 1), time.fromisoformat(text), ZURICH)
        assert (schedule.begin(moment) == moment) == (text in inside)


def test_the_jitter_of_each_is_its_own_and_stays() -> None:
    schedule = Schedule("0 0 * * *", ZURICH, jitter=timedelta(minutes=30))
    delays = [schedule.delay("policy", f"asset-{number}") for number in range(1000)]
    assert delays == [schedule.delay("policy", f"asset-{number}") for number in range(1000)]
    assert (
        timedelta(0) <= min(delays) < timedelta(minutes=1) < timedelta(minutes=29) < max(delays) < timedelta(minutes=30)
    )
    assert Schedule("0 0 * * *", ZURICH).delay("policy", "asset") == timedelta(0)


@pytest.mark.parametrize(
    "cron", ["", "x", "0 0 30 2 *", "0 0 1", "* * * * * *", "61 * * * *", "0 0 * * 9", "@daily", "0 0 31 4 *"]
)
def test_what_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"cron expression|never comes|five fields"):
        Schedule(cron, ZURICH)


def test_in_the_hour_that_comes_again_what_has_come_does_not() -> None:
    """Whoever looks in the second 02:15 has had 02:30."""
    again = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)
    assert next(Schedule("30 2 * * *", ZURICH).after(again)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
