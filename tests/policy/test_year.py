"""A year under a policy: every promise of its documentation is held, as an oracle of its own computes them.

What decides is the product's: what is due (`firing`), and what goes (`plan`). The clock is ours: both days on which
clocks change, a leap day, a week in which nothing runs, and a clock that is set back by a day.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from tests.policy import oracle
from tests.policy.test_firing import World

from snapkeep.policy.document import Policy
from snapkeep.policy.firing import AHEAD
from snapkeep.policy.plan import Point, plan_asset
from snapkeep.policy.retention import Zone

ASSETS = 200
TICK = timedelta(minutes=20)
DAY = timedelta(days=1)
START = datetime(2027, 12, 15, 0, 0, 30, tzinfo=UTC)
DAYS = 400  # with 2028-02-29, 2028-03-26 and 2028-10-29
AWAY, BACK = START + 90 * DAY, START + 97 * DAY
SET_BACK = START + 200 * DAY
END = START + DAYS * DAY
KEEP = {"last": 3, "hourly": 24, "daily": 7, "weekly": 8, "monthly": 12, "yearly": 5}
ZONE = "Europe/Zurich"


def policy(**step: Any) -> Policy:
    given = {"name": "s", "do": "snapshot", "schedule": "0 * * * *", "keep": KEEP} | step
    return Policy.model_validate({"name": "p", "assets": [{}], "timezone": ZONE, "rpo": "2h", "steps": [given]})


class Year:
    """Some assets: what a policy has made of each, and what its retention has left.

    It goes over every tenth asset once a day, and over the others once a month: what is left must be the same.
    """

    def __init__(self, of: Policy, assets: int) -> None:
        self.policy = of
        self.world = World(of, assets)
        self.made: defaultdict[int, list[datetime]] = defaultdict(list)
        self.left: defaultdict[int, list[datetime]] = defaultdict(list)
        self._zone = Zone(of.timezone)
        self._turns = 0
        self._seen = [0] * assets

    def run(self, begin: datetime, end: datetime) -> None:
        """Let the clock go, as the machine shows it; retention has its turns at midnight (UTC)."""
        now = begin
        while now < end:
            self.world.tick(now)
            if now.hour == 0 and now.minute < TICK.total_seconds() / 60:
                self.retain(now, monthly=now.day == 1)
            now += TICK

    def retain(self, now: datetime, *, monthly: bool = True) -> None:
        for number, ran in enumerate(self.world.ran):
            if number % 10 and not monthly:
                continue
            new = [at for _, at in ran[self._seen[number] :]]
            self._seen[number] = len(ran)
            self.made[number] += new
            self.left[number] += new
            if max(self.left[number], default=now) > now + AHEAD:
                continue  # by a clock that was wrong: nothing is deleted before that has come
            by_id = {f"{index}": at for index, at in enumerate(self.left[number])}
            points = [Point(key, "a", int(at.timestamp()), "p", "s") for key, at in by_id.items()]
            going = {item.point.id for item in plan_asset(points, self.policy, self._zone) if item.deleted}
            self.left[number] = [at for key, at in by_id.items() if key not in going]
        self._turns += 1
        if self._turns % 50 == 0:
            self.judge(range(0, len(self._seen), 70))

    def judge(self, assets: Any) -> None:
        """See that there is what the documentation says, of all that was ever made."""
        for number in assets:
            wanted = oracle.kept(self.made[number], KEEP, self.policy.zone)
            assert set(self.left[number]) == wanted
            assert len(self.left[number]) <= len(wanted) + KEEP["last"], "what was made twice is not kept twice"


def test_a_year_of_200_assets_every_hour() -> None:
    year = Year(policy(jitter="20m"), ASSETS)
    year.world.begin(START)
    year.run(START, AWAY)
    year.run(BACK, SET_BACK)
    before_that = [len(ran) for ran in year.world.ran]
    year.world.begin_anew(SET_BACK - DAY, SET_BACK - DAY)
    year.run(SET_BACK - DAY, END)
    year.retain(END)
    year.judge(range(ASSETS))
    for number, delay in enumerate(year.world.delays):
        ran = year.world.ran[number]
        missed = oracle.hours(AWAY - TICK - delay, BACK - delay)[-1]
        # Each hour once; of those of the week the last; those of the day that came again, again.
        assert [due for due, _ in ran] == [
            *oracle.hours(START, AWAY - TICK - delay),
            missed,
            *oracle.hours(BACK - delay, SET_BACK - TICK - delay),
            *oracle.hours(SET_BACK - DAY, END - TICK - delay),
        ]
        for due, at in ran:
            if due == missed:
                assert at == BACK, "as soon as possible"
            else:
                assert timedelta(0) <= at - due - delay < TICK, "never before its time, and at once then"
        really = [at + DAY * (index >= before_that[number]) for index, (_, at) in enumerate(ran)]
        gaps = {later: later - sooner for sooner, later in pairwise(really)}
        del gaps[BACK]
        assert gaps.pop(really[before_that[number]]) < timedelta(hours=3)
        assert max(gaps.values()) <= timedelta(hours=2), "the RPO that was promised"
    assert len({ran[0][1] for ran in year.world.ran}) > 1, "they do not all begin in the same second"


def test_a_year_of_nights() -> None:
    year = Year(policy(schedule="30 2 * * *"), 3)
    year.world.begin(START)
    year.run(START, SET_BACK)
    year.world.begin_anew(SET_BACK - DAY, SET_BACK - DAY)
    year.run(SET_BACK - DAY, END)
    year.retain(END)
    year.judge(range(3))
    local = START.astimezone(policy().zone).date()
    wanted = oracle.nights(local, local + (DAYS - 1) * DAY, policy().zone, 2, 30)
    again = [due for due in wanted if SET_BACK - DAY < due < SET_BACK]
    for number in range(3):
        assert year.world.dues(number) == sorted([*wanted, *again])
        assert len(again) == 1
