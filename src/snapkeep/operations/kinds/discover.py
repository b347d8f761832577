"""Discover: find what lies on a system."""

from __future__ import annotations

from typing import Any

from snapkeep.model.errors import Incomplete, Unavailable
from snapkeep.model.work import Ticket
from snapkeep.operations.kinds.base import Handler
from snapkeep.operations.run import Outage, Run


class DiscoverHandler(Handler):
    """Batches go to the catalog with their cursor; what a complete run did not see is marked as gone."""

    kind = "discover"
    cancellable = True

    async def start(self, run: Run) -> Ticket:
        """Nothing is begun on the system."""
        await run.report("listing assets and snapshots")
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
        async for batch in discover.discover(operation.cursor):
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
        system_id, now = run.operation.system_id, run.clock.now()
        before = run.operation.started_at or run.operation.created_at
        gone = await run.catalog.inventory.mark_gone(system_id, not_seen_by=run.operation.id, before=before, now=now)
        await run.catalog.systems.discovered(system_id, now)
        counts = await run.catalog.inventory.counts(system_id)
        return {**counts, "assets_gone": gone[0], "snapshots_gone": gone[1]}
