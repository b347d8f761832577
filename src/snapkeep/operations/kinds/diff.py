"""Diff: fetch the change list between two snapshots and store it here."""

from __future__ import annotations

from typing import Any

from snapkeep.catalog.records import ChangeListState
from snapkeep.changes.store import ChangeListWriter
from snapkeep.model.errors import Incomplete, Unavailable
from snapkeep.model.work import ChangeBatch, Pending, Ticket
from snapkeep.operations.kinds.base import Handler, played
from snapkeep.operations.run import Outage, Run
from snapkeep.operations.suspicion import is_part, look_at_changes
from snapkeep.plugin.roles import DiffFiles

SOURCE = "system"
"""Who computed the list: the system itself."""

COMPUTATIONS = 5
"""How often a list is asked for, when the system forgets it before it was read to its end."""


class DiffHandler(Handler):
    """The list has the id of its operation. Its base is kept from deletion while it is fetched."""

    kind = "diff"
    finishing = "the system is computing the changes"
    cancellable = True
    pausable = True
    undone_on_failure = True

    async def start(self, run: Run) -> Ticket:
        """Ask for the computation."""
        await run.catalog.change_lists.begin(
            run.operation.id,
            asset_id=run.request["asset_id"],
            base_id=run.request["base_id"],
            new_id=run.request["new_id"],
            source=SOURCE,
            now=run.clock.now(),
        )
        await run.report("asking for the changes")
        return await self._ask(run, "diff")

    async def _ask(self, run: Run, label: str) -> Ticket:
        asset, role = await run.asset(), played((await run.roles()).diff_files, "diff")
        base = await run.snapshot("base_id") if run.request["base_id"] else None
        new = await run.snapshot("new_id")
        return await role.start_diff(asset.asset, base.snapshot if base else None, new.snapshot, run.request_id(label))

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Fetch page after page, resuming behind the last stored block."""
        role = played((await run.roles()).diff_files, "diff")
        writer = await self._fetch_anew(run, role, ticket)
        await run.report("summarising")
        record = await writer.complete(run.clock.now())
        result: dict[str, Any] = {"change_list": record.id, "entries": record.entries, "summary": record.summary}
        if record.base_id and not is_part(run.operation):  # who has asked for a part looks at it
            result["signal"] = await look_at_changes(run, await run.asset(), record)
        return result

    async def _fetch_anew(self, run: Run, role: DiffFiles, ticket: Ticket) -> ChangeListWriter:
        """Fetch; ask for the computation anew when the system forgets the list, as after its restart."""
        for left in reversed(range(COMPUTATIONS)):
            try:
                return await self._fetch(run, role, ticket)
            except Incomplete as error:
                if not left or not error.details.get("forgotten"):
                    raise
            await run.report("the system has forgotten the list; it is computed again")
            await run.catalog.change_lists.restart(run.operation.id)
            ticket = await run.call(self._ask(run, f"diff {run.clock.new_id()}"), interruptible=False)
        raise AssertionError("unreachable")  # pragma: no cover

    async def _fetch(self, run: Run, role: DiffFiles, ticket: Ticket) -> ChangeListWriter:
        outage = Outage(run)
        cursor = (await run.catalog.change_lists.get(run.operation.id)).cursor
        writer = ChangeListWriter(run.catalog, run.operation.id)
        moved = run.clock.monotonic()
        while True:
            try:
                async for item in run.each(role.read_diff(ticket, cursor)):
                    outage.over()
                    if isinstance(item, ChangeBatch):
                        await writer.add(item.changes, item.cursor)
                        cursor, moved = item.cursor, run.clock.monotonic()
                        await run.check_cancel()
                        if item.complete:
                            return writer
                        continue
                    await self._wait(run, item, moved)
                    break
                else:
                    raise Incomplete("The change list ended before its last page")
            except Unavailable as error:
                await writer.flush()
                await outage.wait_or_raise(error)

    async def _wait(self, run: Run, pending: Pending, moved: float) -> None:
        if run.clock.monotonic() - moved > run.limits.stall:
            raise Incomplete(
                f"The system announced more changes but gave none for {run.limits.stall:g} s",
                next_step="Look whether the file server still computes; diff again, or take a full.",
            )
        await run.report(self.finishing, pending.progress)
        await run.pause(pending.after)

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Keep nothing of a list that nobody wants; the system forgets its own by itself."""
        await run.catalog.change_lists.restart(run.operation.id)
        await run.catalog.change_lists.finish(run.operation.id, ChangeListState.INCOMPLETE, run.clock.now(), 0, None)
