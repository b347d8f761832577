"""What is applied is the plan, and nothing else: on a real catalog, whatever is in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from tests.policy.world import HOUR, HOURLY, NIGHTLY, START, SetClock, add_assets, add_policy, document

from snapkeep.catalog.audit_chain import Entry, Outcome
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.policies import PolicyRecord
from snapkeep.catalog.policy_points import PointRecord
from snapkeep.catalog.records import AssetRecord, BackupRecord, SnapshotRecord
from snapkeep.catalog.tables import exports, policy_runs
from snapkeep.model.errors import Conflict, Locked
from snapkeep.model.protections import LockMode, ProtectionKind
from snapkeep.model.snapshots import Snapshot
from snapkeep.operations.requester import Requester
from snapkeep.policy.planning import plan_of
from snapkeep.policy.pruning import PAUSE, Pruner
from snapkeep.policy.selecting import Loaded

KEY = b"k" * 32
FATES = ("plain", "held", "locked", "exported", "base", "foreign", "other", "gone")


class Deleted:
    """Notes what is deleted, and that it is gone."""

    def __init__(self, catalog: Catalog) -> None:
        self.names: list[str] = []
        self.by: set[str] = set()
        self._catalog = catalog

    async def delete(self, snapshot: SnapshotRecord, by: Requester) -> str:
        await self._catalog.protections.require_free(snapshot)
        await self._catalog.inventory.mark_gone([snapshot], START)
        self.names.append(snapshot.snapshot.name)
        self.by.add(by.name)
        return "operation"

    async def forget(self, backup: BackupRecord, by: Requester, entry: Entry) -> None:
        await self._catalog.backups.remove(backup.id, entry)
        self.names.append(backup.id)
        self.by.add(by.name)


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, KEY) as opened:
        await prepare(opened)
        yield opened


async def prepare(catalog: Catalog) -> None:
    await add_assets(catalog, count=1)
    place: dict[str, Any] = {"location": "/r", "restic_id": "r" * 64, "secrets": {}, "queue": "default"}
    await catalog.repositories.add("repository", name="vault", now=START, **place)


async def asset_of(catalog: Catalog) -> AssetRecord:
    return await catalog.inventory.find_asset("files1", "0")


async def made(catalog: Catalog, name: str, number: int, *, policy: str = "p", step: str = "hourly") -> SnapshotRecord:
    """A snapshot of the hour of a number; `policy`: empty: somebody else's."""
    asset = await asset_of(catalog)
    at = START + number * HOUR
    found = Snapshot(id=name, asset_id="v0", name=name, owned=bool(policy), created_at=at)
    await catalog.inventory.record_batch("id-files1", (), (found,), seen_by="o")
    if policy:
        await noted(catalog, f"run-{name}", name, at, policy, step, asset.id)
    return await catalog.inventory.find_snapshot(asset, name)


async def noted(
    catalog: Catalog, operation: str, snapshot: str | None, at: Any, policy: str, step: str, asset_id: str
) -> None:
    values = {"policy_id": "id-p", "policy": policy, "step": step, "asset_id": asset_id, "due_at": at}
    values |= {"operation_id": operation, "snapshot_name": snapshot, "state": "asked", "reason": "", "claimed_at": at}
    async with catalog.database.begin() as connection:
        await connection.execute(insert(policy_runs).values(values))


async def backed_up(catalog: Catalog, name: str, number: int, snapshot: SnapshotRecord, **values: Any) -> None:
    at = START + number * HOUR
    asset = await asset_of(catalog)
    given: dict[str, Any] = {"partial": False, "verification": None} | values
    record = BackupRecord(
        id=name, repository_id="repository", repository_name="vault", asset_id=asset.id, system_name="files1",
        asset_name="0", snapshot_id=snapshot.id, snapshot_name=snapshot.snapshot.name, snapshot_at=at,
        operation_id=f"run-{name}", restic_id=name * 10, tree_id="t", parent_id=None, mode="full", reason=None,
        counts={}, created_at=at, **given,
    )  # fmt: skip
    await noted(catalog, record.operation_id, None, at, "p", "nightly", asset.id)
    await catalog.backups.record(record)


async def protect(catalog: Catalog, snapshot: SnapshotRecord, fate: str) -> None:
    until = (await catalog.database.now()) + timedelta(days=3)
    if fate == "held":
        await catalog.protections.place(
            f"p{random.randrange(10**12)}", snapshot, kind=ProtectionKind.HOLD, reason="case 12", by="anna"
        )
    elif fate == "locked":
        await catalog.protections.place(
            f"p{random.randrange(10**12)}", snapshot, kind=ProtectionKind.LOCK, mode=LockMode.COMPLIANCE, until=until,
            reason="law", by="anna",
        )  # fmt: skip
    elif fate == "exported":
        values: dict[str, Any] = {
            "host_name": "h",
            "host_address": "1",
            "mode": "ro",
            "state": "active",
            "locations": [],
        }
        async with catalog.database.begin() as connection:
            values |= {"id": f"e{random.randrange(10**12)}", "snapshot_id": snapshot.id, "created_at": START}
            await connection.execute(insert(exports).values(values))
    elif fate == "gone":
        await catalog.inventory.mark_gone([snapshot], START)


async def plan(catalog: Catalog, record: PolicyRecord) -> tuple[list[PointRecord], str]:
    return await plan_of(catalog, Loaded.of(record).policy)


async def test_reasons_are_those_of_the_catalog(catalog: Catalog) -> None:
    record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": 1}}, NIGHTLY | {"keep": {"last": 1}})
    for number, (name, policy) in enumerate((("a", "p"), ("b", "p"), ("c", ""), ("d", "q"), ("e", "p"), ("f", "p"))):
        await made(catalog, name, number, policy=policy)
    await protect(catalog, await catalog.inventory.find_snapshot(await asset_of(catalog), "a"), "held")
    await protect(catalog, await catalog.inventory.find_snapshot(await asset_of(catalog), "b"), "locked")
    base = await catalog.inventory.find_snapshot(await asset_of(catalog), "e")
    await backed_up(catalog, "x", 1, base)
    await backed_up(catalog, "y", 2, base, partial=True)
    found = await catalog.policy_points.of([(await asset_of(catalog)).id])
    (points,) = found.values()
    words = {point.reference.partition("@")[2]: "; ".join(point.kept_by) for point in points}
    assert words["a"] == "hold (case 12)"
    assert words["b"].startswith("compliance lock until 20")
    assert words["e"] == "base of the next incremental backup into vault"
    assert words["e in vault"] in {"the next incremental backup into vault goes on from it", ""}
    assert {point.id: point.is_good for point in points if point.kind == "backup"} == {"x": True, "y": False}
    assert [point.id for point in (await plan(catalog, record))[0]] == ["x"]


async def test_a_plan_that_is_another_one_by_now_is_refused(catalog: Catalog) -> None:
    record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": 1}})
    for number, name in enumerate("abc"):
        await made(catalog, name, number)
    deleted = Deleted(catalog)
    pruner = Pruner(catalog, deleted, SetClock())
    going, digest = await plan(catalog, record)
    assert len(going) == 2
    await made(catalog, "d", 9)
    with pytest.raises(Conflict):
        await pruner.prune(record, digest, Requester("anna"))
    assert deleted.names == []
    _, digest = await plan(catalog, record)
    done = await pruner.prune(record, digest, Requester("anna"))
    assert deleted.names == ["a", "b", "c"]
    assert (deleted.by, done.refused) == ({"anna"}, [])


@pytest.mark.parametrize("by", [Requester("anna", kind="user"), Requester("policy:p", is_operation=True)])
async def test_each_recovery_point_that_is_forgotten_is_on_record(catalog: Catalog, by: Requester) -> None:
    record = await add_policy(catalog, "p", NIGHTLY | {"keep": {"last": 1}})
    for number, name in enumerate("abc"):
        await backed_up(catalog, name, number, await made(catalog, f"of-{name}", number, policy=""))
    going, digest = await plan(catalog, record)
    assert [point.id for point in going] == ["a", "b"]
    await Pruner(catalog, Deleted(catalog), SetClock()).prune(record, digest, by)
    lines = [line.entry for line in await catalog.audit.find(action="backup.forget", newest_first=False)]
    told = [(entry.actor, entry.actor_kind, entry.outcome, entry.detail) for entry in lines]
    kind = by.kind or "operation"
    assert told == [(by.name, kind, Outcome.DONE, {"id": name}) for name in "ab"]
    assert lines[0].subject == going[0].reference
    assert await catalog.report_figures.forgotten(*(await around_now(catalog))) == 2


async def test_without_a_line_on_record_no_recovery_point_is_forgotten(catalog: Catalog) -> None:
    await backed_up(catalog, "a", 0, await made(catalog, "of-a", 0, policy=""))
    cannot_be_written = Entry(
        actor="anna", actor_kind="user", source="", action="backup.forget", subject="a", outcome=Outcome.DONE,
        detail={"id": object()},
    )  # fmt: skip
    with pytest.raises(TypeError):
        await catalog.backups.remove("a", cannot_be_written)
    assert (await catalog.backups.get("a")).id == "a"


async def around_now(catalog: Catalog) -> tuple[datetime, datetime]:
    now = await catalog.database.now()
    return now - HOUR, now + HOUR


async def test_what_would_be_forgotten_is_not_counted(catalog: Catalog) -> None:
    for outcome, detail in (
        (Outcome.ASKED, {}), (Outcome.DONE, {"dry_run": True}), (Outcome.DONE, {}), (Outcome.FAILED, {"code": "busy"}),
    ):  # fmt: skip
        entry = Entry(
            actor="anna", actor_kind="user", source="", action="backup.forget", subject="/backups/a", outcome=outcome,
            detail=detail,
        )  # fmt: skip
        await catalog.audit.append(entry)
    assert await catalog.report_figures.forgotten(*(await around_now(catalog))) == 1


async def test_what_is_locked_at_the_last_moment_stays(catalog: Catalog) -> None:
    record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": 1}})
    first = await made(catalog, "a", 0)
    for number, name in enumerate("bc", 1):
        await made(catalog, name, number)

    class Late(Deleted):
        async def delete(self, snapshot: SnapshotRecord, by: Requester) -> str:
            if snapshot.id == first.id:
                await protect(catalog, first, "locked")
            return await super().delete(snapshot, by)

    _, digest = await plan(catalog, record)
    done = await Pruner(catalog, Late(catalog), SetClock()).prune(record, digest, Requester("anna"))
    assert [(one.reference, type(error)) for one, error in done.refused] == [("files1/0@a", Locked)]
    assert [one.reference for one, _ in done.deleted] == ["files1/0@b"]


async def test_while_there_are_points_of_the_future_it_deletes_nothing_by_itself(catalog: Catalog) -> None:
    record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": 1}})
    for number, name in ((0, "a"), (1, "b"), (25, "of-a-clock-that-was-wrong")):
        await made(catalog, name, number)
    await made(catalog, "foreign", 10_000, policy="")  # whatever the clock of a system shows
    await pass_time(catalog, record)
    clock, deleted = SetClock(START + 2 * HOUR), Deleted(catalog)  # b is the newest, really
    pruner = Pruner(catalog, deleted, clock)
    assert await pruner.retain(record.id) is not None
    assert deleted.names == []
    clock.go(20 * HOUR)
    assert await pruner.retain(record.id) is not None
    assert deleted.names == ["a", "b"]


async def test_by_itself_it_waits_deletes_no_more_than_it_may_and_takes_turns(catalog: Catalog) -> None:
    clock = SetClock(START + 30 * HOUR)
    record = await add_policy(
        catalog, "p", HOURLY | {"keep": {"last": 1}}, NIGHTLY | {"keep": {"last": 1}}, delete_at_most=2
    )
    for number, name in enumerate("abcd"):
        await made(catalog, name, number)
    for number, name in enumerate("wxyz"):
        base = await made(catalog, f"of-{name}", 20 + number, policy="")
        if number > 0:
            await backed_up(catalog, name, 20 + number, base)
    deleted = Deleted(catalog)
    pruner = Pruner(catalog, deleted, clock)
    assert await pruner.retain(record.id) is None, "it was changed lately"
    await pass_time(catalog, record)
    assert await pruner.retain(record.id) is not None
    assert deleted.names == ["x", "y"], "of the snapshots three would go, which is more than it may"
    assert await pruner.retain(record.id) is None, "another server has just done so"
    clock.go(PAUSE)
    assert await pruner.retain(record.id) is not None
    wider = document("p", HOURLY | {"keep": {"last": 1}}, delete_at_most=3)
    record = await catalog.policies.change(record, text="", document=wider, begun_anew=[], now=START, cooling=HOUR)
    clock.go(PAUSE)
    assert await pruner.retain(record.id) is None, "somebody may notice"
    await pass_time(catalog, record)
    await pruner.retain(record.id)
    assert deleted.names == ["x", "y", "a", "b", "c"]
    assert deleted.by == {"policy:p"}


async def test_a_change_in_the_middle_ends_it(catalog: Catalog) -> None:
    await add_assets(catalog, count=3)
    record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": 1}})
    for asset in await catalog.inventory.assets():
        for number in range(2):
            name = f"{asset.asset.name}-{number}"
            found = Snapshot(id=name, asset_id=asset.asset.id, name=name, owned=True, created_at=START + number * HOUR)
            await catalog.inventory.record_batch("id-files1", (), (found,), seen_by="o")
            await noted(catalog, f"run-{name}", name, START, "p", "hourly", asset.id)
    await pass_time(catalog, record)

    class Changing(Deleted):
        async def delete(self, snapshot: SnapshotRecord, by: Requester) -> str:
            if not self.names:
                wider = document("p", HOURLY | {"keep": {"last": 5}})
                await catalog.policies.change(record, text="", document=wider, begun_anew=[], now=START, cooling=HOUR)
            return await super().delete(snapshot, by)

    deleted = Changing(catalog)
    await Pruner(catalog, deleted, SetClock()).retain(record.id)
    assert deleted.names == ["0-0"]


async def pass_time(catalog: Catalog, record: PolicyRecord) -> None:
    """Let the observed time pass until the retention of a policy may delete."""
    seen = await catalog.protections.time.observe("test", 0.0)
    seconds = (record.deletes_from - seen).total_seconds() + 1
    await catalog.protections.time.observe("test", seconds, wall=seen + timedelta(seconds=seconds))
    assert await catalog.protections.time.now() >= record.deletes_from


histories = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(FATES)), min_size=1, max_size=10)


@given(histories, st.integers(1, 3))
@settings(max_examples=8, deadline=None, phases=(Phase.generate,))
def test_exactly_the_plan_is_deleted_and_nothing_that_is_kept(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, str]], last: int
) -> None:
    asyncio.run(exactly(tmp_path_factory.mktemp("plan"), history, last))


async def exactly(directory: Path, history: list[tuple[int, str]], last: int) -> None:
    async with open_catalog(f"sqlite+aiosqlite:///{directory / 'catalog.sqlite'}", KEY) as catalog:
        await prepare(catalog)
        record = await add_policy(catalog, "p", HOURLY | {"keep": {"last": last}})
        for number, (hour, fate) in enumerate(history):
            policy = {"foreign": "", "other": "q"}.get(fate, "p")
            snapshot = await made(catalog, f"{fate}-{number}", hour, policy=policy)
            await protect(catalog, snapshot, fate)
            if fate == "base":
                await backed_up(catalog, f"b{number}", hour, snapshot)
        there = {one.snapshot.name for one in await catalog.inventory.snapshots()}
        going, digest = await plan(catalog, record)
        deleted = Deleted(catalog)
        await Pruner(catalog, deleted, SetClock()).prune(record, digest, Requester("anna"))
        names = [point.reference.rpartition("@")[2] for point in going]
        assert sorted(deleted.names) == sorted(names)
        left = {one.snapshot.name for one in await catalog.inventory.snapshots()}
        assert left == there - set(names)
        bases = [chain.snapshot_id for chain in await catalog.backups.chains_of("repository")]
        pinned = {one.snapshot.name for one in await catalog.inventory.snapshots() if one.id in bases}
        assert not {name.partition("-")[0] for name in names} & {
            "held",
            "locked",
            "exported",
            "foreign",
            "other",
            "gone",
        }
        assert pinned <= left
        assert left or not there, "the last one stays"
        own = sorted(
            (
                (hour, f"{fate}-{number}")
                for number, (hour, fate) in enumerate(history)
                if fate not in ("foreign", "other", "gone")
            ),
        )
        assert {name for _, name in own[-last:]} <= left or len({hour for hour, _ in own}) < len(own)
