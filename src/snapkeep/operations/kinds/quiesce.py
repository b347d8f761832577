"""Holding assets at a consistent point while something is done: those of any system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import AssetRecord
from snapkeep.model.programs import Programs
from snapkeep.operations.kinds.base import played
from snapkeep.operations.run import Run
from snapkeep.plugin.roles import Quiesced

log = structlog.get_logger(__name__)


async def asked_for(catalog: Catalog, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recorded request says of how a snapshot is taken, as `Asking.create` is asked for it.

    That is the assets to be held, and the programs before and after.
    """
    how: dict[str, Any] = {}
    if request.get("quiesce"):
        how["quiesce"] = [await catalog.inventory.asset(asset_id) for asset_id in request["quiesce"]]
        how["quiesce_seconds"] = request["quiesce_seconds"]
    if request.get("programs"):
        how["programs"] = Programs(**request["programs"])
    return how


@asynccontextmanager
async def quiesced(run: Run, assets: Sequence[AssetRecord], seconds: float) -> AsyncIterator[list[str]]:
    """Hold assets in this order, and let them go in the reverse one, whatever happens inside.

    Gives a list that holds, after the end, why one of them was not held until then. Raises what stands in the way of
    holding them; then none is held.
    """
    lost: list[str] = []

    async def let_go(asset: AssetRecord, held: Quiesced) -> None:
        if reason := await held.release():
            lost.append(f"{asset.reference}: {reason}")
            log.warning("an asset was not held to the end", asset=asset.reference, reason=reason)

    async with AsyncExitStack() as stack:
        for asset in assets:
            await run.report(f"quiescing {asset.reference}")
            role = played((await run.roles(asset.system_id)).quiesce, "quiesce")
            context = role.quiesced(asset.asset, seconds, run.request_id(f"quiesce {asset.id}"))
            held = await run.call(stack.enter_async_context(context), more_seconds=2 * seconds)  # another may hold it
            stack.push_async_callback(let_go, asset, held)
        yield lost
