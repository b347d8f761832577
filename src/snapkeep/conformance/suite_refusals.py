"""What an asset cannot do is refused before any request, with the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from snapkeep.conformance.acts import connected, nothing_sent, own_name, played, promise, request_id
from snapkeep.conformance.target import Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import Unsupported
from snapkeep.model.exports import AccessMode
from snapkeep.model.snapshots import Snapshot
from snapkeep.plugin.roles import Roles

Start = Callable[[Target, Roles, Asset, Snapshot], Awaitable[object]]

STARTS: dict[Capability, Start] = {
    Capability.CREATE: lambda t, r, a, _s: played(r.create).start_create(a, own_name(t), request_id()),
    Capability.DELETE: lambda _t, r, a, s: played(r.delete).start_delete(a, s, request_id()),
    Capability.RESTORE: lambda _t, r, a, s: played(r.restore).start_restore(a, s, a.name, request_id()),
    Capability.CLONE: lambda _t, r, a, s: played(r.clone).start_clone(a, s, "clone", a.name, request_id()),
    Capability.EXPORT: lambda t, r, a, s: played(r.export).start_export(
        a, s, t.hosts[0], AccessMode.READ_ONLY, [], request_id()
    ),
    Capability.DIFF_FILES: lambda _t, r, a, s: played(r.diff_files).start_diff(a, None, s, request_id()),
}
"""How each capability is begun."""


async def refused_before_a_call(target: Target, asset: Asset, capability: Capability) -> None:
    """Begin it, and see that it is refused for the asset's own reason without a request."""
    if capability not in target.plugin.all_capabilities():
        pytest.skip(f"{target.plugin.name} does not declare {capability}")
    snapshot = Snapshot(id=request_id(), asset_id=asset.id, name=own_name(target))
    async with connected(target) as hand, nothing_sent(target):
        with pytest.raises(Unsupported) as caught:
            await STARTS[capability](target, hand.roles, asset, snapshot)
    assert asset.name in str(caught.value)
    assert asset.refusals[capability] in str(caught.value)


@promise()
@pytest.mark.parametrize("capability", STARTS)
async def test_an_asset_without_the_capability_is_refused_without_a_call(
    target: Target, capability: Capability
) -> None:
    """For an asset that can do nothing, each operation is `Unsupported` before any request."""
    await refused_before_a_call(target, await target.unsupported_asset(), capability)


@promise(Capability.CREATE)
async def test_a_paused_asset_is_refused_for_create_without_a_call(target: Target) -> None:
    """Where snapshots are paused, none is taken; those that exist can still be deleted."""
    asset = await target.paused_asset()
    assert Capability.DELETE in asset.capabilities
    await refused_before_a_call(target, asset, Capability.CREATE)
