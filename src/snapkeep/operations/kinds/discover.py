"""Discover: find what lies on a system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from snapkeep.catalog.records import AssetRecord, SnapshotRecord
from snapkeep.model.assets import Asset
from snapkeep.model.errors import Incomplete, Unavailable
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Ticket
from snapkeep.operations.kinds.absence import surely_gone
from snapkeep.operations.kinds.base import Handler
from snapkeep.operations.run import Outage, Run

RecordT = TypeVar("RecordT", AssetRecord, SnapshotRecord)


class DiscoverHandler(Handler):
    """Batches go to the catalog with their cursor; what a complete run did not see is marked as gone."""

    kind = "discover"
    finishing = "listing assets and snapshots"
    cancellable = True
    pausable = True
    patient = False

    async def start(self, run: Run) -> Ticket:
        """Nothing is begun on the system."""
        return Ticket()

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """List everything, resuming behind the last stored batch.

        A system that is out of reach from the beginning is said at once; an outage in the middle is waited out.
        """
        outage = Outage(run)
        while True:
            try:
                await self._list(run, outage)
                break
            except Unavailable as error:
                if (await run.catalog.operations.get(run.operation.id)).cursor is None:
                    raise
                await outage.wait_or_raise(error)
        return await self._close(run)

    async def _list(self, run: Run, outage: Outage) -> None:
        operation = await run.catalog.operations.get(run.operation.id)
        discover = (await run.roles()).discover
        async for batch in run.each(discover.discover(operation.cursor)):
            if batch.cursor != operation.cursor:
                outage.over()
            await run.catalog.inventory.record_batch(
                operation.system_id,
                batch.assets,
                batch.snapshots,
                seen_by=operation.id,
                cursor=batch.cursor,
                since=operation.started_at,
            )
            await run.check_cancel()
            if batch.complete:
                return
        raise Incomplete("The discovery ended before its last batch")

    async def _close(self, run: Run) -> dict[str, Any]:
        """Note what is gone: what was not seen, and of which the system itself says that it has it no more."""
        system_id, inventory = run.operation.system_id, run.catalog.inventory
        before = run.operation.started_at or run.operation.created_at
        assets, snapshots = await inventory.unseen(system_id, not_seen_by=run.operation.id, before=before)
        await run.report("asking for what was not seen")
        gone_assets = await _gone(run, [(record, record.asset, None) for record in assets])
        lost = {record.id for record in gone_assets}
        left = [item for item in snapshots if item.asset_id not in lost]
        owners = {row: (await inventory.asset(row)).asset for row in {item.asset_id for item in left}}
        gone_snapshots = [item for item in snapshots if item.asset_id in lost]
        gone_snapshots += await _gone(run, [(item, owners[item.asset_id], item.snapshot) for item in left])
        now = run.clock.now()
        await inventory.mark_gone([*gone_assets, *gone_snapshots], now)
        await run.catalog.systems.discovered(system_id, now)
        counts = await inventory.counts(system_id)
        return {**counts, "assets_gone": len(gone_assets), "snapshots_gone": len(gone_snapshots)}


async def _gone(run: Run, suspects: Sequence[tuple[RecordT, Asset, Snapshot | None]]) -> list[RecordT]:
    gone = await surely_gone(run, [(asset, snapshot) for _, asset, snapshot in suspects])
    return [record for (record, _, _), is_gone in zip(suspects, gone, strict=True) if is_gone]
