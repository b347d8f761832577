"""A year of due moments: each is run once, and on no other; judged by moments that were counted in another way."""

from __future__ import annotations

import heapq
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.policy.document import Policy
from snapkeep.policy.firing import AHEAD, GRACE, Calendar, Verdict, decide, first_look

START = datetime(2027, 12, 15, 0, 0, 30, tzinfo=UTC)
YEAR = timedelta(days=400)  # with the leap day of 2028, and both days on which clocks change
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def policy(**changes: object) -> Policy:
    blackout = changes.pop("blackout", [])
    zone = changes.pop("timezone", "Europe/Zurich")
    step = {"name": "a", "do": "snapshot", "schedule": "0 * * * *", "keep": {"last": 3}} | changes
    return Policy.model_validate({"name": "p", "assets": [{}], "timezone": zone, "blackout": blackout, "steps": [step]})


class World:
    """Some assets under a policy of one step; what is due is looked for at ticks, as the clock shows them."""

    def __init__(self, of: Policy, assets: int = 1) -> None:
        self.step = of.steps[0]
        self.calendar = Calendar(of.schedule(self.step))
        self.delays = [self.calendar.schedule.delay(of.name, "a", str(number)) for number in range(assets)]
        self.ran: list[list[tuple[datetime, datetime]]] = [[] for _ in range(assets)]
        self.skipped: list[list[datetime]] = [[] for _ in range(assets)]
        self.dealt_with: dict[int, datetime] = {}
        self.looks: list[tuple[datetime, int]] = []
        self.busy = False

    def begin(self, now: datetime) -> None:
        for number, delay in enumerate(self.delays):
            self.dealt_with[number] = now
            self._wait(number, first_look(self.calendar, delay, now))

    def _wait(self, number: int, look_at: datetime | None) -> None:
        if look_at is not None:
            heapq.heappush(self.looks, (look_at, number))

    def tick(self, now: datetime) -> None:
        found = []
        while self.looks and self.looks[0][0] <= now:
            found.append(heapq.heappop(self.looks)[1])
        for number in found:
            decision = decide(
                self.calendar, self.step, self.delays[number], self.dealt_with[number], still_runs=self.busy, now=now
            )
            if decision.verdict is Verdict.RUN:
                self.ran[number].append((decision.due_at, now))
            elif decision.verdict is Verdict.SKIP:
                self.skipped[number].append(decision.due_at)
            assert decision.look_at is None or decision.look_at > now or decision.verdict is Verdict.RUN
            self.dealt_with[number] = decision.due_at
            self._wait(number, decision.look_at)

    def run(self, begin: datetime, end: datetime, every: timedelta) -> None:
        while begin <= end:
            self.tick(begin)
            begin += every

    def begin_anew(self, after: datetime, now: datetime) -> None:
        """Begin anew with what has dealt with moments after another, as is done when the clock was set back."""
        for number, dealt_with in self.dealt_with.items():
            if dealt_with > after:
                self.dealt_with[number] = now
                self.looks = [look for look in self.looks if look[1] != number] + [(now, number)]
        heapq.heapify(self.looks)

    def dues(self, number: int = 0) -> list[datetime]:
        return [due for due, _ in self.ran[number]]


def test_fixed_times_come_once_on_every_day_also_when_the_clocks_change() -> None:
    world = World(policy(schedule="30 2 * * *"))
    world.begin(START)
    world.run(START, START + YEAR, 15 * MINUTE)
    local = [due.astimezone(policy().zone) for due in world.dues()]
    days = [(START + timedelta(days=number)).date() for number in range(400)]
    assert [one.date() for one in local] == days
    assert date(2028, 2, 29) in days
    odd = {one.date(): f"{one:%H:%M%z}" for one in local if f"{one:%H:%M}" != "02:30"}
    assert odd == {date(2028, 3, 26): "03:00+0200"}  # 02:30 does not come
    assert {f"{one:%H:%M%z}" for one in local if one.date() == date(2028, 10, 29)} == {"02:30+0200"}  # the first time


def test_what_was_missed_is_left_out_where_it_is_to_be() -> None:
    world = World(policy(schedule="0 1 * * *", when_missed="skip", timezone="UTC"))
    world.begin(START)
    world.run(START, START + timedelta(days=10), 10 * MINUTE)
    world.run(START + timedelta(days=17), START + timedelta(days=20), 10 * MINUTE)
    assert [due.date().day for due in world.dues()] == [15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 1, 2, 3]
    assert [due.date().isoformat() for due in world.skipped[0]] == ["2027-12-31"]


def test_a_little_late_is_not_missed() -> None:
    world = World(policy(schedule="0 1 * * *", when_missed="skip", timezone="UTC"))
    world.begin(START)
    world.tick(START.replace(hour=1) + GRACE - MINUTE)
    assert len(world.ran[0]) == 1


def test_a_window_and_days_without_are_waited_for() -> None:
    world = World(policy(schedule="0 18 * * *", window="22:00-06:00", blackout=["2027-12-24"]))
    world.begin(START)
    world.run(START, START + timedelta(days=12), 10 * MINUTE)
    local = [ran.astimezone(policy().zone) for _, ran in world.ran[0]]
    assert {f"{one:%H}" for one in local} == {"22"}
    days = [one.date().day for one in local]
    assert days == [15, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26]


def test_nothing_begins_on_a_day_without_also_when_it_was_due_before() -> None:
    world = World(policy(schedule="50 23 * * *", blackout=["2027-12-24"], timezone="UTC"))
    world.begin(START)
    world.run(START, START.replace(day=23, hour=23), HOUR)
    world.run(START.replace(day=24), START.replace(day=25, hour=12), HOUR)  # what was due at 23:50 was not seen
    assert [(due.day, ran.day) for due, ran in world.ran[0]][-1] == (23, 25)


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_while_the_one_before_runs_it_is_left_out_or_waits(overlap: str) -> None:
    world = World(policy(overlap=overlap))
    world.begin(START)
    world.run(START, START + 2 * HOUR, MINUTE)
    world.busy = True
    world.run(START + 2 * HOUR, START + 5 * HOUR, MINUTE)
    world.busy = False
    world.run(START + 5 * HOUR, START + 7 * HOUR, MINUTE)
    assert [due.hour for due in world.dues()] == ([1, 2, 6, 7] if overlap == "skip" else [1, 2, 5, 6, 7])
    assert [due.hour for due in world.skipped[0]] == ([3, 4, 5] if overlap == "skip" else [])


def test_a_clock_that_was_set_back_repeats_nothing_whoever_looks() -> None:
    world = World(policy(timezone="UTC"))
    world.begin(START)
    world.run(START, START + 6 * HOUR, 10 * MINUTE)
    world.looks = [(START, 0)]  # whoever changes the policy has it looked at
    world.run(START + 6 * HOUR - AHEAD, START + 8 * HOUR, 10 * MINUTE)
    assert [due.hour for due in world.dues()] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_clock_that_was_set_back_far_was_wrong() -> None:
    world = World(policy(timezone="UTC"))
    world.begin(START)
    world.run(START, START + 6 * HOUR, 10 * MINUTE)
    world.begin_anew(START + 2 * HOUR, START + 2 * HOUR)
    world.run(START + 2 * HOUR, START + 8 * HOUR, 10 * MINUTE)
    assert [due.hour for due in world.dues()] == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8]


def test_a_clock_that_was_a_year_ahead_stops_nothing() -> None:
    world = World(policy(timezone="UTC"))
    world.begin(START)
    world.run(START, START + 3 * HOUR, 10 * MINUTE)
    world.tick(START + timedelta(days=365))
    world.begin_anew(START + 3 * HOUR + AHEAD, START + 3 * HOUR)
    world.run(START + 3 * HOUR, START + 6 * HOUR, 10 * MINUTE)
    assert [due.hour for due in world.dues()] == [1, 2, 3, 0, 4, 5, 6]


crons = st.sampled_from(["0 * * * *", "*/15 * * * *", "30 2 * * *", "0 3 * * MON", "0 0 1 * *", "15 2 29 2 *"])
moments = st.datetimes(datetime(2027, 1, 1), datetime(2029, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(crons, moments, st.integers(0, 90 * 86_400), st.sampled_from(["UTC", "Europe/Zurich", "America/New_York"]))
@settings(max_examples=150, deadline=None)
def test_a_calendar_finds_what_going_through_all_finds(cron: str, after: datetime, span: int, zone: str) -> None:
    of = policy(schedule=cron, timezone=zone)
    until = after + timedelta(seconds=span)
    calendar = Calendar(of.schedule(of.steps[0]))
    for _ in range(2):  # with nothing at hand, and with all of it
        assert calendar.latest(after, until) == next(reversed([*calendar.schedule.between(after, until)]), None)
        assert calendar.next(until) == next(calendar.schedule.after(until))
