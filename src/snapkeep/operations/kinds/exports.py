"""Export and deport."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from snapkeep.catalog.exports import export_row_id
from snapkeep.catalog.records import ExportState
from snapkeep.model.errors import NotFound
from snapkeep.model.exports import AccessMode, BackupHost, Export
from snapkeep.model.work import Ticket
from snapkeep.operations.kinds.base import Handler, played
from snapkeep.operations.run import Run

_NOT_RENEWED = "not_renewed"
_OPENS = "opens"
"""Noted in the operation, before anything else, that it opens what was closed: only that is undone."""


class ExportHandler(Handler):
    """Make a snapshot readable on a backup host, or renew that."""

    kind = "export"
    finishing = "waiting for the access"
    exclusive = True  # one access entry may serve all exports of an asset
    cancellable = True
    undone_on_failure = True

    async def start(self, run: Run) -> Ticket:
        """Record what is to be opened, then ask for it."""
        snapshot, role = await run.snapshot(), played((await run.roles()).export, "export")
        asset = await run.catalog.inventory.asset(snapshot.asset_id)
        if snapshot.gone_at is not None:
            raise NotFound(f"{snapshot.reference} no longer exists on the system")
        host, mode = _host(run), AccessMode(run.request["mode"])
        if run.request.get("renews"):
            known = await run.catalog.exports.get(export_row_id(snapshot.id, host))
            if known.state is ExportState.ENDED:
                return Ticket({_NOT_RENEWED: "deported in the meantime"})
        if not await _is_open(run, export_row_id(snapshot.id, host)):
            await run.catalog.operations.update(run.operation.id, cursor=_OPENS)
        row = await run.catalog.exports.opening(snapshot.id, host, mode, run.clock.now())
        await run.report(f"opening to {host.name}")
        others = await other_exports(run, row)
        return await role.start_export(asset.asset, snapshot.snapshot, host, mode, others, run.request_id("export"))

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait until the system confirms the access."""
        if _NOT_RENEWED in ticket.data:
            return {"not_renewed": ticket[_NOT_RENEWED]}
        role = played((await run.roles()).export, "export")
        export = await run.wait(self.finishing, lambda: role.poll_export(ticket))
        row = export_row_id(run.request["snapshot_id"], _host(run))
        await run.catalog.exports.active(row, export)
        return {
            "export_id": row,
            "locations": [asdict(location) for location in export.locations],
            "expires_at": export.expires_at.isoformat() if export.expires_at else None,
        }

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Close what was not open before."""
        row = export_row_id(run.request["snapshot_id"], _host(run))
        try:
            record = await run.catalog.exports.get(row)
        except NotFound:
            return  # it was never recorded, so nothing was begun
        opened_before = record.state is ExportState.ACTIVE and run.operation.cursor != _OPENS
        if record.state is not ExportState.ENDED and not opened_before:
            await close(run, row, record.export)


class DeportHandler(Handler):
    """Take the access of a backup host away."""

    kind = "deport"
    finishing = "waiting for the end of the access"
    exclusive = True

    async def start(self, run: Run) -> Ticket:
        """Ask for it."""
        row, role = run.request["export_id"], played((await run.roles()).export, "export")
        record = await run.catalog.exports.get(row)
        await run.report(f"closing to {record.export.host.name}")
        others = await other_exports(run, row)
        return await role.start_deport(record.export, others, run.request_id("deport"))

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait until the system confirms it."""
        role = played((await run.roles()).export, "export")
        await run.wait(self.finishing, lambda: role.poll_deport(ticket))
        await run.catalog.exports.ended(run.request["export_id"], run.clock.now())
        return {"deported": (await run.catalog.exports.get(run.request["export_id"])).reference}


async def _is_open(run: Run, row: str) -> bool:
    try:
        return (await run.catalog.exports.get(row)).state is not ExportState.ENDED
    except NotFound:
        return False


async def close(run: Run, row: str, export: Export) -> None:
    """Deport inside another operation."""
    role = played((await run.roles()).export, "export")
    others = await other_exports(run, row)
    ticket = await run.persist(lambda: role.start_deport(export, others, run.request_id("undo")))
    await run.wait("closing", lambda: role.poll_deport(ticket))
    await run.catalog.exports.ended(row, run.clock.now())


async def other_exports(run: Run, row: str) -> list[Export]:
    """Return the exports of the same system that are in force, or about to be, besides `row`."""
    found = await run.catalog.exports.find(system_id=run.operation.system_id)
    return [record.export for record in found if record.id != row]


def _host(run: Run) -> BackupHost:
    return BackupHost(name=run.request["host"]["name"], address=run.request["host"]["address"])
