"""What is protected, since when, and what is not: by what is in the catalog."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.policy.test_pruning import asset_of, backed_up, catalog, made
from tests.policy.world import DRILL, HOUR, HOURLY, START, Noted, SetClock, add_assets, add_policy

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.drills import DrillRecord
from snapkeep.model.protections import LockMode, ProtectionKind
from snapkeep.policy.coverage import Cover, Coverage, coverage, loaded
from snapkeep.policy.runner import Runner

__all__ = ["catalog"]


async def covered(of: Catalog, clock: SetClock) -> dict[str, Coverage]:
    found = await coverage(of, await of.inventory.assets(), await loaded(of), clock.now())
    return {one.asset.reference: one for one in found}


async def test_each_asset_is_judged_by_its_last_good_recovery_point(catalog: Catalog) -> None:
    await add_assets(catalog, "bare", 1, capabilities=frozenset())
    await add_assets(catalog, "free", 1)
    clock = SetClock()
    told = await covered(catalog, clock)
    assert {name: one.cover for name, one in told.items()} == {
        "bare/0": Cover.IMPOSSIBLE, "files1/0": Cover.UNPROTECTED, "free/0": Cover.UNPROTECTED,
    }  # fmt: skip
    record = await add_policy(catalog, "p", HOURLY, assets=[{"system": "files1"}], rpo="2h")
    await add_policy(catalog, "q", HOURLY, assets=[{"system": "files1"}], rpo="1d")
    await Runner(catalog, Noted(), clock).tick()
    told = await covered(catalog, clock)
    assert told["files1/0"].cover is Cover.LATE, "there is nothing yet"
    assert told["files1/0"].policies == ["p", "q"]
    assert told["files1/0"].rpo == 2 * HOUR
    assert told["files1/0"].next_at == START.replace(second=0) + HOUR
    base = await made(catalog, "a", 0)
    clock.go(2 * HOUR)
    told = await covered(catalog, clock)
    assert (told["files1/0"].cover, told["files1/0"].age) == (Cover.OK, 2 * HOUR)
    clock.go(timedelta(seconds=1))
    assert (await covered(catalog, clock))["files1/0"].cover is Cover.LATE
    await backed_up(catalog, "x", 2, base, partial=True)
    assert (await covered(catalog, clock))["files1/0"].cover is Cover.LATE, "not all can be restored from it"
    await backed_up(catalog, "y", 2, base)
    assert (await covered(catalog, clock))["files1/0"].cover is Cover.OK
    assert (await covered(catalog, clock))["free/0"].cover is Cover.UNPROTECTED
    await catalog.policies.enable(record, False, now=START, cooling=HOUR)
    assert (await covered(catalog, clock))["files1/0"].policies == ["q"]


async def test_locks_are_told(catalog: Catalog) -> None:
    snapshot = await made(catalog, "a", 0)
    ends = [await catalog.database.now() + timedelta(days=days) for days in (2, 5, 3)]
    for number, until in enumerate(ends):
        await catalog.protections.place(
            f"l{number}", snapshot, kind=ProtectionKind.LOCK, mode=LockMode.GOVERNANCE, until=until, reason="r", by="a"
        )
    told = (await covered(catalog, SetClock()))[(await asset_of(catalog)).reference]
    assert told.locked_until == pytest.approx(ends[1], abs=timedelta(seconds=1))


async def test_a_promised_proof(catalog: Catalog) -> None:
    clock, day = SetClock(), timedelta(days=1)
    asset = await asset_of(catalog)
    base = await made(catalog, "a", 0)
    await backed_up(catalog, "y", 0, base)

    async def found(name: str, **values: Any) -> None:
        given: dict[str, Any] = {"kind": "drill", "whole": False, "passed": True, "reason": ""} | values
        record = DrillRecord(
            operation_id=name, asset_id=asset.id, system_name="files1", asset_name="0", repository_id="repository",
            repository_name="vault", backup_id="y", at=clock.now(), seconds=1.0, files=1, bytes=1, **given,
        )  # fmt: skip
        await catalog.drills.record(record)

    async def cover() -> Cover:
        return (await covered(catalog, clock))["files1/0"].cover

    await add_policy(catalog, "drills", DRILL, prove_every="1d")
    assert await cover() is Cover.UNPROTECTED, "what drills makes no recovery points"
    await add_policy(catalog, "p", HOURLY, rpo="20d", prove_every="30d")
    await catalog.policies.enable(await catalog.policies.get("drills"), False, now=START, cooling=HOUR)
    told = (await covered(catalog, clock))["files1/0"]
    assert (told.cover, told.prove_every, told.proved) == (Cover.UNPROVED, 30 * day, None)
    await found("sample", kind="verify")
    assert await cover() is Cover.UNPROVED
    await found("drill")
    assert await cover() is Cover.OK
    assert (await covered(catalog, clock))["files1/0"].proved == await catalog.drills.known("drill")
    clock.go(timedelta(seconds=1))
    await found("failed", passed=False, reason="torn")
    told = (await covered(catalog, clock))["files1/0"]
    assert (told.cover, told.failed and told.failed.reason) == (Cover.UNPROVED, "torn")
    clock.go(timedelta(seconds=1))
    await found("whole", kind="verify", whole=True)
    assert await cover() is Cover.OK
    clock.go(20 * day)
    assert await cover() is Cover.LATE
    await backed_up(catalog, "z", 20 * 24, base)
    assert await cover() is Cover.OK
    clock.go(10 * day)
    assert await cover() is Cover.OK
    clock.go(timedelta(seconds=1))
    assert await cover() is Cover.UNPROVED
    clock.go(10 * day)
    assert await cover() is Cover.LATE, "that is worse than that it is not proved"
