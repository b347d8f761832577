"""Create, delete, restore and clone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from snapkeep.catalog.inventory import snapshot_row_id
from snapkeep.catalog.records import AssetRecord, SnapshotRecord
from snapkeep.model.errors import (
    AuthenticationFailed,
    Busy,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Timeout,
    Unavailable,
)
from snapkeep.model.snapshots import Consistency, Snapshot
from snapkeep.model.work import Ticket
from snapkeep.operations.kinds.around import ASKED, let_go, surrounded
from snapkeep.operations.kinds.base import Handler, played
from snapkeep.operations.kinds.quiesce import quiesced
from snapkeep.operations.run import Run


class CreateHandler(Handler):
    """Take a snapshot of an asset under a name that was recorded before, while what was named for it is held.

    The program before -> hold -> ask -> let go -> the program after.
    """

    kind = "create"
    finishing = "taking the snapshot"
    cancellable = True

    async def start(self, run: Run) -> Ticket:
        """Ask for the snapshot. Where something is done around it, `finish` does: no step may end meanwhile."""
        return Ticket() if _is_prepared(run) else await self._ask(run)

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait for the snapshot and record it."""
        if _is_prepared(run):
            return await surrounded(run, lambda: self._finish_held(run))
        return await self._recorded_as(run, await self._wait(run, ticket), Consistency.CRASH)

    async def _finish_held(self, run: Run) -> dict[str, Any]:
        """Hold, ask, wait, let go. What an earlier try may have asked for is taken as it is: that is held no more."""
        known = await self._record(run, await run.asset())
        if known is not None and known.consistency is not None:
            return _result(run, known.id, known.consistency, known.quiesced, known.consistency_reason)
        assets = [await run.catalog.inventory.asset(asset_id) for asset_id in run.request.get("quiesce", ())]
        names = [asset.reference for asset in assets]
        if await self._may_be_made(run):
            made = await self._take(run)
            lost = ["what was held was let go before it was known that the snapshot was there"] if assets else []
        else:
            run.unasked = True
            async with quiesced(run, assets, run.request.get("quiesce_seconds", 0)) as lost:
                await run.catalog.operations.update(run.operation.id, cursor=ASKED)
                run.unasked = False
                made = await self._take(run)
        consistency = Consistency.APPLICATION if assets and not lost else Consistency.CRASH
        return await self._recorded_as(run, made, consistency, names, "; ".join(lost) or None)

    async def _ask(self, run: Run) -> Ticket:
        asset, role = await run.asset(), played((await run.roles()).create, "create")
        return await role.start_create(asset.asset, run.request["name"], run.request_id("create"))

    async def _wait(self, run: Run, ticket: Ticket) -> Snapshot:
        role = played((await run.roles()).create, "create")
        made = await run.wait(self.finishing, lambda: role.poll_create(ticket))
        return replace(made, owned=True)  # whatever its name: we made it

    async def _take(self, run: Run) -> Snapshot:
        await run.report(self.finishing)
        return await self._wait(run, await run.persist(lambda: self._ask(run)))

    async def _recorded_as(
        self,
        run: Run,
        made: Snapshot,
        consistency: Consistency,
        names: Sequence[str] = (),
        reason: str | None = None,
    ) -> dict[str, Any]:
        await run.catalog.inventory.record_made(
            run.operation.system_id,
            made,
            seen_by=run.operation.id,
            consistency=consistency,
            quiesced=names,
            reason=reason,
        )
        return _result(run, snapshot_row_id(run.request["asset_id"], made.id), consistency, names, reason)

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Let the program after run; let the begun work come to its end, then delete what it made."""
        failed = await let_go(run)
        async with run.undoing():  # what the program has taken of the time is not that of the system
            await self._delete(run, ticket)
        if failed is not None:
            raise failed

    async def _delete(self, run: Run, ticket: Ticket | None) -> None:
        """Delete what was made. It is recorded before."""
        asset = await run.asset()
        if (made := await self._recorded(run, asset)) is None:
            made = await self._made(run, ticket)
        if made is None:
            return
        await run.catalog.inventory.record_batch(run.operation.system_id, (), (made,), seen_by=run.operation.id)
        await _begin_deletion(run, await run.catalog.inventory.snapshot(snapshot_row_id(asset.id, made.id)))
        deleting = played((await run.roles()).delete, "delete")
        deletion = await run.persist(lambda: deleting.start_delete(asset.asset, made, run.request_id("undo")))
        await run.wait("cancelling", lambda: deleting.poll_delete(deletion))
        if (known := await self._record(run, asset)) is not None:
            await run.catalog.inventory.mark_gone([known], run.clock.now())

    async def _made(self, run: Run, ticket: Ticket | None) -> Snapshot | None:
        """Return what was begun, once it exists; None when nothing was."""
        if ticket is None or _is_prepared(run):
            if not await self._may_be_made(run):
                return None
            ticket = await run.persist(lambda: self._ask(run))  # finds what an earlier call may have made
        creating = played((await run.roles()).create, "create")
        begun = ticket
        try:
            made = await run.wait("cancelling", lambda: creating.poll_create(begun))
        except (Unavailable, Timeout, NotFound, PermissionDenied, AuthenticationFailed):
            raise  # not known whether it was made
        except SnapkeepError:
            return None  # the system itself says that it was not made
        return replace(made, owned=True)

    async def _may_be_made(self, run: Run) -> bool:
        if not _is_prepared(run):
            return run.uncertain
        return (await run.catalog.operations.get(run.operation.id)).cursor == ASKED

    async def _recorded(self, run: Run, asset: AssetRecord) -> Snapshot | None:
        """Return what this operation has recorded as made: an earlier run may have deleted it since."""
        known = await self._record(run, asset)
        return known.snapshot if known else None

    async def _record(self, run: Run, asset: AssetRecord) -> SnapshotRecord | None:
        found = await run.catalog.inventory.snapshots(asset_id=asset.id, name=run.request["name"], gone=True)
        return next((item for item in found if item.seen_by == run.operation.id), None)


async def _begin_deletion(run: Run, snapshot: SnapshotRecord) -> None:
    """Raise Locked when something keeps the snapshot by now; from here on nothing can."""
    await run.catalog.protections.begin_deletion(snapshot, run.operation.id, by=run.operation.requester)


def _is_prepared(run: Run) -> bool:
    """Say whether something is done around the snapshot: assets are held, or programs run."""
    return bool(run.request.get("quiesce") or run.request.get("programs"))


def _result(
    run: Run, snapshot_id: str, consistency: Consistency, names: Sequence[str], reason: str | None
) -> dict[str, Any]:
    return {
        "snapshot": run.operation.target,
        "snapshot_id": snapshot_id,
        "consistency": consistency.value,
        "quiesced": list(names),
        "consistency_reason": reason,
    }


class DeleteHandler(Handler):
    """Delete a snapshot and prove that it is gone."""

    kind = "delete"
    finishing = "deleting"
    exclusive = True  # what is exported is not deleted

    async def start(self, run: Run) -> Ticket:
        """Ask for the deletion."""
        snapshot, role = await run.snapshot(), played((await run.roles()).delete, "delete")
        asset = await run.catalog.inventory.asset(snapshot.asset_id)
        if exports := await run.catalog.exports.find(snapshot_row=snapshot.id):
            raise Busy(f"{snapshot.reference} was exported meanwhile", dependents=[item.id for item in exports])
        await _begin_deletion(run, snapshot)
        await run.report("asking for the deletion")
        return await role.start_delete(asset.asset, snapshot.snapshot, run.request_id("delete"))

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait until the system says that there is no such snapshot."""
        role = played((await run.roles()).delete, "delete")
        await run.wait(self.finishing, lambda: role.poll_delete(ticket))
        snapshot = await run.snapshot()
        await run.catalog.inventory.mark_gone([snapshot], run.clock.now())
        return {"deleted": snapshot.reference, "proof": "the system answers that there is no such snapshot"}


class RestoreHandler(Handler):
    """Turn an asset back to a snapshot, in place."""

    kind = "restore"
    finishing = "restoring"

    async def start(self, run: Run) -> Ticket:
        """Ask for the restore."""
        snapshot, role = await run.snapshot(), played((await run.roles()).restore, "restore")
        asset = await run.catalog.inventory.asset(snapshot.asset_id)
        await run.report("asking for the restore")
        return await role.start_restore(
            asset.asset, snapshot.snapshot, run.request["confirmation"], run.request_id("restore")
        )

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait for the end."""
        role = played((await run.roles()).restore, "restore")
        await run.wait(self.finishing, lambda: role.poll_restore(ticket))
        return {"restored": (await run.snapshot()).reference}


class CloneHandler(Handler):
    """Make a new asset from a snapshot."""

    kind = "clone"
    finishing = "cloning"

    async def start(self, run: Run) -> Ticket:
        """Ask for the clone."""
        snapshot, role = await run.snapshot(), played((await run.roles()).clone, "clone")
        asset = await run.catalog.inventory.asset(snapshot.asset_id)
        await run.report("asking for the clone")
        return await role.start_clone(
            asset.asset,
            snapshot.snapshot,
            run.request["name"],
            run.request["confirmation"],
            run.request_id("clone"),
        )

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait for the new asset and record it."""
        role = played((await run.roles()).clone, "clone")
        asset = await run.wait(self.finishing, lambda: role.poll_clone(ticket))
        await run.catalog.inventory.record_batch(run.operation.system_id, (asset,), (), seen_by=run.operation.id)
        record = await run.catalog.inventory.find_asset(run.operation.system_name, asset.name)
        return {"asset": record.reference, "asset_id": record.id}
