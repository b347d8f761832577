"""Discovery: everything, once, in an order that can be recorded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from snapkeep.conformance.acts import connected, own_name, promise, request_id
from snapkeep.conformance.target import Fault, Step, Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import Incomplete, InvalidInput, SnapkeepError, VendorError
from snapkeep.model.snapshots import Snapshot, SnapshotKind
from snapkeep.model.work import DiscoveryBatch

MANY = 230
"""Assets: more than two pages of a system that lists a hundred."""

MANY_SNAPSHOTS = 130


def repeated(found: Sequence[Asset | Snapshot]) -> list[str]:
    """Return the names of what was found more than once; the system itself may head each batch."""
    ids = Counter(item.id for item in found if isinstance(item, Snapshot) or item.parent_id is not None)
    return [item.name for item in found if ids[item.id] > 1]


def able(target: Target, found: Sequence[Asset]) -> list[Asset]:
    """Return those that can do all that their kind can, where it applies; not what only holds them."""
    declared = {
        kind: capabilities - target.inapplicable.keys() for kind, capabilities in target.plugin.capabilities.items()
    }
    return [
        asset
        for asset in found
        if asset.capabilities >= declared[asset.kind] != frozenset() and asset.parent_id is not None
    ]


@promise()
async def test_a_new_asset_is_discovered(target: Target) -> None:
    """An asset shows with name, kind, parent and what it can do, the same each time."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        assets, _ = await hand.everything()
        again, _ = await hand.everything()
    assert asset in assets
    assert assets == again
    assert asset.name
    assert asset.parent_id in {other.id for other in assets}


@promise(Capability.CREATE)
async def test_a_new_snapshot_is_discovered_as_ours(target: Target) -> None:
    """A snapshot shows as it was when it was made: ours, of its asset, with an aware time."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        found = await hand.snapshots_of(asset)
    assert found == [snapshot]
    assert (snapshot.owned, snapshot.kind, snapshot.asset_id) == (True, SnapshotKind.USER, asset.id)
    assert snapshot.created_at is not None
    assert abs(snapshot.created_at - datetime.now(UTC)) < timedelta(minutes=10)


@promise()
async def test_snapshots_of_others_are_told_apart(target: Target) -> None:
    """Each snapshot has its kind; ours are those with our mark and nothing else, whoever named them alike."""
    asset = await target.fresh_asset()
    ours = own_name(target)
    foreign = {
        "before the upgrade": SnapshotKind.USER,
        "hourly-1": SnapshotKind.SCHEDULE,
        "dr-1": SnapshotKind.REPLICATION,
        f"{ours}-copy": SnapshotKind.USER,
        f"my{ours}": SnapshotKind.USER,
        f"{ours}\u0661": SnapshotKind.USER,  # ends with a digit, but of another script
        ours[:-1].rstrip("0123456789"): SnapshotKind.USER,  # the mark alone
        ours.swapcase(): SnapshotKind.USER,
    }
    foreign = {
        await target.foreign_snapshot(asset, name, kind) or name: kind
        for name, kind in foreign.items()
        if kind in target.foreign_kinds
    }
    async with connected(target) as hand:
        if Capability.CREATE in asset.capabilities:
            await hand.create(asset, ours)
        found = {snapshot.name: snapshot for snapshot in await hand.snapshots_of(asset)}
    assert {name: found[name].kind for name in foreign} == foreign
    assert {name for name, snapshot in found.items() if snapshot.owned} == found.keys() & {ours}


@promise()
async def test_a_snapshot_of_the_systems_schedule_is_never_ours(target: Target) -> None:
    """What the system's own schedule made is not ours, even under a name of our form."""
    asset = await target.fresh_asset()
    await target.foreign_snapshot(asset, own_name(target), SnapshotKind.SCHEDULE)
    async with connected(target) as hand:
        assert [snapshot.owned for snapshot in await hand.snapshots_of(asset)] == [False]


@promise(Capability.CREATE, Capability.DELETE)
async def test_exists_tells_what_is_there_from_what_is_gone(target: Target) -> None:
    """Asked for one asset or snapshot, the system's own answer counts, not what a list showed."""
    asset = await target.fresh_asset()
    never = replace(asset, id=asset.id[:-4] + "0000", name="never-was")
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        discover = hand.roles.discover
        assert await discover.exists(asset)
        assert await discover.exists(asset, snapshot)
        assert not await discover.exists(never)
        assert not await discover.exists(never, replace(snapshot, asset_id=never.id))
        await hand.delete(asset, snapshot)
        assert await discover.exists(asset)
        assert not await discover.exists(asset, snapshot)


@promise()
async def test_an_asset_comes_before_its_snapshots_and_has_its_parent(target: Target) -> None:
    """An asset comes before its snapshots, so that each batch can be recorded; its parent comes at some time."""
    asset = await target.fresh_asset()
    await target.nested_asset(asset, f"0-{request_id()[:8]}")
    if Capability.CREATE in asset.capabilities:
        async with connected(target) as hand:
            await hand.create(asset)
    seen: set[str] = set()
    parents: list[str] = []
    async with target.connect() as roles:
        async for batch in roles.discover.discover():
            seen |= {found.id for found in batch.assets}
            parents += [found.parent_id for found in batch.assets if found.parent_id is not None]
            assert {snapshot.asset_id for snapshot in batch.snapshots} <= seen
    assert set(parents) <= seen
    assert parents.count(asset.id) == 1


@promise()
async def test_long_lists_are_complete(target: Target) -> None:
    """Of hundreds of assets each is there once, and so is each snapshot."""
    settings = await target.many_assets(MANY, snapshots=1)
    async with connected(target, **settings) as hand:
        assets, snapshots = await hand.everything()
    assert repeated(assets) == []
    assert repeated(snapshots) == []
    assert len(snapshots) == MANY
    assert len(able(target, assets)) == MANY


@promise()
async def test_more_snapshots_than_a_page_on_one_asset_are_complete(target: Target) -> None:
    """An asset with more than a hundred snapshots shows them all, once."""
    settings = await target.many_assets(1, snapshots=MANY_SNAPSHOTS)
    async with connected(target, **settings) as hand:
        _, snapshots = await hand.everything()
    assert len({snapshot.id for snapshot in snapshots}) == len(snapshots) == MANY_SNAPSHOTS


@promise()
async def test_discovery_resumes_at_every_cursor(target: Target) -> None:
    """Resumed after any batch, discovery brings the rest, and nothing of what should come is missing."""
    settings = await target.many_assets(MANY)
    async with target.connect(**settings) as roles:
        batches = [batch async for batch in roles.discover.discover()]
    every = [asset for batch in batches for asset in batch.assets]
    for done in range(0, len(batches), max(1, len(batches) // 4)):
        async with connected(target, **settings) as hand:
            rest, _ = await hand.everything(batches[done].cursor)
        wanted = {asset.id for batch in batches[done + 1 :] for asset in batch.assets}
        assert wanted <= {asset.id for asset in rest}
        assert len(rest) <= len(wanted) + len(every) // 4, "what was done already came again"


@promise()
async def test_a_cursor_that_is_none_is_refused(target: Target) -> None:
    """A cursor that no discovery gave is `InvalidInput`, not a discovery of something else."""
    async with connected(target) as hand:
        with pytest.raises(InvalidInput):
            await hand.everything("\u00b2 nonsense")


@promise()
async def test_only_the_last_batch_is_complete(target: Target) -> None:
    """`complete` is true on the last batch and on it only, and every batch has a cursor."""
    settings = await target.many_assets(20)
    async with target.connect(**settings) as roles:
        batches = [batch async for batch in roles.discover.discover()]
    assert [batch.complete for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert all(batch.cursor for batch in batches)


async def discover_while(target: Target, change: str) -> tuple[list[Asset], list[Asset]]:
    """Return what is there before, and what is found while the list is changed behind what was read."""
    settings = await target.many_assets(MANY)
    found: list[Asset] = []
    async with target.connect(**settings) as roles:
        before = [asset async for batch in roles.discover.discover() for asset in batch.assets]
        changed = False
        batch: DiscoveryBatch
        async for batch in roles.discover.discover():
            found += batch.assets
            seen = able(target, batch.assets)
            if seen and not changed:
                changed = True
                if change == "remove":
                    await target.remove_asset(seen[0])
                else:
                    await target.add_listed("0-the-first-of-all")
    assert changed
    return before, found


@promise()
async def test_an_asset_that_is_removed_while_listing_hides_no_other(target: Target) -> None:
    """When one asset is removed and the others move up, each of the others is still found, once."""
    before, found = await discover_while(target, "remove")
    assert repeated(found) == []
    missing = {asset.name for asset in before} - {asset.name for asset in found}
    assert missing == set()


@promise()
async def test_an_asset_that_is_added_while_listing_doubles_no_other(target: Target) -> None:
    """When an asset is added and the others move down, each of the others is found once."""
    before, found = await discover_while(target, "add")
    assert repeated(found) == []
    assert {asset.id for asset in before} <= {asset.id for asset in found}


@promise()
async def test_an_asset_that_vanishes_while_it_is_read_is_left_out(target: Target) -> None:
    """An asset whose snapshots cannot be listed because it is gone is left out; the others are there."""
    first, second = await target.fresh_asset(), await target.fresh_asset()
    await target.suffer(Fault.VANISHED, Step.LIST_SNAPSHOTS)
    async with connected(target) as hand:
        assets, _ = await hand.everything()
    assert len({first.id, second.id} & {asset.id for asset in assets}) == 1


@promise()
async def test_discovery_survives_a_short_outage(target: Target) -> None:
    """Answers that fail for a moment are asked for again, and nothing is lost."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.UNAVAILABLE, Step.LIST_ASSETS, times=2)
    await target.suffer(Fault.RESET, Step.LIST_SNAPSHOTS, times=1)
    async with connected(target) as hand:
        assert asset in (await hand.everything())[0]


@promise()
async def test_words_that_no_document_knows_do_no_harm(target: Target) -> None:
    """Unknown kinds and states are shown as unknown; discovery goes on, and no more is offered than is known."""
    asset = await target.fresh_asset()
    await target.foreign_snapshot(asset, "odd", SnapshotKind.SCHEDULE)
    await target.suffer(Fault.UNKNOWN_WORDS, Step.LIST_SNAPSHOTS, times=None)
    await target.suffer(Fault.UNKNOWN_WORDS, Step.LIST_ASSETS, times=None)
    async with connected(target) as hand:
        assets, snapshots = await hand.everything()
    found = next(found for found in assets if found.id == asset.id)
    assert found.capabilities <= asset.capabilities
    assert {(snapshot.kind, snapshot.owned) for snapshot in snapshots if snapshot.asset_id == asset.id} <= {
        (SnapshotKind.UNKNOWN, False)
    }


@promise()
async def test_a_list_that_does_not_move_on_is_no_complete_one(target: Target) -> None:
    """A system that gives the same page again and again is not taken for complete, nor asked for ever."""
    settings = await target.many_assets(MANY)
    await target.suffer(Fault.REPEATED_PAGE, Step.LIST_ASSETS, times=None)
    async with connected(target, **settings) as hand:
        with pytest.raises((Incomplete, VendorError)):
            await asyncio.wait_for(hand.everything(), 10)


@promise()
async def test_smaller_pages_than_asked_for_hide_nothing(target: Target) -> None:
    """A system that gives fewer at once than it was asked for shows everything, or the list is `Incomplete`."""
    settings = await target.many_assets(MANY)
    await target.suffer(Fault.SMALLER_PAGES, Step.LIST_ASSETS, times=None)
    async with connected(target, **settings) as hand:
        try:
            assets, _ = await hand.everything()
        except Incomplete:
            return
    assert len({asset.id for asset in able(target, assets)}) == MANY


@promise()
@pytest.mark.parametrize("step", [Step.LIST_ASSETS, Step.LIST_SNAPSHOTS])
async def test_a_list_of_something_else_is_a_typed_error(target: Target, step: Step) -> None:
    """Records of another shape than documented are reported as the system's fault, not as a crash of ours."""
    asset = await target.fresh_asset()
    await target.foreign_snapshot(asset, "one", SnapshotKind.USER)
    await target.suffer(Fault.WRONG_SHAPE, step, times=None)
    async with connected(target) as hand:
        with pytest.raises(SnapkeepError) as caught:
            await hand.everything()
    assert isinstance(caught.value, VendorError | Incomplete)
