"""Restore in place: the old content is back, and nobody does it by accident."""

from __future__ import annotations

import pytest

from snapkeep.conformance.acts import (
    connected,
    drive,
    nothing_sent,
    played,
    promise,
    recorded,
    request_id,
    stays_pending,
)
from snapkeep.conformance.target import FAILED_TASK_TEXT, Fault, Step, Target
from snapkeep.model.assets import Capability
from snapkeep.model.errors import InvalidInput, NotFound, SnapkeepError
from snapkeep.model.work import Done

NEEDED = (Capability.CREATE, Capability.RESTORE)


@promise(*NEEDED)
async def test_restore_brings_the_old_content_back(target: Target) -> None:
    """Changed, new and deleted files are as they were; newer snapshots stay."""
    asset = await target.fresh_asset()
    (target.live_path(asset) / "changed").write_text("old")
    (target.live_path(asset) / "deleted").write_text("still here")
    async with connected(target) as hand:
        old = await hand.create(asset)
        live = target.live_path(asset)
        (live / "changed").write_text("new")
        (live / "deleted").unlink()
        (live / "added").write_text("added")
        newer = await hand.create(asset)
        assert await hand.restore(asset, old) == Done()
        live = target.live_path(asset)
        assert (live / "changed").read_text() == "old"
        assert (live / "deleted").read_text() == "still here"
        assert not (live / "added").exists()
        assert {snapshot.id for snapshot in await hand.snapshots_of(asset)} == {old.id, newer.id}


@promise(*NEEDED)
@pytest.mark.parametrize("typed", ["", "yes", "swapped", "padded"])
async def test_restore_without_confirmation_is_refused_without_a_call(target: Target, typed: str) -> None:
    """Only the asset's own name confirms; anything else is `InvalidInput`, and the next step says what to type."""
    asset = await target.fresh_asset()
    confirmation = {"swapped": asset.name.swapcase(), "padded": f" {asset.name}"}.get(typed, typed)
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        async with nothing_sent(target):
            with pytest.raises(InvalidInput) as caught:
                await played(hand.roles.restore).start_restore(asset, snapshot, confirmation, request_id())
    assert asset.name in caught.value.next_step


@promise(*NEEDED)
async def test_restore_of_a_changed_asset_is_tried_once_more(target: Target) -> None:
    """When somebody changed the asset's settings meanwhile, it is looked at again and restored."""
    asset = await target.fresh_asset()
    (target.live_path(asset) / "file").write_text("old")
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        (target.live_path(asset) / "file").write_text("new")
        await target.suffer(Fault.STALE_VERSION, Step.RESTORE)
        await hand.restore(asset, snapshot)
    assert (target.live_path(asset) / "file").read_text() == "old"


@promise(*NEEDED)
async def test_restore_whose_answer_was_lost_is_done_once(target: Target) -> None:
    """A lost answer is asked for again, and the content is the old one in the end."""
    asset = await target.fresh_asset()
    (target.live_path(asset) / "file").write_text("old")
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        (target.live_path(asset) / "file").write_text("new")
        await target.suffer(Fault.RESET_AFTER_EFFECT, Step.RESTORE)
        await hand.restore(asset, snapshot)
    assert (target.live_path(asset) / "file").read_text() == "old"


@promise(*NEEDED, Capability.DELETE)
async def test_restore_to_a_vanished_snapshot_is_not_found(target: Target) -> None:
    """A snapshot that is gone is `NotFound`, and the content is as it was."""
    asset = await target.fresh_asset()
    (target.live_path(asset) / "file").write_text("now")
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await hand.delete(asset, snapshot)
        with pytest.raises(NotFound):
            await hand.restore(asset, snapshot)
    assert (target.live_path(asset) / "file").read_text() == "now"


@promise(*NEEDED)
async def test_restore_to_another_assets_snapshot_is_refused_without_a_call(target: Target) -> None:
    """Asset and snapshot must belong together."""
    asset, other = await target.fresh_asset(), await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        async with nothing_sent(target):
            with pytest.raises(InvalidInput):
                await played(hand.roles.restore).start_restore(other, snapshot, other.name, request_id())


@promise(*NEEDED)
async def test_a_failed_restore_keeps_the_systems_reason(target: Target) -> None:
    """A restore that fails is an error with the system's code and text."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.FAILED_TASK, Step.RESTORE)
        with pytest.raises(SnapkeepError) as caught:
            await hand.restore(asset, snapshot)
    assert (caught.value.vendor_code, caught.value.vendor_message) == (target.failed_code, FAILED_TASK_TEXT)


@promise(*NEEDED)
async def test_a_restore_that_never_ends_stays_pending(target: Target) -> None:
    """`Done` comes with the end of the work and not before."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.STUCK_TASK, Step.RESTORE)
        role = played(hand.roles.restore)
        ticket = recorded(await role.start_restore(asset, snapshot, asset.name, request_id()))
        await stays_pending(target, lambda: role.poll_restore(ticket))


@promise(*NEEDED)
async def test_a_restore_is_polled_by_another_process(target: Target) -> None:
    """The ticket is enough, and polling after the result gives it again."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        role = played(hand.roles.restore)
        ticket = recorded(await role.start_restore(asset, snapshot, asset.name, request_id()))
    async with target.connect() as roles:
        other = played(roles.restore)
        assert await drive(target, lambda: other.poll_restore(ticket)) == Done()
        assert await other.poll_restore(ticket) == Done()
