"""Asking for proof that recovery points can be restored."""

from __future__ import annotations

from typing import Any

from snapkeep.catalog.records import AssetRecord, BackupRecord, OperationRecord, RepositoryRecord
from snapkeep.model.drills import BYTES, FILES
from snapkeep.operations.asking import Asking
from snapkeep.operations.requester import Requester


class Proving(Asking):
    """Verifications and drills, each of one recovery point: that which is given, or one of an asset."""

    async def verify(
        self, of: AssetRecord | BackupRecord, repository: RepositoryRecord, by: Requester, *, data: str
    ) -> OperationRecord:
        """Read a recovery point, of an asset its newest in the repository; `data`: sample or all."""
        if known := await self._known(by):
            return known
        return await self._prove("verify", of, repository, {"data": data}, by)

    async def drill(
        self,
        of: AssetRecord | BackupRecord,
        repository: RepositoryRecord,
        by: Requester,
        *,
        files: int | None = FILES,
        most_bytes: int = BYTES,
        check: str | None = None,
    ) -> OperationRecord:
        """Restore some files of a recovery point, of an asset one at random, to a scratch directory, and compare them.

        `files`: None: all of it, of any size. `check`: a program of the worker that then looks at them.
        """
        if known := await self._known(by):
            return known
        request = {"files": files, "bytes": most_bytes, "check": check}
        return await self._prove("drill", of, repository, request, by)

    async def _prove(
        self,
        kind: str,
        of: AssetRecord | BackupRecord,
        repository: RepositoryRecord,
        request: dict[str, Any],
        by: Requester,
    ) -> OperationRecord:
        if isinstance(of, BackupRecord):
            asset_id, backup_id, target = of.asset_id, of.id, of.reference
        else:
            asset_id, backup_id, target = of.id, None, f"{of.reference} in {repository.name}"
        request = {"repository_id": repository.id, "asset_id": asset_id, "backup_id": backup_id, **request}
        return await self._on_repository(kind, repository, target, request, by, asset_id=asset_id)
