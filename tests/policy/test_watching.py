"""Missed protection is told once, by whoever sees it first, and once more when it is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import delete, select
from tests.policy.test_pruning import KEY, Deleted, asset_of, catalog, made, pass_time
from tests.policy.world import HOUR, HOURLY, MINUTE, START, SetClock, add_assets, add_policy

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.tables import deliveries
from snapkeep.model.notifications import ChannelKind
from snapkeep.policy.coverage import Cover
from snapkeep.policy.pruning import PAUSE, QUIET, Pruner
from snapkeep.policy.watching import TOGETHER, Watcher

__all__ = ["catalog"]
FILES1: dict[str, Any] = {"assets": [{"system": "files1"}]}


@pytest.fixture(autouse=True)
async def listening(catalog: Catalog) -> None:
    chosen: dict[str, Any] = {"events": [], "systems": [], "per_minute": 20, "enabled": True}
    await catalog.channels.add(
        "c", name="ops", kind=ChannelKind.WEBHOOK, settings={}, secrets={"url": "u"}, now=START, **chosen
    )


async def told(catalog: Catalog, *, of: str = "protection.") -> list[str]:
    """Return what was told, as `event subject`, and forget it."""
    rows = await everything(catalog, of)
    async with catalog.database.begin() as connection:
        await connection.execute(delete(deliveries))
    return sorted(f"{row.event} {row.subject}" for row in rows)


async def everything(catalog: Catalog, of: str) -> list[Any]:
    async with catalog.database.connect() as connection:
        return [row for row in await connection.execute(select(deliveries)) if row.event.startswith(of)]


async def test_it_is_told_once_and_again_after_it_was_good(catalog: Catalog, database_url: str) -> None:
    clock = SetClock()
    await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    await made(catalog, "a", 0)
    await Watcher(catalog, clock).look()
    assert await told(catalog) == []
    clock.go(2 * HOUR + MINUTE)
    await Watcher(catalog, clock).look()
    (row,) = await everything(catalog, "protection.")
    assert row.data["message"] == "files1/0 has no good recovery point of the last 2h: the last one is of " + (
        f"{START:%Y-%m-%d %H:%M} UTC"
    )
    assert row.system == "files1"
    assert row.data["details"] | {"last_good_at": None} == {
        "policies": ["p"], "rpo": "2h", "last_good": "files1/0@a", "last_good_at": None,
    }  # fmt: skip
    assert await told(catalog) == ["protection.missed files1/0"]
    async with open_catalog(database_url, KEY) as again:  # after a restart, on another server
        clock.go(HOUR)
        await Watcher(again, clock).look()
    await Watcher(catalog, clock).look()
    assert await told(catalog) == []
    await made(catalog, "b", 3)
    await Watcher(catalog, clock).look()
    assert await told(catalog) == ["protection.recovered files1/0"]
    await Watcher(catalog, clock).look()
    assert await told(catalog) == []
    clock.go(3 * HOUR)
    await Watcher(catalog, clock).look()
    assert await told(catalog) == ["protection.missed files1/0"]


async def test_the_first_recovery_point_has_the_time_that_was_promised(catalog: Catalog) -> None:
    clock = SetClock()
    await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    for _ in range(4):  # it is not pushed back by looking
        await Watcher(catalog, clock).look()
        clock.go(29 * MINUTE)
    assert await told(catalog) == []
    clock.go(5 * MINUTE)
    await Watcher(catalog, clock).look()
    (row,) = await everything(catalog, "protection.")
    assert row.data["message"] == "files1/0 has no good recovery point of the last 2h: there is none"
    assert await told(catalog) == ["protection.missed files1/0"]


async def test_what_was_noted_by_a_clock_that_was_ahead_is_told_by_the_right_one(catalog: Catalog) -> None:
    await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    await Watcher(catalog, SetClock(START + 8000 * HOUR)).look()
    assert await told(catalog) == []
    await Watcher(catalog, SetClock()).look()
    assert await told(catalog) == ["protection.missed files1/0"]


async def test_what_was_never_told_is_not_told_to_be_over(catalog: Catalog) -> None:
    clock = SetClock()
    await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    await Watcher(catalog, clock).look()
    await made(catalog, "a", 0)
    await Watcher(catalog, clock).look()
    assert await told(catalog) == []


async def test_what_leaves_its_policies_or_is_gone_is_forgotten(catalog: Catalog) -> None:
    clock = SetClock()
    record = await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    await made(catalog, "a", 0)
    clock.go(3 * HOUR)
    await Watcher(catalog, clock).look()
    record = await catalog.policies.enable(record, False, now=START, cooling=HOUR)
    await told(catalog)
    await Watcher(catalog, clock).look()
    assert await told(catalog) == [], "nobody protects it now: that is no recovery"
    await catalog.policies.enable(record, True, now=START, cooling=HOUR)
    await Watcher(catalog, clock).look()
    assert await told(catalog) == ["protection.missed files1/0"]
    asset = await asset_of(catalog)
    await catalog.inventory.mark_gone([asset], START)
    await Watcher(catalog, clock).look()
    assert await catalog.late_assets.of([asset.id]) == {}
    assert await told(catalog) == []


async def test_of_several_servers_each_is_told_by_one(catalog: Catalog, database_url: str) -> None:
    clock = SetClock()
    count = 2 * TOGETHER + 1
    await add_assets(catalog, count=count)
    await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    await Watcher(catalog, clock).look()
    clock.go(2 * HOUR)
    async with open_catalog(database_url, KEY) as other:
        watchers = [Watcher(one, clock) for one in (catalog, other, catalog, other)]
        await asyncio.gather(*(watcher.look() for watcher in watchers))
    subjects = Counter(row.subject for row in await everything(catalog, "protection."))
    assert len(subjects) == count, "pages leave nothing out"
    assert set(subjects.values()) == {1}


async def test_what_was_seen_is_counted(catalog: Catalog) -> None:
    clock = SetClock()
    await add_assets(catalog, "bare", 2, capabilities=frozenset())
    await add_assets(catalog, "free", 3)
    await add_policy(catalog, "p", HOURLY, rpo="2h", **FILES1)
    await made(catalog, "a", 0)
    clock.go(3 * HOUR)
    watcher = Watcher(catalog, clock)
    assert (watcher.seen, watcher.age) == (None, None)
    await watcher.look()
    assert watcher.seen is not None
    assert watcher.seen.counts == dict.fromkeys(Cover, 0) | {Cover.LATE: 1, Cover.UNPROTECTED: 3, Cover.IMPOSSIBLE: 2}
    assert watcher.seen.most_of_rpo == pytest.approx(1.5, abs=0.01)
    clock.go(MINUTE)
    assert watcher.age == 60


async def test_changes_of_policies_are_told_with_who_made_them(catalog: Catalog) -> None:
    record = await catalog.policies.add("id", name="p", text="", document={}, now=START, cooling=HOUR, by="anna")
    record = await catalog.policies.change(
        record, text="x", document={}, begun_anew=(), now=START, cooling=HOUR, by="berta"
    )
    record = await catalog.policies.enable(record, False, now=START, cooling=HOUR, by="carl")
    record = await catalog.policies.enable(record, True, now=START, cooling=HOUR, by="dora")
    await catalog.policies.remove(record, by="emil")
    rows = await everything(catalog, "policy.changed")
    assert {(row.data["details"]["change"], row.data["actor"]) for row in rows} == {
        ("added", "anna"), ("changed", "berta"), ("disabled", "carl"), ("enabled", "dora"), ("removed", "emil"),
    }  # fmt: skip
    assert "The policy p was removed by emil" in {row.data["message"] for row in rows}


async def test_refused_retention_is_told_once_a_day(catalog: Catalog) -> None:
    clock = SetClock()
    record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": 1}}, delete_at_most=2, **FILES1)
    await pass_time(catalog, record)
    for number in range(4):
        await made(catalog, f"s{number}", number)
    pruner = Pruner(catalog, Deleted(catalog), clock)
    for _ in range(2):
        clock.go(PAUSE)
        await pruner.retain("id-p")
    (row,) = await everything(catalog, "retention.")
    assert row.data["message"] == "Retention of the policy p would delete 3 points: more than 2 of an asset and step"
    assert "`snapkeep policy prune p --plan HASH`" in row.data["next_step"]
    assert row.data["details"] == {"assets": 1, "points": 3, "most": 2}
    async with catalog.database.begin() as connection:
        await connection.execute(deliveries.update().values(created_at=row.created_at - QUIET))
    clock.go(PAUSE)
    await pruner.retain("id-p")
    assert len(await everything(catalog, "retention.")) == 2
