"""What a policy would have made and kept: the same as if retention had gone over it after every run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.policy.document import Policy
from snapkeep.policy.retention import Zone, judge
from snapkeep.policy.simulation import Kept, Size, simulate

START = datetime(2027, 3, 20, 9, 30, tzinfo=UTC)


def policy(**keep: object) -> Policy:
    steps = [
        {"name": "often", "do": "snapshot", "schedule": "10 */3 * * *", "keep": keep},
        {"name": "nightly", "do": "backup", "schedule": "0 1 * * *", "repository": "vault", "keep": {"forever": True}},
    ]
    return Policy.model_validate({"name": "p", "assets": [{}], "timezone": "Europe/Berlin", "steps": steps})


def at_the_end(of: Policy, days: int) -> list[Kept]:
    *_, (_, kept) = simulate(of, START, days)
    return kept


counts = st.integers(1, 5)
rules = st.fixed_dictionaries({}, optional=dict.fromkeys(("last", "hourly", "daily", "weekly", "monthly"), counts))


@given(rules.filter(bool), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_it_is_as_if_retention_had_gone_over_it_after_every_run(keep: dict[str, int], days: int) -> None:
    of = policy(**keep)
    often, nightly = at_the_end(of, days)
    end = (START.astimezone(of.zone) + timedelta(days=days)).replace(hour=0, minute=0)
    left: list[int] = []
    for due in of.schedule(of.steps[0]).between(START, end - timedelta(seconds=1)):
        left.insert(0, int(due.timestamp()))
        reasons = judge(left, often.keep.rule, Zone("Europe/Berlin"))
        left = [moment for moment, why in zip(left, reasons, strict=True) if why]
    assert often.moments == left[::-1]
    assert often.made - often.deleted == len(left)
    assert nightly.deleted == 0
    assert {reason for _, reason in nightly.reasons(Zone("UTC"))} <= {"forever"}


def test_each_day_is_told_with_an_estimate() -> None:
    days = [day for day, _ in simulate(policy(daily=3), START, 10, Size(whole=1000, changed_a_day=100))]
    assert [day.date for day in days] == [f"2027-03-{number}" for number in range(20, 30)]
    assert days[-1].counts == {"often": 3, "nightly": 9}
    assert days[-1].held_bytes["nightly"] == pytest.approx(1000 + 8 * 100, abs=10)
    assert days[-1].held_bytes["often"] == pytest.approx(200, abs=10)  # the asset itself has the rest


def test_steps_that_make_nothing_are_not_in_it() -> None:
    made = policy(last=3)
    drill = {"name": "drill", "do": "drill", "schedule": "0 * * * *", "repository": "vault"}
    steps = [*made.model_dump(mode="json")["steps"], drill]
    drilled = Policy.model_validate(made.model_dump(mode="json") | {"steps": steps})
    assert [one.step.name for one in at_the_end(drilled, 3)] == [one.step.name for one in at_the_end(made, 3)]
