"""What is due runs once: on both stores, with several servers, when one dies, and when the policy is changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from tests.policy.world import (
    BOTH,
    DRILL,
    HOUR,
    HOURLY,
    MINUTE,
    NIGHTLY,
    START,
    Died,
    Noted,
    SetClock,
    add_assets,
    add_policy,
    document,
)
from tests.support.postgres import Postgres

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.tables import audit, policy_runs
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Unavailable, Unsupported
from snapkeep.policy.asks import LeftOut
from snapkeep.policy.firing import AHEAD
from snapkeep.policy.runner import AT_ONCE, Runner

KEY = b"k" * 32
CHANGE: dict[str, Any] = {"now": START, "cooling": HOUR}


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, KEY) as opened:
        yield opened


async def go(runner: Runner, clock: SetClock, span: timedelta, every: timedelta = 10 * MINUTE) -> None:
    for _ in range(span // every):
        clock.go(every)
        while await runner.tick():
            pass


async def rows(catalog: Catalog, *columns: Any) -> list[Any]:
    async with catalog.database.connect() as connection:
        return list(await connection.execute(select(*columns)))


async def test_each_hour_of_some_days_is_run_once_for_each_asset(catalog: Catalog) -> None:
    await add_assets(catalog, count=5)
    await add_assets(catalog, "other", 2)
    await add_policy(catalog, "p", HOURLY, NIGHTLY, assets=[{"system": "files*"}])
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 30 * HOUR)
    await go(Runner(catalog, noted, clock), clock, 15 * HOUR)  # another process
    columns = policy_runs.c.step, policy_runs.c.due_at, policy_runs.c.state, policy_runs.c.snapshot_name
    found = await rows(catalog, *columns)
    clock.time -= AHEAD - HOUR
    await go(runner, clock, AHEAD - HOUR)
    clock.go(timedelta(days=7))
    await runner.tick()
    assert len(set(noted.operations)) == len(noted.operations) == 5 * (45 + 1) + 5 * (2 + 1)
    assert {by for _, _, by in noted.asked} == {"policy:p"}
    begin = START.replace(second=0)
    hours = Counter(row.due_at for row in found if row.step == "hourly")
    assert hours == {begin + number * HOUR: 5 for number in range(1, 46)}
    assert {row.state for row in found} == {"asked"}
    assert {bool(row.snapshot_name) for row in found if row.step == "nightly"} == {False}


@pytest.mark.parametrize("by", [timedelta(days=1), timedelta(days=365)])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_clock_that_was_ahead_stops_nothing(catalog: Catalog, by: timedelta, restarted: bool) -> None:
    await add_assets(catalog, count=2)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 26 * HOUR, HOUR)
    clock.time += by
    await go(runner, clock, HOUR)
    clock.time -= by
    before = len(noted.asked)
    assert before == 2 * 28
    await go(Runner(catalog, noted, clock) if restarted else runner, clock, 3 * HOUR)
    assert len(set(noted.operations)) == len(noted.operations) == before + 2 * 3


@pytest.mark.parametrize(
    ("changes", "unended"),
    [({"window": "22:00-06:00"}, False), ({"overlap": "queue"}, True)],
)
async def test_what_waits_by_a_clock_that_was_ahead_waits_no_more(
    catalog: Catalog, changes: dict[str, Any], unended: bool
) -> None:
    await add_assets(catalog, count=1)
    await add_policy(catalog, "p", HOURLY | {"schedule": "0 12 * * *"} | changes)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 35 * HOUR, HOUR)
    before = len(noted.asked)
    noted.running = set(noted.operations) if unended else set()
    clock.time += timedelta(days=365, hours=2)  # 13:00 of a day on which it waits
    await go(runner, clock, 10 * MINUTE)
    clock.time -= timedelta(days=365, hours=2)
    noted.running = set()
    await go(runner, clock, 24 * HOUR, HOUR)
    assert len(noted.asked) == before + 1


async def test_what_was_claimed_by_a_clock_that_was_ahead_is_asked_for(catalog: Catalog) -> None:
    """Its system was away before the clock was set back, and after."""
    await add_assets(catalog, count=2)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    clock.time += timedelta(days=365)
    noted.fails = Unavailable("The system is away")
    await go(runner, clock, HOUR, HOUR)
    claimed = {row.operation_id for row in await rows(catalog, policy_runs.c.operation_id)}
    clock.time -= timedelta(days=365)
    await go(runner, clock, 40 * MINUTE)
    assert (len(claimed), noted.asked) == (2, [])
    noted.fails = None
    await go(runner, clock, 10 * MINUTE)
    assert set(noted.operations) == claimed


async def test_a_clock_that_is_wrong_for_a_moment_repeats_nothing(catalog: Catalog) -> None:
    await add_assets(catalog, count=2)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 13 * HOUR, HOUR)
    before = len(noted.asked)
    clock.time -= 12 * HOUR + 10 * MINUTE
    await go(runner, clock, 10 * MINUTE, 5 * MINUTE)  # over a full hour
    clock.time += 12 * HOUR + 10 * MINUTE
    await go(runner, clock, 40 * MINUTE)
    assert len(noted.asked) == before == 2 * 13


async def test_a_clock_that_is_behind_repeats_nothing(catalog: Catalog) -> None:
    await add_assets(catalog, count=2)
    await add_policy(catalog, "p", HOURLY, HOURLY | {"name": "yearly", "schedule": "0 0 1 1 *"})
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 3 * HOUR)
    before = len(noted.asked)
    for minutes in (10, 120):  # a machine that starts without a battery; another whose clock nobody sets
        behind = SetClock(datetime(2020, 1, 1, tzinfo=UTC))
        other = Runner(catalog, noted, behind)
        await go(other, behind, minutes * MINUTE)
        behind.time = clock.time
        await go(other, behind, 30 * MINUTE)
    assert len(noted.asked) == before
    await go(runner, clock, HOUR)
    assert len(noted.asked) == before + 2


async def test_moments_that_come_again_since_the_clock_was_wrong_are_run_again(catalog: Catalog) -> None:
    await add_assets(catalog, count=2)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 30 * HOUR, HOUR)
    clock.time -= timedelta(days=1)
    await go(runner, clock, HOUR)
    await go(runner, clock, 29 * HOUR, HOUR)
    assert len(set(noted.operations)) == len(noted.operations) == 2 * 60
    await go(Runner(catalog, noted, clock), clock, 2 * HOUR)
    assert len(set(noted.operations)) == len(noted.operations) == 2 * 62


async def test_who_dies_between_claim_and_asking_leaves_nothing_undone(catalog: Catalog) -> None:
    await add_assets(catalog, count=6)
    await add_policy(catalog)
    clock = SetClock()
    asked: list[str] = []
    for dies_at in (2, 0, 1, None):
        noted = Noted(dies_at=dies_at)
        runner = Runner(catalog, noted, clock)
        with suppress(Died):
            await runner.tick()
            await go(runner, clock, HOUR, 30 * MINUTE)
        asked += noted.operations
    assert len(set(asked)) == len(asked)
    found = await rows(catalog, policy_runs.c.operation_id, policy_runs.c.state)
    assert {row.operation_id for row in found} == set(asked)
    assert {row.state for row in found} == {"asked"}
    assert len(found) >= 6 * 2


async def test_two_servers_run_each_once(postgres: Postgres) -> None:
    url = postgres.create_database()  # SQLite has one server
    async with open_catalog(url, KEY) as one, open_catalog(url, KEY) as two:
        await add_assets(one, count=40)
        await add_policy(one)
        clock, noted = SetClock(), Noted()
        runners = [Runner(catalog, noted, clock) for catalog in (one, two)]
        await asyncio.gather(*(runner.tick() for runner in runners))
        for _ in range(6):
            clock.go(HOUR)
            await asyncio.gather(*(runner.tick() for runner in runners))
        assert len(noted.operations) == len(set(noted.operations)) == 6 * 40


async def test_many_at_once_are_taken_in_turn(catalog: Catalog) -> None:
    await add_assets(catalog, "big", 450)
    await add_assets(catalog, "small", 20)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    clock.go(HOUR)
    assert await runner.tick()
    assert len(noted.asked) == AT_ONCE
    small = {one.id for one in await catalog.inventory.assets("small")}
    first = {row.asset_id for row in await rows(catalog, policy_runs.c.asset_id)}
    assert small <= first, "the small system does not wait for the big one"
    while await runner.tick():
        pass
    assert len(set(noted.operations)) == len(noted.operations) == 470


async def test_what_is_changed_begins_with_what_is_due_then(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    record = await add_policy(catalog, "p", HOURLY, NIGHTLY | {"schedule": "30 * * * *"})
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, 2 * HOUR)  # four runs
    often = HOURLY | {"schedule": "*/20 * * * *"}
    changed = document("p", often, NIGHTLY | {"schedule": "30 * * * *"})
    record = await catalog.policies.change(record, text="", document=changed, begun_anew=["hourly"], **CHANGE)
    await runner.tick()
    assert len(noted.asked) == 4, "what was due before by the new schedule is not made up for"
    await go(runner, clock, HOUR)
    assert len(noted.asked) == 4 + 3 + 1
    record = await catalog.policies.enable(record, False, **CHANGE)
    await go(runner, clock, 5 * HOUR)
    assert len(noted.asked) == 8
    record = await catalog.policies.enable(record, True, **CHANGE)
    await runner.tick()
    assert len(noted.asked) == 8
    await go(runner, clock, HOUR)
    assert len(noted.asked) == 12
    await catalog.policies.remove(record)
    await go(runner, clock, HOUR)
    assert len(noted.asked) == 12


async def test_assets_come_and_go(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    await add_assets(catalog, "bare", 1, capabilities=frozenset())
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, HOUR)
    await add_assets(catalog, count=2)
    await go(runner, clock, HOUR)
    assert [name for _, name, _ in noted.asked] == ["0", "0", "1"]
    first = await catalog.inventory.find_asset("files1", "0")
    await catalog.inventory.mark_gone([first], START)
    await go(runner, clock, HOUR)
    assert [name for _, name, _ in noted.asked][3:] == ["1"]


async def test_what_cannot_be_is_on_record_and_what_is_away_is_tried_again(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    noted.fails = Unavailable("away")
    await go(runner, clock, HOUR + 20 * MINUTE)
    noted.fails = None
    await go(runner, clock, 10 * MINUTE)
    assert len(noted.asked) == 1
    noted.fails = Unsupported("it cannot")
    await go(runner, clock, HOUR)
    assert [row.reason for row in await rows(catalog, policy_runs.c.reason)] == ["", "it cannot"]
    (line,) = [row for row in await rows(catalog, audit) if row.action == "policy.run.hourly"]
    assert (line.actor, line.subject, line.outcome) == ("policy:p", "files1/0", "failed")
    noted.fails = Unavailable("away")
    await go(runner, clock, 3 * HOUR)
    states = Counter(row.state for row in await rows(catalog, policy_runs.c.state))
    assert states["refused"] >= 2, "it is not tried for ever"


async def test_what_still_runs_is_not_run_again(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, HOUR)
    noted.running = set(noted.operations)
    await go(runner, clock, 2 * HOUR)
    noted.running = set()
    await go(runner, clock, HOUR)
    assert len(noted.asked) == 2


async def test_what_cannot_be_read_harms_no_other(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    await catalog.policies.add("x", name="newer", text="", document={"name": "newer", "fields": []}, **CHANGE)
    await add_policy(catalog)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, HOUR)
    assert len(noted.asked) == 1


async def test_steps_that_make_nothing_are_asked_for(catalog: Catalog) -> None:
    await add_assets(catalog, count=1, capabilities=BOTH | {Capability.DIFF_FILES})
    await add_assets(catalog, "plain", 1)
    await add_assets(catalog, "bare", 1, capabilities=frozenset({Capability.CREATE}))
    often = {"schedule": "0 * * * *"}
    steps = (
        DRILL | often,
        DRILL | often | {"name": "whole", "files": "all", "check": "fsck.sh"},
        DRILL | often | {"name": "some", "files": 5, "bytes": "1M"},
        {"name": "read", "do": "verify", "repository": "vault", **often},
        {"name": "read-all", "do": "verify", "repository": "vault", "data": "all", **often},
        {"name": "changes", "do": "diff", **often},
    )
    await add_policy(catalog, "p", *steps)
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    await go(runner, clock, HOUR)
    names = Counter(step.name for step in noted.steps)
    assert names == {str(step["name"]): 1 if step["name"] == "changes" else 2 for step in steps}
    assert len(set(noted.operations)) == 11


async def test_what_has_nothing_to_do_is_left_out_and_tells_why(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    await add_policy(catalog, "p", DRILL | {"schedule": "0 * * * *"})
    clock, noted = SetClock(), Noted()
    runner = Runner(catalog, noted, clock)
    await runner.tick()
    noted.fails = LeftOut("there is no recovery point of it in vault yet")
    await go(runner, clock, HOUR)
    assert [(row.state, row.reason) for row in await rows(catalog, policy_runs.c.state, policy_runs.c.reason)] == [
        ("left_out", "there is no recovery point of it in vault yet")
    ]
    asset = await catalog.inventory.find_asset("files1", "0")
    ((_, skipped),) = (await catalog.policy_runs.outlook([asset.id]))[asset.id]
    assert skipped == "there is no recovery point of it in vault yet"
    assert not [row for row in await rows(catalog, audit) if row.action.startswith("policy.run")], "that is no failure"
    noted.fails = None
    await go(runner, clock, HOUR)
    assert len(noted.asked) == 1
    ((_, skipped),) = (await catalog.policy_runs.outlook([asset.id]))[asset.id]
    assert skipped == ""
