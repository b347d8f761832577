"""Clone: a new asset with the snapshot's content, on its own from then on."""

from __future__ import annotations

import pytest

from snapkeep.conformance.acts import connected, nothing_sent, played, promise, request_id
from snapkeep.conformance.target import FAILED_TASK_TEXT, Fault, Step, Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, SnapkeepError

NEEDED = (Capability.CREATE, Capability.CLONE)


def clone_name(asset: Asset) -> str:
    """Return a name that no other asset has."""
    return f"{asset.name}-c-{request_id()[:8]}"


@promise(*NEEDED)
async def test_a_clone_has_the_snapshots_content_and_is_independent(target: Target) -> None:
    """The new asset has the old content; what is changed in either does not show in the other."""
    asset = await target.fresh_asset()
    (target.live_path(asset) / "file").write_text("old")
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        (target.live_path(asset) / "file").write_text("new")
        clone = await hand.clone(asset, snapshot, clone_name(asset))
    assert (target.live_path(clone) / "file").read_text() == "old"
    (target.live_path(clone) / "file").write_text("of the clone")
    assert (target.live_path(asset) / "file").read_text() == "new"


@promise(*NEEDED)
async def test_a_clone_is_an_asset_like_others(target: Target) -> None:
    """The result is the asset that discovery shows, with the name that was asked for and a new id."""
    asset = await target.fresh_asset()
    name = clone_name(asset)
    async with connected(target) as hand:
        clone = await hand.clone(asset, await hand.create(asset), name)
        assets, _ = await hand.everything()
        assert clone in assets
        assert (clone.name, clone.kind, clone.capabilities) == (name, asset.kind, asset.capabilities)
        assert clone.id != asset.id
        assert await hand.snapshots_of(clone) == []


@promise(*NEEDED)
async def test_a_clone_under_a_taken_name_is_a_conflict(target: Target) -> None:
    """A name that an asset has is `Conflict`, and that asset is left alone."""
    asset, other = await target.fresh_asset(), await target.fresh_asset()
    (target.live_path(other) / "file").write_text("precious")
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        with pytest.raises(Conflict):
            await hand.clone(asset, snapshot, other.name)
    assert (target.live_path(other) / "file").read_text() == "precious"


@promise(*NEEDED)
@pytest.mark.parametrize("fault", [None, Fault.RESET_AFTER_EFFECT])
async def test_clone_repeated_with_one_request_id_makes_one(target: Target, fault: Fault | None) -> None:
    """Started again, or with its answer lost, there is one clone in the end."""
    asset, request = await target.fresh_asset(), request_id()
    name = clone_name(asset)
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        if fault:
            await target.suffer(fault, Step.CLONE)
        first = await hand.clone(asset, snapshot, name, request)
        assert await hand.clone(asset, snapshot, name, request) == first
        assets, _ = await hand.everything()
    assert [found.id for found in assets if found.name == name] == [first.id]


@promise(*NEEDED)
@pytest.mark.parametrize(("name", "typed"), [("x" * 5000, None), ("", None), ("a/../b", None), ("fine", "yes")])
async def test_a_clone_that_cannot_be_is_refused_without_a_call(target: Target, name: str, typed: str | None) -> None:
    """A name that cannot be, or a missing confirmation, is `InvalidInput` before any request."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        async with nothing_sent(target):
            with pytest.raises(InvalidInput):
                await played(hand.roles.clone).start_clone(asset, snapshot, name, typed or asset.name, request_id())


@promise(*NEEDED, Capability.DELETE)
async def test_a_clone_of_a_vanished_snapshot_is_not_found(target: Target) -> None:
    """A snapshot that is gone is `NotFound`, and no asset is made."""
    asset = await target.fresh_asset()
    name = clone_name(asset)
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await hand.delete(asset, snapshot)
        with pytest.raises(NotFound):
            await hand.clone(asset, snapshot, name)
        assert name not in {found.name for found in (await hand.everything())[0]}


@promise(*NEEDED)
async def test_a_failed_clone_keeps_the_systems_reason(target: Target) -> None:
    """A clone that fails is an error with the system's code and text."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        snapshot = await hand.create(asset)
        await target.suffer(Fault.FAILED_TASK, Step.CLONE)
        with pytest.raises(SnapkeepError) as caught:
            await hand.clone(asset, snapshot, clone_name(asset))
    assert (caught.value.vendor_code, caught.value.vendor_message) == (target.failed_code, FAILED_TASK_TEXT)
