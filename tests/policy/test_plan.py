"""What retention would delete: never what anything else keeps, and never all."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.policy.document import Policy
from snapkeep.policy.plan import LAST, Digest, Item, Point, plan_asset, refused
from snapkeep.policy.retention import Zone

UTC = Zone("UTC")
DAY = 86_400


def policy(**keep: int) -> Policy:
    steps = [
        {"name": "hourly", "do": "snapshot", "schedule": "0 * * * *", "keep": keep or {"last": 2}},
        {"name": "nightly", "do": "backup", "schedule": "0 1 * * *", "repository": "vault", "keep": {"daily": 2}},
    ]
    return Policy.model_validate({"name": "p", "assets": [{}], "steps": steps, "delete_at_most": 5})


def points(*days: int, step: str = "hourly", **values: Any) -> list[Point]:
    return [Point(f"{step}-{day}", "asset", day * DAY, "p", step)._replace(**values) for day in days]


def fates(items: list[Item]) -> dict[str, tuple[bool, str]]:
    return {item.point.id: (item.deleted, item.reason) for item in items}


any_point = st.builds(
    Point,
    id=st.uuids().map(str),
    asset_id=st.just("asset"),
    taken=st.integers(0, 40).map(lambda day: day * DAY // 2),
    policy=st.sampled_from(["p", "p", "p", "", "other"]),
    step=st.sampled_from(["hourly", "nightly", "gone"]),
    kept_by=st.sampled_from([(), (), (), ("hold until 2027-01-01 (case 12)",), ("locked until 2028",)]),
    is_good=st.booleans(),
)
many = st.lists(any_point, max_size=30, unique_by=lambda point: point.id)


@given(many, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_nothing_that_is_kept_foreign_or_last_is_ever_in_it(found: list[Point], last: int) -> None:
    items = plan_asset(found, policy(last=last), UTC)
    assert sorted(item.point for item in items) == sorted(found)
    gone = [item.point for item in items if item.deleted]
    assert all(point.policy == "p" and point.step != "gone" and not point.kept_by for point in gone)
    assert not any(point.is_good for point in found) or any(item.point.is_good for item in items if not item.deleted)
    assert all(item.reason for item in items)


@given(many, st.integers(1, 4), st.sampled_from(["last", "hourly", "daily", "weekly", "yearly"]), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_one_more_rule_never_deletes_more(found: list[Point], last: int, part: str, count: int) -> None:
    before = {item.point.id for item in plan_asset(found, policy(last=last), UTC) if item.deleted}
    wider = {"last": last} | {part: count + (last if part == "last" else 0)}
    after = {item.point.id for item in plan_asset(found, policy(**wider), UTC) if item.deleted}
    assert after <= before


@given(many)
@settings(max_examples=100, deadline=None)
def test_what_was_done_needs_not_be_done_again(found: list[Point]) -> None:
    once = plan_asset(found, policy(), UTC)
    again = plan_asset([item.point for item in once if not item.deleted], policy(), UTC)
    assert not any(item.deleted for item in again)


def test_each_has_its_reason() -> None:
    found = [
        *points(9, 8, 7),
        *points(6, kept_by=("hold until 2027-01-01 (case 12)",)),
        *points(5, kept_by=("base of the next incremental backup into vault",)),
        *points(4, policy=""),
        *points(3, policy="other"),
        *points(2, step="weekly"),
        *points(9, 8, 7, step="nightly"),
    ]
    assert fates(plan_asset(found, policy(), UTC)) == {
        "hourly-9": (False, "last 1 of 2"),
        "hourly-8": (False, "last 2 of 2"),
        "hourly-7": (True, "older than all that last 2 keeps"),
        "hourly-6": (False, "hold until 2027-01-01 (case 12)"),
        "hourly-5": (False, "base of the next incremental backup into vault"),
        "hourly-4": (False, "no policy has made it"),
        "hourly-3": (False, "the policy 'other' has made it"),
        "weekly-2": (False, "the policy has no step 'weekly' any more"),
        "nightly-9": (False, "daily 1 of 2"),
        "nightly-8": (False, "daily 2 of 2"),
        "nightly-7": (True, "older than all that daily 2 keeps"),
    }


def test_the_last_good_one_stays_however_old_it_is() -> None:
    found = [*points(9, 8, is_good=False), *points(2, 1)]
    assert fates(plan_asset(found, policy(), UTC))["hourly-2"] == (False, LAST)
    assert fates(plan_asset(found, policy(), UTC))["hourly-1"][0]


def test_what_is_kept_forever_is_kept() -> None:
    forever = Policy.model_validate(policy().model_dump() | {"steps": [
        {"name": "hourly", "do": "snapshot", "schedule": "0 * * * *", "keep": {"forever": True}},
    ]})  # fmt: skip
    assert {reason for _, reason in fates(plan_asset(points(*range(50)), forever, UTC)).values()} == {"forever"}


def test_more_than_a_run_may_delete_is_told() -> None:
    few, many = points(*range(7)), points(*range(8))
    assert refused(plan_asset(few, policy(), UTC), policy()) == []
    (told,) = refused(plan_asset(many, policy(), UTC), policy())
    assert dataclasses.astuple(told) == ("asset", "hourly", 6, 5)


def test_the_hash_goes_by_what_would_be_deleted() -> None:
    def digest(*found: Point) -> str:
        made = Digest()
        made.add(plan_asset(found, policy(), UTC))
        return made.hexdigest()

    base = points(9, 8, 7, 6)
    assert digest(*base) == digest(*reversed(base))
    assert digest(*base) == digest(*base, *points(5, policy=""))
    assert digest(*base) != digest(*base, *points(5))
    assert digest(*base) != digest(*base[:3], *points(6, kept_by=("hold",)))
