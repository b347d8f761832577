"""What follows from a change list: it is held against those before; on suspicion people are told, and what was clean is
held. Nothing is ever deleted, stopped or restored because of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog

from snapkeep.catalog.audit_chain import Entry, Outcome, shortened
from snapkeep.catalog.fencing import Superseded
from snapkeep.catalog.outages import is_outage
from snapkeep.catalog.paging import FIRST, Paging
from snapkeep.catalog.records import (
    AssetRecord,
    BackupRecord,
    ChangeListRecord,
    OperationRecord,
    ProtectionRecord,
    SnapshotRecord,
)
from snapkeep.catalog.signals import DIFFS, SignalRecord
from snapkeep.model.errors import Busy, NotFound
from snapkeep.model.notifications import Event, Notice
from snapkeep.model.protections import ProtectionKind
from snapkeep.operations.run import Run
from snapkeep.signals.entropy import EntropySample
from snapkeep.signals.features import Features
from snapkeep.signals.scoring import WINDOW, judge

SIGNALS = "signals"
"""Who places these holds."""
_TRIED = 20
"""Recovery points that are tried, when one after the other is being deleted."""
_LATEST = Paging("-created_at", limit=1000)

log = structlog.get_logger(__name__)


def is_part(operation: OperationRecord) -> bool:
    """Say whether another operation has asked for it: `Run.part` names that and its id; no other name has a blank."""
    return " " in operation.requester


async def look_at_changes(
    run: Run,
    asset: AssetRecord,
    changes: ChangeListRecord,
    *,
    series: str = DIFFS,
    backup_id: str | None = None,
    entropy: EntropySample | None = None,
) -> dict[str, Any] | None:
    """Judge a complete change list between two snapshots, once for each operation; return what its result says of it.

    None when that was not possible, which is logged: no operation fails by it. Raises Superseded, and that the
    catalog is away.
    """
    try:
        signal = await run.catalog.signals.known(run.operation.id)
        if signal is None:
            signal = await _judged(run, changes, series, backup_id, entropy)
        if signal.suspicious and not signal.told:
            signal = await _suspected(run, asset, signal)
        return signal.to_result()
    except Superseded:
        raise
    except Exception as error:
        if is_outage(error):
            raise
        log.warning("what changed could not be judged", exc_info=error)
        return None


async def _judged(
    run: Run, changes: ChangeListRecord, series: str, backup_id: str | None, entropy: EntropySample | None
) -> SignalRecord:
    get = run.catalog.inventory.snapshot
    new, base = await get(changes.new_id), await get(changes.base_id or "")
    at = new.snapshot.created_at or run.clock.now()
    features = Features.of(changes.summary or {}, at=at, since=base.snapshot.created_at, entropy=entropy)
    signals = run.catalog.signals
    past = await signals.history(changes.asset_id, series, before=at, limit=WINDOW)
    history = [Features.from_dict(one, acknowledged=acknowledged) for one, acknowledged in past]
    return await signals.record(
        run.operation.id,
        asset_id=changes.asset_id,
        series=series,
        backup_id=backup_id,
        snapshot_id=new.id,
        at=at,
        features=features.to_dict(),
        verdict=judge(features, history).to_dict(),
    )


async def _suspected(run: Run, asset: AssetRecord, signal: SignalRecord) -> SignalRecord:
    """Hold what was clean, then tell people, once: run again after a crash, it places no second hold."""
    first = await run.catalog.signals.first_open(signal.asset_id, signal.series) or signal
    hold = await _hold(run, first)
    held = f"{hold.reference}{f' in {hold.repository_name}' if hold.repository_name else ''}" if hold else ""
    log.warning("what changed is suspicious", asset=asset.reference, reasons=signal.reasons, held=held)
    is_held = (
        f"The last clean recovery point is held: {held}." if held else "No clean recovery point was found to hold."
    )
    notice = Notice(
        event=Event.CHANGE_SUSPICIOUS,
        message=f"What changed on {asset.reference} is unusual: {'; '.join(signal.reasons)}. {is_held}",
        next_step=f"Look at the files, and at `snapkeep signal show {signal.operation_id[:8]}`; if they are as they "
        "should be, `snapkeep signal acknowledge`.",
        system=asset.system_name,
        subject=asset.reference,
        actor=run.operation.requester,
        details={
            "operation": signal.operation_id,
            "asset": asset.id,
            "reasons": signal.reasons,
            "held": held,
        },
    )
    placed = [_placed(run, hold)] if hold is not None and hold.id == _hold_id(run) else []
    return await run.catalog.signals.tell(signal, held, notice, placed)


async def _hold(run: Run, first: SignalRecord) -> ProtectionRecord | None:
    """Hold the last clean recovery point, unless it is held for the same already. None: there is none."""
    protections, hold_id = run.catalog.protections, _hold_id(run)
    try:
        return await protections.get(hold_id)
    except NotFound:
        pass
    for point in (await _clean(run, first))[:_TRIED]:
        of = (point.id, None) if isinstance(point, SnapshotRecord) else (None, point.id)
        holds = await protections.find(FIRST, snapshot_id=of[0], backup_id=of[1], kind=ProtectionKind.HOLD)
        if ours := [hold for hold in holds if hold.placed_by == SIGNALS]:
            return ours[0]
        reason = f"the last one before suspicious changes (signal {first.operation_id[:8]}): {'; '.join(first.reasons)}"
        try:
            return await protections.place(
                hold_id, point, kind=ProtectionKind.HOLD, reason=shortened(reason, 300), by=SIGNALS
            )
        except (Busy, NotFound):  # it is being deleted: then the one before
            continue
    return None


async def _clean(run: Run, first: SignalRecord) -> Sequence[BackupRecord | SnapshotRecord]:
    """Return what there is of before the first suspicious list that nobody has acknowledged, the best first.

    Of backups those that are whole come first, of snapshots our own: who made others knows of no hold. What was made
    while a drift had begun already comes last.
    """
    began = datetime.fromisoformat(first.verdict["began_at"])
    points: list[tuple[datetime, bool, BackupRecord | SnapshotRecord]]
    if first.series == DIFFS:
        snapshots = await run.catalog.inventory.snapshots(asset_id=first.asset_id, paging=_LATEST)
        dated = [(one.snapshot.created_at, one) for one in snapshots]
        points = [(at, one.snapshot.owned, one) for at, one in dated if at is not None]
    else:
        backups = await run.catalog.backups.find(asset_id=first.asset_id, repository_id=first.series, paging=_LATEST)
        points = [(one.snapshot_at or one.created_at, not one.partial, one) for one in backups if not _is_wrong(one)]
    before = [
        point for point in points if point[0] < first.at and point[2].id not in {first.backup_id, first.snapshot_id}
    ]
    before.sort(key=lambda point: (point[0] <= began, point[1], point[0]), reverse=True)
    return [point for _, _, point in before]


def _hold_id(run: Run) -> str:
    return run.request_id("hold what was clean")


def _is_wrong(backup: BackupRecord) -> bool:
    return bool((backup.verification or {}).get("differing"))


def _placed(run: Run, hold: ProtectionRecord) -> Entry:
    return Entry(
        actor=SIGNALS,
        actor_kind="operation",
        source=run.host.name,
        action="hold.place",
        subject=shortened(f"hold of {hold.reference}"),
        outcome=Outcome.DONE,
        detail={"operation": run.operation.id, "id": hold.id},
    )
