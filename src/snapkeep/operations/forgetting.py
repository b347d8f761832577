"""Forgetting recovery points: here and in their repository."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from snapkeep.catalog.audit_chain import Entry
from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import BackupRecord, ChainRecord
from snapkeep.model.errors import Busy, SnapkeepError
from snapkeep.operations.asking import Asking
from snapkeep.operations.clock import Clock
from snapkeep.operations.host import Host
from snapkeep.operations.repositories import access
from snapkeep.operations.requester import Planned, Requester


class Forgetting:
    """Forgets recovery points, for people and for policies."""

    def __init__(self, catalog: Catalog, operations: Asking, host: Host, clock: Clock) -> None:
        self._catalog = catalog
        self._operations = operations
        self._host = host
        self._clock = clock

    async def forget(
        self, backup: BackupRecord, by: Requester, *, force: bool = False, entry: Entry | None = None
    ) -> None:
        """Forget a recovery point, here and in the repository; `restic prune` gives its space back.

        `force`: also the one from which the next incremental backup starts. `entry`: the line about it in the audit
        log, for whom no request writes one. Raises Busy without it, Locked while
        something keeps it, or while too many were deleted within the hour; Planned for a dry run.
        """
        protections = self._catalog.protections
        chain = await self._catalog.backups.chain(backup.asset_id, backup.repository_id)
        if chain is not None and chain.backup_id == backup.id and not force:
            raise Busy(
                f"The next incremental backup of {backup.system_name}/{backup.asset_name} starts from this recovery "
                "point",
                next_step="Back up again first; or use --force: the next backup then reads everything again.",
            )
        way = await access(self._catalog, await self._catalog.repositories.get(backup.repository_id), self._host)
        if by.dry_run:
            await protections.require_free(backup)
            raise Planned(f"forget the recovery point {backup.id}", [backup.reference])
        deletion = self._clock.new_id()
        await protections.require_free(backup)
        if not by.is_operation:
            await self._catalog.cooling.require_room(backup, deletion, by=by.name)
        await protections.begin_deletion(backup, deletion, by=by.name)

        def forget() -> None:
            with way.open() as repository, repository.locked(exclusive=True):
                repository.forget(backup.restic_id)

        try:
            await asyncio.to_thread(forget)
        except Exception:
            await protections.end_deletion(deletion)
            raise
        await self._catalog.backups.remove(backup.id, entry)
        if chain is not None and chain.backup_id == backup.id:
            await self.let_go(chain, by)

    async def let_go(self, chain: ChainRecord, by: Requester) -> None:
        """Delete the snapshot that a chain has pinned: nothing starts from it any more."""
        with suppress(SnapkeepError):  # it may be exported, or gone
            snapshot = await self._catalog.inventory.snapshot(chain.snapshot_id)
            if snapshot.snapshot.owned and snapshot.gone_at is None:
                await self._operations.delete(snapshot, Requester(by.name))
