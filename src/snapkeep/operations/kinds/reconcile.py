"""Reconcile: compare the catalog with what the system says, about ours alone; mend it when asked.

Nothing foreign is touched, and nothing is deleted on the system: only access of ours is closed. What an operation in
flight is about is left out. Every act is safe to repeat, so after a crash all is looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from snapkeep.catalog.inventory import asset_row_id, snapshot_row_id
from snapkeep.catalog.reconcile import Comparison, InFlight
from snapkeep.catalog.records import ExportRecord, ExportState, SnapshotRecord
from snapkeep.model.assets import Asset
from snapkeep.model.errors import Incomplete, SnapkeepError, Timeout, Unavailable
from snapkeep.model.exports import Export
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import DiscoveryBatch, Ticket
from snapkeep.operations.kinds.absence import SURE_SECONDS, surely_gone
from snapkeep.operations.kinds.base import Handler
from snapkeep.operations.run import Outage, Run
from snapkeep.plugin.registry import get_plugin
from snapkeep.plugin.roles import ExportDeport

Json = dict[str, Any]

SHOWN = 1000
"""How many findings the result holds; all are counted."""
SKEW = timedelta(seconds=60)
"""How far the system's clock may be behind ours, when it says when a snapshot was taken."""


class ReconcileHandler(Handler):
    """Findings, and what was done about them, are the result."""

    kind = "reconcile"
    finishing = "comparing"
    cancellable = True
    pausable = True
    patient = False

    async def start(self, run: Run) -> Ticket:
        """Nothing is begun on the system."""
        return Ticket()

    async def finish(self, run: Run, ticket: Ticket) -> Json:
        """Look at snapshots, then at exports, then at change lists."""
        report = _Report(run)
        await _Snapshots(run, report).compare()
        if (role := (await run.roles()).export) is not None:
            await _Exports(run, report, role).compare()
        await _compare_change_lists(run, report)
        return report.result()


class _Report:
    """What was found. What an earlier run of the operation has mended already stays in it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.apply: bool = run.request["apply"]
        before = run.operation.result or {}
        self._findings: list[Json] = [item for item in before.get("findings", ()) if item["done"]]
        self._counts = Counter(item["finding"] for item in self._findings)
        self._left = 0

    def add(self, kind: str, subject: str, action: str, detail: str, *, done: bool) -> None:
        """Add a finding."""
        self._counts[kind] += 1
        self._left += not done
        if len(self._findings) < SHOWN:
            found = {"finding": kind, "subject": subject, "action": action, "done": done, "detail": detail}
            self._findings.append(found)

    async def keep(self) -> None:
        """Store what was done: a crash must not make it forgotten."""
        if self.apply:
            await self._run.catalog.operations.update(self._run.operation.id, result=self.result())

    def result(self) -> Json:
        """Return all for people and programs; `left`: how many findings are not mended."""
        return {
            "findings": self._findings,
            "counts": dict(sorted(self._counts.items())),
            "left": self._left,
            "applied": self.apply,
        }


class _Part:
    """What the parts of the comparison have in common."""

    def __init__(self, run: Run, report: _Report) -> None:
        self.run = run
        self.report = report
        self.system_id = run.operation.system_id
        self.system = run.operation.system_name
        self.since = _begin(run)
        self.comparison = Comparison(run.catalog.database)

    async def in_flight(self, *systems: str) -> InFlight:
        """Return what operations are about at this moment."""
        ids = systems or (self.system_id,)
        return await self.comparison.in_flight(ids, besides=self.run.operation.id, since=self.since)


class _Snapshots(_Part):
    """Snapshots that the catalog lacks, and such that the system lacks."""

    def __init__(self, run: Run, report: _Report) -> None:
        super().__init__(run, report)
        self._seen: set[str] = set()
        self._strangers: dict[str, Asset] = {}
        self._promised: Mapping[tuple[str, str], datetime] = {}

    async def compare(self) -> None:
        """List the system once; then ask for what it did not show."""
        self._promised = await self.comparison.promised(self.system_id)
        async for batch in self._batches():
            await self._forgotten(batch)
            await self.run.check_cancel()
        async for rows in self.comparison.ours(self.system_id):
            await self._missing([row for row in rows if row not in self._seen])

    async def _batches(self) -> AsyncIterator[DiscoveryBatch]:
        """Yield all that the system lists, going on behind the last batch after an outage."""
        discover, outage, cursor = (await self.run.roles()).discover, Outage(self.run), None
        while True:
            try:
                async for batch in self.run.each(discover.discover(cursor)):
                    outage.over()
                    cursor = batch.cursor
                    yield batch
                    if batch.complete:
                        return
                raise Incomplete("The list of what lies on the system ended before its last batch")
            except Unavailable as error:
                await outage.wait_or_raise(error)

    async def _forgotten(self, batch: DiscoveryBatch) -> None:
        here = {asset.id: asset_row_id(self.system_id, asset.id) for asset in batch.assets}
        names = await self.comparison.names(list(here.values()))
        self._strangers |= {asset.id: asset for asset in batch.assets if here[asset.id] not in names}
        listed = {snapshot_row_id(asset_row_id(self.system_id, one.asset_id), one.id): one for one in batch.snapshots}
        known = await self.comparison.known(list(listed))
        forgotten: dict[str, Snapshot] = {}
        for row, snapshot in listed.items():
            record = known.get(row)
            if snapshot.owned or (record and record.owned) or self._was_promised(snapshot):
                self._seen.add(row)
                if record is None or record.gone or not record.owned:
                    forgotten[row] = snapshot
        if forgotten:
            await self._adopt(forgotten)

    def _was_promised(self, snapshot: Snapshot) -> bool:
        """Say whether a create of ours that did not succeed must have made this; older ones were there before it."""
        began = self._promised.get((asset_row_id(self.system_id, snapshot.asset_id), snapshot.name))
        return began is not None and snapshot.created_at is not None and snapshot.created_at >= began - SKEW

    async def _adopt(self, forgotten: Mapping[str, Snapshot]) -> None:
        rows = {one.asset_id: asset_row_id(self.system_id, one.asset_id) for one in forgotten.values()}
        flight, names = await self.in_flight(), await self.comparison.names(list(rows.values()))
        adopted = [
            one
            for row, one in forgotten.items()
            if row not in flight.snapshots
            and (rows[one.asset_id], one.name) not in flight.names
            and (rows[one.asset_id] in names or one.asset_id in self._strangers)
        ]
        if self.report.apply and adopted:
            strangers = {one.asset_id for one in adopted if rows[one.asset_id] not in names}
            await self.run.catalog.inventory.record_batch(
                self.system_id,
                [self._strangers[asset_id] for asset_id in sorted(strangers)],
                [replace(one, owned=True) for one in adopted],
                seen_by=self.run.operation.id,
                since=self.since,
            )
        for one in adopted:
            asset = names.get(rows[one.asset_id]) or self._strangers[one.asset_id].name
            self.report.add(
                "forgotten_snapshot",
                f"{self.system}/{asset}@{one.name}",
                "record it as ours",
                "It lies on the system and we made it, but the catalog does not have it as ours.",
                done=self.report.apply,
            )
        await self.report.keep()

    async def _missing(self, rows: Sequence[str]) -> None:
        flight, inventory = await self.in_flight(), self.run.catalog.inventory
        records = [await inventory.snapshot(row) for row in rows if row not in flight.snapshots]
        records = [one for one in records if (one.asset_id, one.snapshot.name) not in flight.names]
        owners = {row: (await inventory.asset(row)).asset for row in {one.asset_id for one in records}}
        gone = await surely_gone(self.run, [(owners[one.asset_id], one.snapshot) for one in records])
        flight = await self.in_flight()
        lost: list[SnapshotRecord] = [
            one for one, is_gone in zip(records, gone, strict=True) if is_gone and one.id not in flight.snapshots
        ]
        if self.report.apply and lost:
            await inventory.mark_gone(lost, self.run.clock.now())
        for one in lost:
            self.report.add(
                "missing_snapshot",
                one.reference,
                "mark it as gone",
                "The catalog has it, but the system says that there is no such snapshot.",
                done=self.report.apply,
            )
        if lost:
            await self.report.keep()


class _Exports(_Part):
    """Access that nothing needs, and exports that the system does not show."""

    def __init__(self, run: Run, report: _Report, role: ExportDeport) -> None:
        super().__init__(run, report)
        self._role = role
        self._systems: tuple[str, ...] = ()

    async def compare(self) -> None:
        """Look twice: what only one look shows may be a moment of the system."""
        self._systems = await self._same_systems()
        leftover, missing = await self._look()
        if leftover or missing:
            await self.run.pause(SURE_SECONDS)
            leftover_again, missing_again = await self._look()
            leftover = {key: export for key, export in leftover_again.items() if key in leftover}
            missing = {row: record for row, record in missing_again.items() if row in missing}
        for export in leftover.values():
            await self._close(export)
        for record in missing.values():
            await self._end(record)
        for record in await self._in_force():
            if record.state is ExportState.OPENING and record.system_id == self.system_id:
                await self._abandon(record)

    async def _same_systems(self) -> tuple[str, ...]:
        """Return the ids under which this catalog knows the same system: an access may serve another of them."""
        systems = await self.run.catalog.systems.find()
        this = next(one for one in systems if one.id == self.system_id)
        identity = get_plugin(this.plugin).settings.identity
        return tuple(
            one.id
            for one in systems
            if one.plugin == this.plugin and all(one.settings.get(key) == this.settings.get(key) for key in identity)
        )

    async def _look(self) -> tuple[dict[tuple[str, str, str], Export], dict[str, ExportRecord]]:
        """Return the access that nothing needs, and by id the exports in force that the system does not show."""

        async def listed() -> list[Export]:
            return [export async for export in self._role.open_exports()]

        found = await self.run.wait("asking what is open", listed)
        in_force, flight = await self._in_force(), await self.in_flight(*self._systems)
        leftover = {
            (one.asset_id, one.snapshot_id, one.host.address): one
            for one in found
            if not self._needed(one, in_force) and not self._busy(one, flight)
        }
        missing = {
            record.id: record
            for record in in_force
            if record.system_id == self.system_id
            and record.state is ExportState.ACTIVE
            and not any(_serves(one, record.export) for one in found)
            and not self._busy(record.export, flight)
        }
        return leftover, missing

    async def _in_force(self) -> list[ExportRecord]:
        exports = self.run.catalog.exports
        return [record for system in self._systems for record in await exports.find(system_id=system)]

    def _needed(self, access: Export, in_force: Sequence[ExportRecord]) -> bool:
        return any(_serves(access, record.export) for record in in_force)

    def _busy(self, export: Export, flight: InFlight) -> bool:
        return any(asset_row_id(system, export.asset_id) in flight.exported for system in self._systems)

    async def _close(self, access: Export) -> None:
        await self.run.check_cancel()
        in_force, flight = await self._in_force(), await self.in_flight(*self._systems)
        if self._needed(access, in_force) or self._busy(access, flight):
            return
        asset_row = asset_row_id(self.system_id, access.asset_id)
        asset = (await self.comparison.names([asset_row])).get(asset_row, access.asset_id)
        problem = ""
        if self.report.apply:
            problem = await self._deport(access, [record.export for record in in_force])
            if not problem:
                problem = await self._give_back(access)
        self.report.add(
            "leftover_export",
            f"{self.system}/{asset} to {access.host.address}",
            "close it",
            problem or "The system opens the asset to this host for us, but no export in the catalog needs that.",
            done=self.report.apply and not problem,
        )
        await self.report.keep()

    async def _abandon(self, record: ExportRecord) -> None:
        """Close what an export began that nobody works on any more."""
        await self.run.check_cancel()
        if self._busy(record.export, await self.in_flight(*self._systems)):
            return
        problem = ""
        if self.report.apply:
            others = [other.export for other in await self._in_force() if other.id != record.id]
            problem = await self._deport(record.export, others)
            if not problem and not await self._ended(record):
                problem = await self._give_back(record.export)
        self.report.add(
            "leftover_export",
            f"{record.reference} to {record.export.host.name}",
            "close it",
            problem or "The export was begun, but no operation works on it any more.",
            done=self.report.apply and not problem,
        )
        await self.report.keep()

    async def _ended(self, record: ExportRecord) -> bool:
        """Note the end of an export, unless somebody asked for it meanwhile."""
        if self._busy(record.export, await self.in_flight(*self._systems)):
            return False
        return await self.comparison.end_export(record, self.run.clock.now())

    async def _end(self, record: ExportRecord) -> None:
        await self.run.check_cancel()
        if self._busy(record.export, await self.in_flight(*self._systems)):
            return
        if self.report.apply and not await self._ended(record):
            return
        self.report.add(
            "missing_export",
            f"{record.reference} to {record.export.host.name}",
            "mark it as ended",
            "The export is in force in the catalog, but the system does not show the access.",
            done=self.report.apply,
        )
        await self.report.keep()

    async def _deport(self, access: Export, others: Sequence[Export]) -> str:
        """Close an access; return why it could not be closed."""
        label = f"close {access.asset_id} {access.snapshot_id} {access.host.address}"
        try:
            ticket = await self.run.wait(
                "closing", lambda: self._role.start_deport(access, others, self.run.request_id(label))
            )
            await self.run.wait("closing", lambda: self._role.poll_deport(ticket))
        except (Unavailable, Timeout):
            raise  # nothing else would fare better
        except SnapkeepError as error:
            return str(error)
        return ""

    async def _give_back(self, access: Export) -> str:
        """Open again what was asked for while it was being closed; return why that failed."""
        inventory = self.run.catalog.inventory
        in_force = await self._in_force()
        for record in in_force:
            if not _serves(access, record.export):
                continue
            snapshot = await inventory.snapshot(record.snapshot_id)
            asset, host, mode = await inventory.asset(snapshot.asset_id), record.export.host, record.export.mode
            others = [other.export for other in in_force if other.id != record.id]
            request = self.run.request_id(f"give back {record.id}")
            try:
                ticket = await self.run.wait(
                    "opening again",
                    lambda: self._role.start_export(asset.asset, snapshot.snapshot, host, mode, others, request),  # noqa: B023
                )
                await self.run.wait("opening again", lambda: self._role.poll_export(ticket))  # noqa: B023
            except (Unavailable, Timeout):
                raise
            except SnapkeepError as error:
                return f"{record.reference} was exported meanwhile, and could not be opened again: {error}"
        return ""


def _serves(access: Export, export: Export) -> bool:
    """Say whether an access on the system is what an export stands on."""
    same = (access.asset_id, access.host.address) == (export.asset_id, export.host.address)
    return same and access.snapshot_id in {"", export.snapshot_id}


async def _compare_change_lists(run: Run, report: _Report) -> None:
    comparison, since = Comparison(run.catalog.database), _begin(run)
    for list_id, asset in await comparison.unfinished_change_lists(run.operation.system_id, since=since):
        await run.check_cancel()
        if report.apply and not await comparison.give_up_change_list(list_id, run.clock.now(), since=since):
            continue  # its operation was tried again meanwhile
        report.add(
            "unfinished_change_list",
            f"{asset}: {list_id}",
            "mark it as incomplete",
            "The change list is not complete, and no operation works on it any more.",
            done=report.apply,
        )
        await report.keep()


def _begin(run: Run) -> datetime:
    return run.operation.started_at or run.operation.created_at
