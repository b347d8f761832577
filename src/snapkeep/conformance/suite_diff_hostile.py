"""Diff on a system that fails or lies: a list is whole, or it is an error; never silently less."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from snapkeep.conformance.acts import Hand, connected, played, promise
from snapkeep.conformance.suite_diff import MANY, NEEDED, build, changes_of
from snapkeep.conformance.target import Fault, Step, Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.changes import ChangeOperation, ObjectType
from snapkeep.model.errors import BaseMissing, Incomplete, SnapkeepError
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import ChangeBatch, Pending, Ticket


def change_a_little(root: Path) -> None:
    """Make one change."""
    (root / "new").write_text("new")


async def pair(hand: Hand) -> tuple[Asset, Snapshot, Snapshot]:
    """Return an asset with two snapshots that differ."""
    asset = await hand.target.fresh_asset()
    build(hand.target.live_path(asset))
    base = await hand.create(asset)
    change_a_little(hand.target.live_path(asset))
    return asset, base, await hand.create(asset)


@promise(*NEEDED, Capability.DELETE)
async def test_a_missing_base_is_told_apart(target: Target) -> None:
    """When the base is gone the error is `BaseMissing`: a full helps, and the next step says so."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
        await hand.delete(asset, base)
        with pytest.raises(BaseMissing) as caught:
            await hand.start_diff(asset, base, new)
    assert "full" in caught.value.next_step


@promise(*NEEDED, Capability.DELETE)
async def test_a_base_deleted_while_reading_is_told_apart(target: Target) -> None:
    """When the base goes away in the middle of the list, the rest is `BaseMissing`, not an early end."""
    asset, base, new = await target.many_changes(MANY)
    async with connected(target) as hand:
        ticket = await hand.start_diff(asset, base, new)
        await hand.batches(ticket)
        reading = played(hand.roles.diff_files).read_diff(ticket)
        first = await anext(aiter(reading))
        assert isinstance(first, ChangeBatch)
        assert not first.complete
        await hand.delete(asset, base)
        with pytest.raises(BaseMissing):
            await hand.batches(ticket, first.cursor)


@promise(*NEEDED)
async def test_a_list_that_is_gone_is_incomplete(target: Target) -> None:
    """When the system has forgotten the list although both snapshots exist, it is `Incomplete`."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
        ticket = await hand.start_diff(asset, base, new)
    await target.suffer(Fault.VANISHED, Step.READ_DIFF, times=None)
    async with connected(target) as hand:
        with pytest.raises(Incomplete):
            await hand.batches(ticket)


@promise(*NEEDED)
async def test_the_list_of_other_snapshots_is_incomplete(target: Target) -> None:
    """A list that belongs to other snapshots than were asked for is never taken for the answer."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
        ticket = await hand.start_diff(asset, base, new)
    await target.suffer(Fault.OTHER_LIST, Step.READ_DIFF, times=None)
    async with connected(target) as hand:
        with pytest.raises(Incomplete):
            await hand.batches(ticket)


async def read_once(hand: Hand, ticket: Ticket, cursor: str | None) -> tuple[list[ChangeBatch], Pending | None]:
    """Return what one reading gives."""
    batches: list[ChangeBatch] = []
    pause: Pending | None = None
    async for item in played(hand.roles.diff_files).read_diff(ticket, cursor):
        if isinstance(item, Pending):
            pause = item
        else:
            batches.append(item)
    return batches, pause


@promise(*NEEDED)
async def test_a_list_that_is_never_ready_stays_pending(target: Target) -> None:
    """While the system computes, each reading ends with `Pending`: never with an end, never with an error."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
    await target.suffer(Fault.COMPUTING, Step.READ_DIFF, times=None)
    cursor: str | None = None
    async with connected(target) as hand:
        ticket = await hand.start_diff(asset, base, new)
        for _ in range(6):
            batches, pause = await read_once(hand, ticket, cursor)
            assert pause is not None
            assert pause.after > 0
            assert changes_of(batches) == []
            assert not any(batch.complete for batch in batches)
            cursor = batches[-1].cursor if batches else cursor


@promise(*NEEDED)
@pytest.mark.parametrize("fault", [Fault.STUCK_TOKEN, Fault.MISSING_TOKEN])
async def test_a_list_that_does_not_move_on_is_incomplete(target: Target, fault: Fault) -> None:
    """A list that has more, but no way to it, is `Incomplete` at once: neither an end nor an endless loop."""
    asset, base, new = await target.many_changes(MANY)
    async with connected(target) as hand:
        ticket = await hand.start_diff(asset, base, new)
        await hand.batches(ticket)
    await target.suffer(fault, Step.READ_DIFF, times=None)
    async with connected(target) as hand:
        with pytest.raises(Incomplete):
            async with asyncio.timeout(target.work_seconds):
                await hand.batches(ticket)


@promise(*NEEDED)
@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.RESET, Fault.UNAVAILABLE])
async def test_a_page_that_was_lost_is_read_again(target: Target, fault: Fault) -> None:
    """An answer that breaks is asked for again, and no change is lost or doubled."""
    asset, base, new = await target.many_changes(MANY)
    async with connected(target) as hand:
        ticket = await hand.start_diff(asset, base, new)
        whole = changes_of(await hand.batches(ticket))
    await target.suffer(fault, Step.READ_DIFF, times=2)
    async with connected(target) as hand:
        assert changes_of(await hand.batches(ticket)) == whole


@promise(*NEEDED)
@pytest.mark.parametrize("fault", [Fault.BROKEN_JSON, Fault.HTML, Fault.WRONG_SHAPE])
async def test_a_page_that_is_none_is_a_typed_error(target: Target, fault: Fault) -> None:
    """A page that cannot be read is an error with a next step; what was not read is not taken for the end."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
        ticket = await hand.start_diff(asset, base, new)
    await target.suffer(fault, Step.READ_DIFF, times=None)
    async with connected(target) as hand:
        with pytest.raises(SnapkeepError) as caught:
            await hand.batches(ticket)
    assert caught.value.code != "internal"
    assert caught.value.next_step


@promise(*NEEDED)
async def test_a_change_in_unknown_words_is_still_told(target: Target) -> None:
    """A change of an unknown kind is listed as `UNKNOWN` with its path, so that somebody looks at it again."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
        known = await hand.diff(asset, base, new)
    await target.suffer(Fault.UNKNOWN_WORDS, Step.READ_DIFF, times=None)
    async with connected(target) as hand:
        changes = await hand.diff(asset, base, new)
    assert {change.path for change in changes} == {change.path for change in known}
    assert {(change.operation, change.type) for change in changes} == {(ChangeOperation.UNKNOWN, ObjectType.OTHER)}


@promise(*NEEDED)
async def test_a_diff_whose_answer_was_lost_is_found_again(target: Target) -> None:
    """A lost answer to the question for a diff is no failure."""
    async with connected(target) as hand:
        asset, base, new = await pair(hand)
        await target.suffer(Fault.RESET_AFTER_EFFECT, Step.START_DIFF)
        assert b"new" in {change.path for change in await hand.diff(asset, base, new)}
