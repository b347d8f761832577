"""Verifications and drills of recovery points, and what they have found."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from snapkeep.catalog.drills import DRILL_ORDERS
from snapkeep.catalog.records import BackupRecord
from snapkeep.model.access import Action, Visible
from snapkeep.server.access import Allowed, listed, on_backup
from snapkeep.server.context import Parts
from snapkeep.server.lists import Name, Wanted, wanted
from snapkeep.server.requester import Asker
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_drills import DrillIn, DrillOut, VerifyIn
from snapkeep.server.schemas_operations import OperationOut

router = APIRouter(tags=["backups"])


@router.post("/backups/{backup_id}/verify", status_code=status.HTTP_202_ACCEPTED)
async def verify_backup(
    backup: Annotated[BackupRecord, on_backup(Action.REPOSITORY_CHECK)], body: VerifyIn, parts: Parts, caller: Asker
) -> OperationOut:
    """Read all trees of a recovery point, and a sample or all of its content; it fails when something is wrong."""
    repository = await parts.catalog.repositories.get(backup.repository_name)
    return OperationOut.of(await parts.operations.verify(backup, repository, caller, data=body.data))


@router.post("/backups/{backup_id}/drill", status_code=status.HTTP_202_ACCEPTED)
async def drill_backup(
    backup: Annotated[BackupRecord, on_backup(Action.BACKUP_RESTORE)],
    body: DrillIn,
    parts: Parts,
    access: Allowed,
    caller: Asker,
) -> OperationOut:
    """Restore files of a recovery point to a scratch directory, compare them, and remove them; it fails when something
    is wrong.
    """
    await access.program(body.check)
    operation = await parts.operations.drill(
        backup,
        await parts.catalog.repositories.get(backup.repository_name),
        caller,
        files=None if body.files == "all" else body.files,
        most_bytes=body.bytes,
        check=body.check,
    )
    return OperationOut.of(operation)


@router.get("/drills", response_model=Page[DrillOut])
async def list_drills(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.BACKUP_READ)],
    page: Annotated[Wanted, wanted(DrillOut, DRILL_ORDERS)],
    asset_id: Name = None,
    passed: Annotated[bool | None, Query(description="Only those that have passed, or have not.")] = None,
) -> Response:
    """List what verifications and drills have found."""
    found = await parts.catalog.drills.find(asset_id=asset_id, passed=passed, paging=page.paging, visible=visible)
    return page.answer([DrillOut.of(item) for item in found], found)
