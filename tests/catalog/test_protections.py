"""Holds, locks and the time by which they end: on both stores, at the same moment, and with clocks that lie."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.observed_time import PATIENCE, SPEED
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.protections import LONGEST
from snapkeep.catalog.records import BackupRecord, OperationState, ProtectionRecord, SnapshotRecord
from snapkeep.model.access import EVERYWHERE, Scope
from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.errors import Busy, Conflict, InvalidInput, Locked, NotFound
from snapkeep.model.protections import LockMode, ProtectionKind
from snapkeep.model.snapshots import Snapshot

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PAGE = Paging()


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    """Two snapshots of one asset, and a recovery point of each."""
    async with open_catalog(database_url, b"k" * 32) as opened:
        await opened.systems.add("system", "s", "p", {}, {}, "default", NOW)
        share = Asset(id="v", kind=AssetKind.SHARE, name="a")
        found = [Snapshot(id=name, asset_id="v", name=name, owned=True) for name in ("one", "two")]
        await opened.inventory.record_batch("system", [share], found, seen_by="o")
        place: dict[str, Any] = {"location": "/r", "restic_id": "r" * 64, "secrets": {}, "queue": "default"}
        await opened.repositories.add("repository", name="r", now=NOW, **place)
        for item in await opened.inventory.snapshots():
            await opened.backups.record(backup_of(item))
        yield opened


def backup_of(item: SnapshotRecord) -> BackupRecord:
    return BackupRecord(
        id=f"b-{item.snapshot.name}",
        repository_id="repository",
        repository_name="r",
        asset_id=item.asset_id,
        system_name="s",
        asset_name="a",
        snapshot_id=item.id,
        snapshot_name=item.snapshot.name,
        snapshot_at=None,
        operation_id="o",
        restic_id=item.snapshot.name * 10,
        tree_id="t",
        parent_id=None,
        mode="full",
        reason=None,
        partial=False,
        counts={},
        verification=None,
        created_at=NOW,
    )


async def subjects(catalog: Catalog) -> list[SnapshotRecord | BackupRecord]:
    one = next(item for item in await catalog.inventory.snapshots() if item.snapshot.name == "one")
    return [one, await catalog.backups.get("b-one")]


async def in_a_day(catalog: Catalog) -> datetime:
    return await catalog.database.now() + DAY


async def place(catalog: Catalog, subject: SnapshotRecord | BackupRecord, **values: Any) -> ProtectionRecord:
    """Place a compliance lock of a day, unless told otherwise."""
    given: dict[str, Any] = {"kind": ProtectionKind.LOCK, "mode": LockMode.COMPLIANCE, "reason": "law", "by": "anna"}
    given |= {"until": await in_a_day(catalog)} | values
    if given["kind"] is ProtectionKind.HOLD:
        given["mode"] = None
    return await catalog.protections.place(f"p{random.randrange(10**12)}", subject, **given)


async def delete_operation(catalog: Catalog, operation_id: str, snapshot_id: str) -> None:
    await catalog.operations.add(
        operation_id=operation_id,
        kind="delete",
        system_id="system",
        system_name="s",
        queue="default",
        exclusive=None,
        target="t",
        request={"snapshot_id": snapshot_id},
        requester="me",
        now=NOW,
    )


async def pass_time(catalog: Catalog, span: timedelta) -> None:
    """Let the observed time go on, as a keeper does that has seen so much of it pass."""
    time, keeper = catalog.protections.time, "keeper"
    begin = max(await time.now(), await catalog.database.now())
    await time.observe(keeper, 0.0, begin + PATIENCE * 2)
    await time.observe(keeper, (span + PATIENCE * 2).total_seconds(), begin + span + PATIENCE * 2)


# -- placing and releasing ---------------------------------------------------------------------------------------------
async def test_what_is_kept_is_not_deleted(catalog: Catalog) -> None:
    for number, subject in enumerate(await subjects(catalog)):
        await catalog.protections.require_free(subject)
        lock = await place(catalog, subject)
        hold = await place(catalog, subject, kind=ProtectionKind.HOLD, until=None, reason="case 7")
        for attempt in (
            catalog.protections.require_free(subject),
            catalog.protections.begin_deletion(subject, f"d{number}", by="eve"),
        ):
            with pytest.raises(
                Locked, match=r"compliance lock .* by anna until .*, law; hold .* by anna, case 7"
            ) as why:
                await attempt
            assert why.value.details["until"] is None, "a hold without an end has none"
            assert set(why.value.details["protections"]) == {lock.id, hold.id}
        await catalog.protections.release(hold)
        with pytest.raises(Locked, match="s/a@one is kept") as why:
            await catalog.protections.require_free(subject)
        assert lock.until is not None
        assert why.value.details["until"] == lock.until.isoformat(timespec="seconds")
        assert "nobody can shorten" in why.value.next_step
        with pytest.raises(Conflict):
            await catalog.protections.release(hold)


async def test_nothing_that_is_kept_is_forgotten_with_something_else(catalog: Catalog) -> None:
    snapshot, backup = await subjects(catalog)
    locks = [await place(catalog, snapshot), await place(catalog, backup)]
    assert isinstance(snapshot, SnapshotRecord)
    await catalog.inventory.mark_gone([snapshot], NOW)  # as the system says, or something in its place
    for forgetting in (
        catalog.systems.remove("system"),
        catalog.repositories.remove("repository"),
        catalog.backups.remove("b-one"),
    ):
        with pytest.raises(Locked):
            await forgetting
    assert {item.id for item in await catalog.protections.find(PAGE)} == {lock.id for lock in locks}
    assert (await catalog.systems.dependents("system"))["holds and locks"] == 1
    await pass_time(catalog, 2 * DAY)
    assert (await catalog.systems.dependents("system"))["holds and locks"] == 0
    assert list(await catalog.protections.find(PAGE)) == []
    assert len(await catalog.protections.find(PAGE, ended=True)) == 2
    await catalog.repositories.remove("repository")
    await catalog.systems.remove("system")
    assert list(await catalog.protections.find(PAGE, ended=True)) == []


async def test_nobody_shortens_a_compliance_lock(catalog: Catalog) -> None:
    for subject in await subjects(catalog):
        lock = await place(catalog, subject)
        assert lock.until is not None
        for until in (lock.until - timedelta(hours=1), lock.until, NOW, lock.until + DAY):
            with pytest.raises(Locked, match="shortened by nobody"):
                await catalog.protections.shorten(lock, until)
        with pytest.raises(InvalidInput, match="not later"):
            await catalog.protections.extend(lock, lock.until - timedelta(minutes=1))
        with pytest.raises(Conflict):
            await catalog.protections.release(lock)
        later = await catalog.protections.extend(lock, lock.until + DAY)
        assert later.until == lock.until + DAY
        with pytest.raises(InvalidInput, match="not later"):  # by who has read it before
            await catalog.protections.extend(lock, lock.until)
        assert await catalog.protections.get(lock.id) == later


async def test_a_governance_lock_is_shortened(catalog: Catalog) -> None:
    for subject in await subjects(catalog):
        lock = await place(catalog, subject, mode=LockMode.GOVERNANCE)
        assert lock.until is not None
        with pytest.raises(InvalidInput, match="not sooner"):
            await catalog.protections.shorten(lock, lock.until + DAY)
        sooner = lock.until - timedelta(hours=1)
        assert (await catalog.protections.shorten(lock, sooner)).until == sooner
        with pytest.raises(Locked, match="governance lock"):
            await catalog.protections.require_free(subject)
        assert not (await catalog.protections.shorten(lock, NOW)).in_force
        await catalog.protections.require_free(subject)
        for change in (catalog.protections.shorten, catalog.protections.extend):
            with pytest.raises(Conflict, match="has ended"):
                await change(lock, NOW if change == catalog.protections.shorten else await in_a_day(catalog))


async def test_an_end_lies_in_the_future_and_not_in_another_age(catalog: Catalog) -> None:
    snapshot, _ = await subjects(catalog)
    now = await catalog.database.now()
    for until in (now - DAY, now, now + LONGEST + DAY):
        with pytest.raises(InvalidInput, match="no end of a hold or lock"):
            await place(catalog, snapshot, until=until)
    lock = await place(catalog, snapshot)
    with pytest.raises(InvalidInput, match="no end"):
        await catalog.protections.extend(lock, now + LONGEST + DAY)
    assert isinstance(snapshot, SnapshotRecord)
    await catalog.inventory.mark_gone([snapshot], NOW)
    with pytest.raises(NotFound, match="no longer exists"):
        await place(catalog, snapshot)


async def test_who_may_see_what_is_kept_sees_by_what(catalog: Catalog) -> None:
    for subject in await subjects(catalog):
        await place(catalog, subject)
    await catalog.identities.set_labels("system", {"env": "prod"})
    asset = (await subjects(catalog))[0].asset_id
    for scope, count in (
        (EVERYWHERE, 2), (Scope.parse("system:s"), 2), (Scope.parse(f"asset:{asset}"), 2),
        (Scope.parse("repository:r"), 1), (Scope.parse("label:env=prod"), 2), (Scope.parse("system:t"), 0),
        (Scope.parse("label:env=test"), 0),
    ):  # fmt: skip
        found = await catalog.protections.find(PAGE, visible=((scope,),))
        assert len(found) == count, scope
        for item in await catalog.protections.find(PAGE):
            if item in found:
                assert await catalog.protections.get(item.id, ((scope,),)) == item
            else:
                with pytest.raises(NotFound):
                    await catalog.protections.get(item.id, ((scope,),))


# -- at the same moment ------------------------------------------------------------------------------------------------
async def after(awaits: int, work: Awaitable[None]) -> None:
    for _ in range(awaits):
        await asyncio.sleep(0)
    await work


async def test_of_a_deletion_and_a_lock_at_once_one_is_refused(catalog: Catalog) -> None:
    snapshot, backup = await subjects(catalog)
    wins, end = set(), await in_a_day(catalog)
    for turn in range(24):
        subject, operation_id = (snapshot, backup)[turn % 2], f"o{turn}"
        if subject is snapshot:
            await delete_operation(catalog, operation_id, snapshot.id)
        lock = place(catalog, subject, mode=LockMode.GOVERNANCE, until=end)
        deletion = catalog.protections.begin_deletion(subject, operation_id, by="eve")
        both = await asyncio.gather(lock, after(turn * 2, deletion), return_exceptions=True)
        refused = [found for found in both if isinstance(found, BaseException)]
        assert [type(found) for found in refused] in ([Locked], [Busy]), both
        wins.add(type(refused[0]))
        for placed in both:
            if isinstance(placed, ProtectionRecord):
                await catalog.protections.shorten(placed, NOW)
        await catalog.operations.change(
            operation_id, [OperationState.QUEUED], state=OperationState.FAILED, ended_at=NOW
        )
        await catalog.protections.end_deletion(operation_id)
    assert wins == {Locked, Busy}


async def test_what_is_being_deleted_is_protected_only_after_that_failed(catalog: Catalog) -> None:
    snapshot, backup = await subjects(catalog)
    await delete_operation(catalog, "o" * 36, snapshot.id)
    await place(catalog, snapshot, mode=LockMode.GOVERNANCE, until=await in_a_day(catalog))  # it has not begun yet
    await pass_time(catalog, 2 * DAY)
    for subject, deletion in ((snapshot, "o" * 36), (backup, "d")):
        for _ in range(2):  # a deletion that is run again
            await catalog.protections.begin_deletion(subject, deletion, by="eve")
        with pytest.raises(Busy, match="is being deleted already"):
            await place(catalog, subject, until=await in_a_day(catalog) + 3 * DAY)
    await catalog.operations.change("o" * 36, [OperationState.QUEUED], state=OperationState.FAILED, ended_at=NOW)
    await catalog.protections.end_deletion("d")
    for subject in (snapshot, backup):
        assert (await place(catalog, subject, until=await in_a_day(catalog) + 3 * DAY)).in_force


async def test_a_deletion_that_died_with_its_server_keeps_nobody_from_protecting(catalog: Catalog) -> None:
    _, backup = await subjects(catalog)
    await catalog.protections.begin_deletion(backup, "d", by="eve")
    with pytest.raises(Busy):
        await place(catalog, backup, until=await in_a_day(catalog))
    await catalog.protections.end_lost_deletions()
    assert (await place(catalog, backup, until=await in_a_day(catalog))).in_force


# -- the time ----------------------------------------------------------------------------------------------------------
async def test_a_lock_ends_by_time_that_was_seen_to_pass(catalog: Catalog) -> None:
    snapshot, _ = await subjects(catalog)
    lock, time = await place(catalog, snapshot), catalog.protections.time
    now = await time.now()
    await time.observe("a", 0.0, now + PATIENCE * 2)
    for wall in (now + 3650 * DAY, now - 3650 * DAY, now + 2 * DAY):  # one sets the clock
        await time.observe("a", 5.0, wall)
        with pytest.raises(Locked):
            await catalog.protections.require_free(snapshot)
    assert (await time.now()) - now <= timedelta(seconds=3 * 5 * SPEED)
    for hour in range(24):  # time passes, by both clocks
        assert (await catalog.protections.get(lock.id)).in_force
        await time.observe("a", 3600.0, now + timedelta(hours=hour + 1, seconds=60))
    await time.observe("a", 60.0, now + timedelta(hours=24, seconds=120))
    assert not (await catalog.protections.get(lock.id)).in_force
    await catalog.protections.require_free(snapshot)
    for wall in (now, now - 3650 * DAY):  # a clock that is set back brings none back
        await time.observe("a", 3600.0, wall)
        await catalog.protections.require_free(snapshot)


@pytest.mark.parametrize("seed", range(6))
async def test_the_observed_time_never_runs_ahead_nor_back(catalog: Catalog, seed: int) -> None:
    """Several keepers, that pause and die, and a clock that is set at random: at most `SPEED` times the real time."""
    chance, time = random.Random(seed), catalog.protections.time
    begin = await time.now()
    real, ahead = 0.0, 0.0
    last: dict[str, float] = {}
    before = begin
    for _ in range(60):
        real += chance.choice([0.0, 1.0, 5.0, 59.0, 61.0, 3600.0])
        if chance.random() < 0.4:
            ahead += chance.choice([-1, 1]) * chance.choice([1.0, 30.0, 3600.0, 86400.0, 1e8])
        keeper = chance.choice("abc")
        if chance.random() < 0.1:
            last.pop(keeper, None)  # another process of the same kind, that has measured nothing yet
            keeper = keeper.upper()
        measured = real - last.get(keeper, real)
        last[keeper] = real
        after = await time.observe(keeper, measured, begin + timedelta(seconds=real + ahead))
        assert before <= after == await time.now()
        assert after - begin <= timedelta(seconds=real * SPEED)
        before = after


async def test_it_follows_an_honest_clock_and_makes_up_for_a_time_in_which_nothing_ran(catalog: Catalog) -> None:
    time = catalog.protections.time
    now = await time.now() + PATIENCE * 2
    await time.observe("a", 0.0, now)
    for _ in range(60):
        now += timedelta(seconds=5)
        await time.observe("a", 5.0, now)
    assert await time.now() == now
    now += 2 * DAY
    assert await time.observe("b", 0.0, now) == now - 2 * DAY, "a new process has seen none of it"
    assert await time.observe("a", 2.0, now) == now - 2 * DAY, "one keeps it at a time"
    await time.observe("b", DAY.total_seconds(), now + DAY)
    assert await time.now() == now
    await time.observe("b", DAY.total_seconds(), now + 2 * DAY)
    assert await time.now() == now + 2 * DAY
