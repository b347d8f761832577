"""A process that holds an asset until it is killed: `python -m snapkeep.conformance.holder`, told by a line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from snapkeep.conformance.acts import played, request_id
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.plugin.registry import get_plugin


async def hold(told: dict[str, Any]) -> None:
    """Connect, hold, say so, and wait."""
    plugin, given = get_plugin(told["plugin"]), told["asset"]
    asset = Asset(
        id=given["id"],
        kind=AssetKind(given["kind"]),
        name=given["name"],
        capabilities=frozenset(map(Capability, given["capabilities"])),
        attributes=given["attributes"],
    )
    async with (
        plugin.connect(plugin.settings.parse(told["settings"])) as roles,
        played(roles.quiesce).quiesced(asset, told["seconds"], request_id()),
    ):
        print("held", flush=True)  # noqa: T201 - the test reads it
        await asyncio.sleep(told["seconds"])


if __name__ == "__main__":
    asyncio.run(hold(json.loads(sys.stdin.readline())))
