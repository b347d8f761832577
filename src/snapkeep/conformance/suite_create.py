"""Create: one snapshot for one request, whatever happens on the way."""

from __future__ import annotations

import asyncio

import pytest

from snapkeep.conformance.acts import (
    at_most,
    connected,
    drive,
    nothing_sent,
    own_name,
    played,
    promise,
    recorded,
    request_id,
    stays_pending,
)
from snapkeep.conformance.target import FAILED_TASK_TEXT, Circumstance, Fault, Step, Target
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Conflict, InvalidInput, LimitExceeded, NotFound, SnapkeepError, Unavailable
from snapkeep.model.snapshots import SnapshotKind
from snapkeep.model.work import Pending

ODD_NAMES = ["it's", 'a "b" c', "50%25 + #1 & co", "ünï ©öde", "漢字" * 10, ".hidden", "a b  c", "x" * 80]
BAD_NAMES = ["", "a/b", ".", "..", "tab\there", "line\nbreak", "nul\0", "x" * 5000]


@promise(Capability.CREATE)
async def test_create_makes_a_snapshot_of_that_name(target: Target) -> None:
    """The result has the name and the asset that were asked for."""
    asset = await target.fresh_asset()
    name = own_name(target)
    async with connected(target) as hand:
        snapshot = await hand.create(asset, name)
    assert (snapshot.name, snapshot.asset_id) == (name, asset.id)


@promise(Capability.CREATE)
async def test_a_create_is_polled_by_another_process(target: Target) -> None:
    """A ticket is enough to poll from a new connection, and polling after the result gives it again."""
    asset = await target.fresh_asset()
    async with target.connect() as roles:
        ticket = recorded(await played(roles.create).start_create(asset, own_name(target), request_id()))
    async with target.connect() as roles:
        role = played(roles.create)
        first = await drive(target, lambda: role.poll_create(ticket))
        assert await role.poll_create(ticket) == first


@promise(Capability.CREATE)
async def test_create_waits_until_the_snapshot_is_there(target: Target) -> None:
    """While the system works, polls are `Pending`; the snapshot comes when it can be read back."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.SLOW_TASKS, value=0.4)
    async with connected(target) as hand:
        role = played(hand.roles.create)
        ticket = recorded(await role.start_create(asset, own_name(target), request_id()))
        assert isinstance(await role.poll_create(ticket), Pending)
        snapshot = await drive(target, lambda: role.poll_create(ticket))
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(Capability.CREATE)
@pytest.mark.parametrize("ours", [True, False], ids=["our-name", "a-persons-name"])
async def test_create_repeated_with_one_request_id_makes_one_snapshot(target: Target, ours: bool) -> None:
    """Started again with the same name and request id, at once and after the end, it is the same snapshot.

    A name that a person chose does not show who made it: there the request id alone tells.
    """
    asset, request = await target.fresh_asset(), request_id()
    name = own_name(target) if ours else "before the upgrade"
    async with connected(target) as hand:
        role = played(hand.roles.create)
        await role.start_create(asset, name, request)
        first = await hand.create(asset, name, request)
        assert await hand.create(asset, name, request) == first
        assert await hand.snapshots_of(asset) == [first]


@promise(Capability.CREATE)
@pytest.mark.parametrize("slow", [0.0, 0.4], ids=["done", "still-working"])
async def test_create_after_a_crash_finds_what_it_made(target: Target, slow: float) -> None:
    """On a system that forgets request ids, too, a second start finds the snapshot of the first."""
    asset, name = await target.fresh_asset(), own_name(target)
    await target.suffer(Fault.FORGETFUL)
    await target.suffer(Fault.SLOW_TASKS, value=slow)
    async with connected(target) as hand:
        role = played(hand.roles.create)
        ticket = await role.start_create(asset, name, request_id())
        if not slow:
            await drive(target, lambda: role.poll_create(ticket))
        snapshot = await hand.create(asset, name)
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(Capability.CREATE)
async def test_create_survives_a_passing_absence(target: Target) -> None:
    """When the system denies for a moment what it made, that is no failure."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.PASSING_ABSENCE, Step.READ_SNAPSHOT, value=2.0)
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(Capability.CREATE)
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.RESET_AFTER_EFFECT, Fault.UNAVAILABLE])
async def test_create_whose_answer_was_lost_makes_one_snapshot(target: Target, fault: Fault) -> None:
    """When the answer is lost, before or after the effect, there is one snapshot in the end."""
    asset = await target.fresh_asset()
    await target.suffer(fault, Step.CREATE)
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(Capability.CREATE)
async def test_create_that_failed_after_its_effect_is_found_again(target: Target) -> None:
    """A failure is worth another try, and the next start with the same request id finds what was made."""
    asset, name, request = await target.fresh_asset(), own_name(target), request_id()
    await target.suffer(Fault.FAILING_AFTER_EFFECT, Step.CREATE)
    async with connected(target) as hand:
        try:
            snapshot = await hand.create(asset, name, request)
        except SnapkeepError as error:
            assert error.retryable
            snapshot = await hand.create(asset, name, request)
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(Capability.CREATE)
async def test_several_snapshots_are_taken_at_once(target: Target) -> None:
    """Creates that run at the same time do not disturb each other."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        made = await asyncio.gather(*(hand.create(asset) for _ in range(6)))
        found = await hand.snapshots_of(asset)
    assert {snapshot.id for snapshot in found} == {snapshot.id for snapshot in made}
    assert len(found) == 6


@promise(Capability.CREATE)
async def test_a_name_that_others_took_is_a_conflict(target: Target) -> None:
    """A name that something else has is `Conflict`, and that snapshot is not taken for ours."""
    asset = await target.fresh_asset()
    await target.foreign_snapshot(asset, "before-the-upgrade", SnapshotKind.USER)
    async with connected(target) as hand:
        with pytest.raises(Conflict):
            await hand.create(asset, "before-the-upgrade")
        assert len(await hand.snapshots_of(asset)) == 1


@promise(Capability.CREATE)
async def test_the_systems_limit_is_told_as_a_limit(target: Target) -> None:
    """One snapshot more than the system allows is `LimitExceeded`, and says what to do."""
    asset = await target.fresh_asset()
    await target.limit_snapshots(1)
    async with connected(target) as hand:
        await hand.create(asset)
        with pytest.raises(LimitExceeded) as caught:
            await hand.create(asset)
    assert caught.value.next_step


@promise(Capability.CREATE)
@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
async def test_a_name_that_cannot_be_is_refused_without_a_call(target: Target, name: str) -> None:
    """An empty, too long or unprintable name, or one with a slash, is `InvalidInput` before any request."""
    asset = await target.fresh_asset()
    async with connected(target) as hand, nothing_sent(target):
        with pytest.raises(InvalidInput):
            await played(hand.roles.create).start_create(asset, name, request_id())


@promise(Capability.CREATE)
async def test_odd_names_are_kept_as_they_are(target: Target) -> None:
    """Quotes, spaces, percent signs and other scripts come back unchanged, or are refused as `InvalidInput`."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        for name in ODD_NAMES:
            try:
                assert (await hand.create(asset, name)).name == name
            except InvalidInput:
                continue
            assert name in {snapshot.name for snapshot in await hand.snapshots_of(asset)}


@promise(Capability.CREATE)
async def test_create_of_a_vanished_asset_is_not_found(target: Target) -> None:
    """An asset that was removed since discovery is `NotFound`."""
    asset = await target.fresh_asset()
    await target.remove_asset(asset)
    async with connected(target) as hand:
        with pytest.raises(NotFound):
            await hand.create(asset)


@promise(Capability.CREATE)
async def test_create_on_an_asset_paused_since_discovery_is_a_typed_error(target: Target) -> None:
    """Where only the system knows that snapshots are paused, its refusal is not worth another try."""
    asset = await target.fresh_asset()
    await target.pause(asset)
    async with connected(target) as hand:
        with pytest.raises(SnapkeepError) as caught:
            await hand.create(asset)
    assert not caught.value.retryable
    assert caught.value.vendor_message


@promise(Capability.CREATE)
async def test_a_failed_task_keeps_the_systems_reason(target: Target) -> None:
    """Work that fails is an error with the system's own code and text, unchanged."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.FAILED_TASK, Step.CREATE)
    async with connected(target) as hand:
        with pytest.raises(SnapkeepError) as caught:
            await hand.create(asset)
        assert await hand.snapshots_of(asset) == []
    assert (caught.value.vendor_code, caught.value.vendor_message) == (target.failed_code, FAILED_TASK_TEXT)
    assert FAILED_TASK_TEXT in str(caught.value)


@promise(Capability.CREATE)
async def test_a_stuck_task_stays_pending(target: Target) -> None:
    """Work that never ends is `Pending` for ever: the engine's deadline ends it, not a guess."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.STUCK_TASK, Step.CREATE)
    async with connected(target) as hand:
        role = played(hand.roles.create)
        ticket = recorded(await role.start_create(asset, own_name(target), request_id()))
        await stays_pending(target, lambda: role.poll_create(ticket))


@promise(Capability.CREATE)
async def test_a_clock_that_is_ahead_does_not_hurry_the_polls(target: Target) -> None:
    """How soon to ask again does not come from the difference of two clocks."""
    asset = await target.fresh_asset()
    settings = await target.arrange(Circumstance.CLOCK_AHEAD)
    await target.suffer(Fault.STUCK_TASK, Step.CREATE)
    async with connected(target, **settings) as hand:
        role = played(hand.roles.create)
        ticket = recorded(await role.start_create(asset, own_name(target), request_id()))
        await asyncio.sleep(2.2)
        pending = await role.poll_create(ticket)
    assert isinstance(pending, Pending)
    assert pending.after >= 0.1, "a task of that age is not worth a question so soon"


@promise(Capability.CREATE)
async def test_a_success_that_is_a_lie_is_found_out(target: Target) -> None:
    """When the system reports success and there is no snapshot, none is returned; in the end it is an error."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.LYING_SUCCESS, Step.CREATE)
    async with connected(target) as hand:
        role = played(hand.roles.create)
        ticket = recorded(await role.start_create(asset, own_name(target), request_id()))
        with pytest.raises(SnapkeepError) as caught:
            await drive(target, lambda: role.poll_create(ticket), target.settle_seconds)
        assert await hand.snapshots_of(asset) == []
    assert caught.value.next_step


@promise(Capability.CREATE)
async def test_a_poll_survives_a_short_outage(target: Target) -> None:
    """Polls that fail for a moment are repeated or worth repeating, and the work is not lost."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.UNAVAILABLE, Step.TASK, times=2)
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(Capability.CREATE)
async def test_changed_wording_changes_no_class(target: Target) -> None:
    """Errors are told apart by number: with all texts changed, each has the same class."""
    asset = await target.fresh_asset()
    await target.foreign_snapshot(asset, "taken", SnapshotKind.USER)
    await target.limit_snapshots(1)
    await target.suffer(Fault.CHANGED_WORDING, times=None)
    async with connected(target) as hand:
        with pytest.raises(Conflict):
            await hand.create(asset, "taken")
        with pytest.raises(LimitExceeded):
            await hand.create(asset)
        await target.remove_asset(asset)
        with pytest.raises(NotFound):
            await hand.create(asset)


@promise(Capability.CREATE)
async def test_create_on_a_failing_system_ends_in_time(target: Target) -> None:
    """A system that fails every time is `Unavailable`, with its reason, within the time that was allowed."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.FAILING, Step.CREATE, times=None)
    async with connected(target, **target.impatient) as hand:
        with pytest.raises(Unavailable) as caught:
            async with at_most(target.impatient_seconds):
                await hand.create(asset)
    assert caught.value.vendor_message
