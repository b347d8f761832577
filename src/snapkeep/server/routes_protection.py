"""Holds, locks and the cooling time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from snapkeep.catalog.protections import PROTECTION_ORDERS
from snapkeep.catalog.records import BackupRecord, ProtectionRecord, SnapshotRecord
from snapkeep.model.access import Action, Principal, Visible
from snapkeep.model.protections import Cooling, ProtectionKind
from snapkeep.server.access import allow, for_anyone_known, listed, on_backup, on_protection, on_snapshot
from snapkeep.server.authentication import Caller
from snapkeep.server.context import Context, Parts
from snapkeep.server.lists import Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_protection import CoolingIn, CoolingOut, HoldIn, LockEndIn, LockIn, ProtectionOut

router = APIRouter(tags=["protection"])


@router.get("/protections", response_model=Page[ProtectionOut])
async def list_protections(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.PROTECTION_READ)],
    page: Annotated[Wanted, wanted(ProtectionOut, PROTECTION_ORDERS)],
    snapshot_id: Annotated[str | None, Query(max_length=36)] = None,
    backup_id: Annotated[str | None, Query(max_length=36)] = None,
    kind: ProtectionKind | None = None,
    ended: Annotated[bool, Query(description="Also those that keep nothing any more.")] = False,
) -> Response:
    """List holds and locks."""
    found = await parts.catalog.protections.find(
        page.paging, snapshot_id=snapshot_id, backup_id=backup_id, kind=kind, ended=ended, visible=visible
    )
    return page.answer([ProtectionOut.of(item) for item in found], found)


@router.get("/protections/{protection_id}")
async def show_protection(
    protection: Annotated[ProtectionRecord, on_protection(Action.PROTECTION_READ)],
) -> ProtectionOut:
    """Show a hold or a lock; the beginning of its id is enough when it is unique."""
    return ProtectionOut.of(protection)


# -- holds -------------------------------------------------------------------------------------------------------------
@router.post("/snapshots/{snapshot_id}/holds", status_code=status.HTTP_201_CREATED, response_model=ProtectionOut)
async def hold_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.HOLD_PLACE)],
    body: HoldIn,
    caller: Caller,
    parts: Parts,
    once: Single,
) -> ProtectionOut | Response:
    """Hold a snapshot: it is not deleted before the hold is released, or ends."""
    return await once.answer(lambda: _held(snapshot, body, caller, parts))


@router.post("/backups/{backup_id}/holds", status_code=status.HTTP_201_CREATED, response_model=ProtectionOut)
async def hold_backup(
    backup: Annotated[BackupRecord, on_backup(Action.HOLD_PLACE)],
    body: HoldIn,
    caller: Caller,
    parts: Parts,
    once: Single,
) -> ProtectionOut | Response:
    """Hold a recovery point: it is not forgotten before the hold is released, or ends."""
    return await once.answer(lambda: _held(backup, body, caller, parts))


async def _held(
    subject: SnapshotRecord | BackupRecord, body: HoldIn, caller: Principal, parts: Context
) -> ProtectionOut:
    placed = await parts.catalog.protections.place(
        parts.clock.new_id(),
        subject,
        kind=ProtectionKind.HOLD,
        until=body.until,
        reason=body.reason,
        by=caller.name,
    )
    return ProtectionOut.of(placed)


@router.delete("/holds/{protection_id}", status_code=status.HTTP_204_NO_CONTENT)
async def release_hold(
    hold: Annotated[ProtectionRecord, on_protection(Action.HOLD_RELEASE, ProtectionKind.HOLD)], parts: Parts
) -> None:
    """Release a hold."""
    await parts.catalog.protections.release(hold)


# -- locks -------------------------------------------------------------------------------------------------------------
@router.post("/snapshots/{snapshot_id}/locks", status_code=status.HTTP_201_CREATED, response_model=ProtectionOut)
async def lock_snapshot(
    snapshot: Annotated[SnapshotRecord, on_snapshot(Action.LOCK_PLACE)],
    body: LockIn,
    caller: Caller,
    parts: Parts,
    once: Single,
) -> ProtectionOut | Response:
    """Lock a snapshot: it is not deleted before a date. Nobody shortens a compliance lock."""
    return await once.answer(lambda: _locked(snapshot, body, caller, parts))


@router.post("/backups/{backup_id}/locks", status_code=status.HTTP_201_CREATED, response_model=ProtectionOut)
async def lock_backup(
    backup: Annotated[BackupRecord, on_backup(Action.LOCK_PLACE)],
    body: LockIn,
    caller: Caller,
    parts: Parts,
    once: Single,
) -> ProtectionOut | Response:
    """Lock a recovery point: it is not forgotten before a date. Nobody shortens a compliance lock."""
    return await once.answer(lambda: _locked(backup, body, caller, parts))


async def _locked(
    subject: SnapshotRecord | BackupRecord, body: LockIn, caller: Principal, parts: Context
) -> ProtectionOut:
    placed = await parts.catalog.protections.place(
        parts.clock.new_id(),
        subject,
        kind=ProtectionKind.LOCK,
        mode=body.mode,
        until=body.until,
        reason=body.reason,
        by=caller.name,
    )
    return ProtectionOut.of(placed)


@router.post("/locks/{protection_id}/extend")
async def extend_lock(
    lock: Annotated[ProtectionRecord, on_protection(Action.LOCK_PLACE, ProtectionKind.LOCK)],
    body: LockEndIn,
    parts: Parts,
) -> ProtectionOut:
    """Let a lock end later."""
    return ProtectionOut.of(await parts.catalog.protections.extend(lock, body.until))


@router.post("/locks/{protection_id}/shorten")
async def shorten_lock(
    lock: Annotated[ProtectionRecord, on_protection(Action.LOCK_SHORTEN, ProtectionKind.LOCK)],
    body: LockEndIn,
    parts: Parts,
) -> ProtectionOut:
    """Let a governance lock end sooner: at once, when the time has passed."""
    return ProtectionOut.of(await parts.catalog.protections.shorten(lock, body.until))


# -- the cooling time --------------------------------------------------------------------------------------------------
@router.get("/cooling", dependencies=[for_anyone_known()])
async def show_cooling(parts: Parts) -> CoolingOut:
    """Say how many deletions within an hour begin at once, and when further ones do."""
    return CoolingOut.of(await parts.catalog.cooling.get())


@router.put("/cooling", dependencies=[allow(Action.COOLING_CHANGE)])
async def set_cooling(body: CoolingIn, caller: Caller, parts: Parts) -> CoolingOut:
    """Change that. What cools already is left as it is."""
    await parts.catalog.cooling.set(Cooling(body.limit, body.hours), by=caller.name)
    return CoolingOut.of(await parts.catalog.cooling.get())
