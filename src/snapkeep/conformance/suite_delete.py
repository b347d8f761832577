"""Delete: gone means that the system itself says so."""

from __future__ import annotations

import pytest

from snapkeep.conformance.acts import (
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
from snapkeep.conformance.target import FAILED_TASK_TEXT, Fault, Step, Target
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, InvalidInput, NotFound, SnapkeepError
from snapkeep.model.snapshots import Snapshot, SnapshotKind
from snapkeep.model.work import Done, Pending

NEEDED = (Capability.CREATE, Capability.DELETE)


@promise(*NEEDED)
async def test_a_deleted_snapshot_is_gone_and_others_are_not(target: Target) -> None:
    """After `Done` the snapshot is not discovered any more, and every other one is."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        first, second = await hand.create(asset), await hand.create(asset)
        assert await hand.delete(asset, first) == Done()
        assert await hand.snapshots_of(asset) == [second]


@promise(*NEEDED)
async def test_a_foreign_snapshot_is_deleted_when_asked_by_name(target: Target) -> None:
    """What others made is deleted like ours when somebody asks for it."""
    asset = await target.fresh_asset()
    await target.foreign_snapshot(asset, "before the upgrade", SnapshotKind.USER)
    async with connected(target) as hand:
        (foreign,) = await hand.snapshots_of(asset)
        await hand.delete(asset, foreign)
        assert await hand.snapshots_of(asset) == []


@promise(*NEEDED)
async def test_delete_of_an_unknown_snapshot_succeeds(target: Target) -> None:
    """A snapshot that is gone already, or never was, is success."""
    asset = await target.fresh_asset()
    unknown = Snapshot(id=request_id(), asset_id=asset.id, name=own_name(target))
    async with connected(target) as hand:
        assert await hand.delete(asset, unknown) == Done()


@promise(*NEEDED)
async def test_delete_repeated_succeeds(target: Target) -> None:
    """Deleting again, with the same or another request id and by an old ticket, is success each time."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        role, request = played(hand.roles.delete), request_id()
        snapshot = await hand.create(asset)
        ticket = recorded(await role.start_delete(asset, snapshot, request))
        again = recorded(await role.start_delete(asset, snapshot, request))
        assert await drive(target, lambda: role.poll_delete(ticket)) == Done()
        assert await drive(target, lambda: role.poll_delete(again)) == Done()
        assert await hand.delete(asset, snapshot) == Done()


@promise(*NEEDED)
async def test_delete_on_a_vanished_asset_succeeds(target: Target) -> None:
    """With its asset a snapshot is gone as well."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.remove_asset(asset)
        assert await hand.delete(asset, snapshot) == Done()


@promise(*NEEDED)
async def test_delete_is_done_only_when_the_system_says_that_it_is_gone(target: Target) -> None:
    """The end of the task proves nothing: while the system still shows the snapshot, it is `Pending`."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.LINGERING, Step.DELETE, value=0.5)
        role = played(hand.roles.delete)
        ticket = recorded(await role.start_delete(asset, snapshot, request_id()))
        while await hand.snapshots_of(asset):
            before = await role.poll_delete(ticket)
            assert isinstance(before, Pending) or await hand.snapshots_of(asset) == []
        assert await drive(target, lambda: role.poll_delete(ticket)) == Done()


@promise(*NEEDED)
@pytest.mark.parametrize("steps", [(Step.READ_SNAPSHOT,), (Step.DELETE, Step.READ_SNAPSHOT)], ids=["read", "both"])
async def test_a_passing_absence_is_no_delete(target: Target, steps: tuple[Step, ...]) -> None:
    """When the system denies the snapshot for a moment, it is not held to be gone while it is there."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.SLOW_TASKS, value=1.0)
        for step in steps:
            await target.suffer(Fault.PASSING_ABSENCE, step, value=2.0)
        assert await hand.delete(asset, snapshot) == Done()
        assert await hand.snapshots_of(asset) == []


@promise(*NEEDED)
async def test_a_delete_that_only_claims_success_is_never_done(target: Target) -> None:
    """When the system reports success and the snapshot is still there, delete does not report it gone."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.LYING_SUCCESS, Step.DELETE)
        role = played(hand.roles.delete)
        ticket = recorded(await role.start_delete(asset, snapshot, request_id()))
        await stays_pending(target, lambda: role.poll_delete(ticket))
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(*NEEDED)
async def test_a_task_that_was_forgotten_proves_no_delete(target: Target) -> None:
    """When the system has forgotten the task and still shows the snapshot, it is neither `Done` nor `NotFound`."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
    await target.suffer(Fault.STUCK_TASK, Step.DELETE)
    await target.suffer(Fault.FORGOTTEN_TASK, Step.TASK, times=None)
    async with connected(target) as hand:
        role = played(hand.roles.delete)
        ticket = recorded(await role.start_delete(asset, snapshot, request_id()))
        try:
            assert isinstance(await role.poll_delete(ticket), Pending)
        except SnapkeepError as error:
            assert not isinstance(error, NotFound), "the engine takes NotFound for success"


@promise(*NEEDED)
async def test_a_snapshot_in_use_is_busy(target: Target) -> None:
    """What something still uses is `Busy`, not merely a conflict: waiting helps."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.use(hand.roles, asset, snapshot)
        with pytest.raises(Busy):
            await hand.delete(asset, snapshot)
        assert await hand.snapshots_of(asset) == [snapshot]


@promise(*NEEDED)
async def test_a_failed_delete_keeps_the_systems_reason(target: Target) -> None:
    """A delete that fails is an error with the system's code and text, and the snapshot is still there."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.FAILED_TASK, Step.DELETE)
        with pytest.raises(SnapkeepError) as caught:
            await hand.delete(asset, snapshot)
        assert await hand.snapshots_of(asset) == [snapshot]
    assert (caught.value.vendor_code, caught.value.vendor_message) == (target.failed_code, FAILED_TASK_TEXT)


@promise(*NEEDED)
@pytest.mark.parametrize("fault", [Fault.RESET_AFTER_EFFECT, Fault.RESET, Fault.UNAVAILABLE])
async def test_delete_whose_answer_was_lost_succeeds(target: Target, fault: Fault) -> None:
    """A lost answer to a delete is no failure."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(fault, Step.DELETE)
        assert await hand.delete(asset, snapshot) == Done()
        assert await hand.snapshots_of(asset) == []


@promise(*NEEDED)
async def test_delete_of_another_assets_snapshot_is_refused_without_a_call(target: Target) -> None:
    """Asset and snapshot must belong together; what does not is `InvalidInput` before any request."""
    asset, other = await target.fresh_asset(), await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        async with nothing_sent(target):
            with pytest.raises(InvalidInput):
                await played(hand.roles.delete).start_delete(other, snapshot, request_id())
