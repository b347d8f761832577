"""Rights: those that are declared for a capability are enough for it, and none of them is one too many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from snapkeep.conformance.acts import Hand, connected, played, promise, request_id
from snapkeep.conformance.target import Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import BaseMissing, PermissionDenied
from snapkeep.model.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to work with. `gone`: a snapshot that is no more."""

    asset: Asset
    snapshots: tuple[Snapshot, ...] = ()
    gone: Snapshot | None = None


async def set_up(target: Target, capability: Capability) -> Scene:
    """Make the scene for a capability, with an account that may do everything."""
    if capability is Capability.QUIESCE:
        return Scene(await target.quiescent_asset())
    scene = Scene(await target.fresh_asset())
    declared = target.plugin.all_capabilities()
    if capability is Capability.CREATE or Capability.CREATE not in declared:
        return scene
    async with connected(target) as hand:
        first, *others = [
            await hand.create(scene.asset) for _ in range(3 if capability is Capability.DIFF_FILES else 2)
        ]
        if len(others) < 2 or Capability.DELETE not in declared:
            return replace(scene, snapshots=(first, *others))
        await hand.delete(scene.asset, first)
        return replace(scene, snapshots=tuple(others), gone=first)


async def discover(hand: Hand, scene: Scene) -> None:
    """Find all, and look whether one of them is there."""
    await hand.everything()
    assert await hand.roles.discover.exists(scene.asset)
    for snapshot in scene.snapshots:
        assert await hand.roles.discover.exists(scene.asset, snapshot)


async def create(hand: Hand, scene: Scene) -> None:
    """Take a snapshot; take one with a name of a person's, and ask for it again."""
    await hand.create(scene.asset)
    request = request_id()
    first, again = [await hand.create(scene.asset, "of-a-person", request) for _ in range(2)]
    assert first.id == again.id


async def delete(hand: Hand, scene: Scene) -> None:
    """Delete one."""
    await hand.delete(scene.asset, scene.snapshots[0])


async def restore(hand: Hand, scene: Scene) -> None:
    """Turn the asset back."""
    await hand.restore(scene.asset, scene.snapshots[0])


async def clone(hand: Hand, scene: Scene) -> None:
    """Make a new asset, and ask for it again."""
    request = request_id()
    for _ in range(2):
        await hand.clone(scene.asset, scene.snapshots[0], f"{scene.asset.name}-clone", request)


async def export(hand: Hand, scene: Scene) -> None:
    """Open a snapshot, see that it is open, and close it."""
    made = await hand.export(scene.asset, scene.snapshots[0])
    await hand.open_exports(scene.asset)
    await hand.deport(made)


async def diff_files(hand: Hand, scene: Scene) -> None:
    """Compare two snapshots; say which one is missing where one is."""
    base, new = scene.snapshots
    await hand.diff(scene.asset, base, new)
    if scene.gone is not None:
        with pytest.raises(BaseMissing):
            await hand.diff(scene.asset, scene.gone, new)


async def quiesce(hand: Hand, scene: Scene) -> None:
    """Hold an application, and let it go."""
    async with played(hand.roles.quiesce).quiesced(scene.asset, 30.0, request_id()) as held:
        assert await held.release() is None


ACTS: Mapping[Capability, Callable[[Hand, Scene], Awaitable[None]]] = {
    Capability.DISCOVER: discover,
    Capability.CREATE: create,
    Capability.DELETE: delete,
    Capability.RESTORE: restore,
    Capability.CLONE: clone,
    Capability.EXPORT: export,
    Capability.DIFF_FILES: diff_files,
    Capability.QUIESCE: quiesce,
}
"""All that a capability does on a system."""


def require(target: Target, capability: Capability) -> None:
    """Skip the test, with the reason, where the capability is not there."""
    target.require_applicable(capability)
    if capability not in target.plugin.all_capabilities():
        pytest.skip(f"{target.plugin.name} does not declare {capability}")


@promise()
@pytest.mark.parametrize("capability", ACTS, ids=str)
async def test_the_declared_rights_of_a_capability_are_enough(target: Target, capability: Capability) -> None:
    """An account with the rights that are declared for one capability, and no other, can do all of it."""
    require(target, capability)
    scene = await set_up(target, capability)
    async with target.account_with(target.rights(capability)) as settings, connected(target, **settings) as hand:
        await ACTS[capability](hand, scene)


@promise()
@pytest.mark.parametrize("capability", ACTS, ids=str)
async def test_none_of_the_declared_rights_is_one_too_many(target: Target, capability: Capability) -> None:
    """Without a single one of them something fails, and the error names the one that is missing."""
    require(target, capability)
    rights = target.rights(capability)
    wrong: list[str] = []
    for right in rights:
        if (capability, right) in target.seldom_needed:
            continue
        scene = await set_up(target, capability)
        others = [other for other in rights if other != right]
        async with target.account_with(others) as settings, connected(target, **settings) as hand:
            try:
                await ACTS[capability](hand, scene)
            except PermissionDenied as error:
                if error.details.get("needed") != right:
                    wrong.append(f"without {right!r}: {error.details.get('needed')!r} is said to be missing")
            else:
                wrong.append(f"without {right!r}: nothing fails")
    assert not wrong, "\n".join(wrong)
