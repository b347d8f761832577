"""Deletes what retention says: exactly a plan that a person has seen, or by itself, within bounds."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

import structlog

from snapkeep.catalog.audit_chain import Entry, Outcome, shortened
from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.policies import PolicyRecord
from snapkeep.catalog.policy_points import BACKUP, PointRecord
from snapkeep.catalog.records import BackupRecord, SnapshotRecord
from snapkeep.model.errors import Conflict, SnapkeepError
from snapkeep.model.notifications import Event, Notice
from snapkeep.operations.asking import Asking
from snapkeep.operations.clock import Clock
from snapkeep.operations.forgetting import Forgetting
from snapkeep.operations.requester import Requester
from snapkeep.policy.firing import AHEAD
from snapkeep.policy.plan import Refused
from snapkeep.policy.planning import plan_of, plans
from snapkeep.policy.selecting import Loaded

PAUSE: Final = timedelta(minutes=10)
"""How often retention goes over all that a policy has made."""
QUIET: Final = timedelta(days=1)
"""So long nobody is told again that a policy would delete more than it may."""
_DELETIONS: Final = uuid.UUID("7c2f5e0a-51bb-4b58-9d0c-2a3d5f7b9e21")

log = structlog.get_logger(__name__)


class Deletes(Protocol):
    """What retention asks for. Each raises what the operation itself would, of what something keeps by then."""

    async def delete(self, snapshot: SnapshotRecord, by: Requester) -> str:
        """Delete a snapshot; return the operation's id."""
        ...

    async def forget(self, backup: BackupRecord, by: Requester, entry: Entry) -> None:
        """Forget a recovery point, with a line about it in the audit log."""
        ...


class DeletesReally:
    """Asks for operations that are run."""

    def __init__(self, operations: Asking, forgetting: Forgetting) -> None:
        self._operations = operations
        self._forgetting = forgetting

    async def delete(self, snapshot: SnapshotRecord, by: Requester) -> str:
        """Delete a snapshot; return the operation's id."""
        return (await self._operations.delete(snapshot, by)).id

    async def forget(self, backup: BackupRecord, by: Requester, entry: Entry) -> None:
        """Forget a recovery point, with a line about it in the audit log."""
        await self._forgetting.forget(backup, by, entry=entry)


@dataclass(slots=True)
class Pruned:
    """What became of a plan."""

    deleted: list[tuple[PointRecord, str | None]] = field(default_factory=list)
    """With the operation that does it; recovery points have none: they are forgotten already."""
    refused: list[tuple[PointRecord, SnapkeepError]] = field(default_factory=list)


class Pruner:
    """Applies plans."""

    def __init__(self, catalog: Catalog, deletes: Deletes, clock: Clock) -> None:
        self._catalog = catalog
        self._deletes = deletes
        self._clock = clock

    async def prune(self, record: PolicyRecord, wanted: str, by: Requester) -> Pruned:
        """Delete exactly what the plan of this hash says. Raises Conflict when it is another one by now."""
        going, digest = await plan_of(self._catalog, Loaded.of(record).policy)
        if digest != wanted:
            raise Conflict(
                f"The plan of {record.name!r} is another one by now",
                next_step=f"Look at it again: `snapkeep policy plan {record.name}`, and give its hash.",
                hash=digest,
            )
        done = Pruned()
        await self._delete(going, by, done)
        return done

    async def retain(self, policy_id: str) -> Pruned | None:
        """Let the retention of a policy delete what it may by itself. None: it is not its turn, or has to wait since
        the policy was changed."""
        record = await self._catalog.policies.take_retention(policy_id, PAUSE, self._clock.now())
        if record is None:
            return None
        policy = Loaded.of(record).policy
        by = Requester(f"policy:{record.name}", is_operation=True)
        done = Pruned()
        waiting: list[Refused] = []
        ahead: list[str] = []
        async for plan in plans(self._catalog, policy):
            if plan.last_due_at is not None and plan.last_due_at > self._clock.now() + AHEAD:
                ahead.append(plan.asset.reference)
                continue
            waiting += plan.refused
            too_many = {one.step for one in plan.refused}
            for one in plan.refused:
                log.warning(
                    "more would be deleted than a run may; apply the plan by hand",
                    policy=record.name, asset=plan.asset.reference, step=one.step, count=one.count, most=one.most,
                )  # fmt: skip
            going = [one for one in plan.going() if one.step not in too_many]
            if going and not await self._is_the_same(record):  # what it says now counts, and that not at once
                log.info("the policy was changed; its retention waits", policy=record.name)
                return done
            await self._delete(going, by, done)
        if waiting:
            await self._catalog.outbox.tell(_refused(record.name, waiting), quiet=QUIET)
        if ahead:
            log.warning(
                "nothing is deleted where there are points of the future",
                policy=record.name,
                assets=len(ahead),
                one=ahead[0],
            )
            await self._catalog.outbox.tell(_of_the_future(record.name, ahead), quiet=QUIET)
        return done

    async def _is_the_same(self, record: PolicyRecord) -> bool:
        """Say whether a policy is as it was read."""
        return (await self._catalog.policies.enabled()).get(record.id) == record.revision

    async def _delete(self, records: Iterable[PointRecord], by: Requester, done: Pruned) -> None:
        for record in records:
            if record.deleting:
                continue
            try:
                done.deleted.append((record, await self._delete_one(record, by)))
            except SnapkeepError as error:
                done.refused.append((record, error))
                log.warning("retention may not delete", point=record.reference, by=by.name, reason=error.message)

    async def _delete_one(self, record: PointRecord, by: Requester) -> str | None:
        if record.kind == BACKUP:
            backup = await self._catalog.backups.get(record.id)
            await self._deletes.forget(backup, by, _forgotten(record, by))
            return None
        asker = by
        if by.is_operation:  # once a day, if it cannot be
            day = f"{record.id} {self._clock.now():%Y-%m-%d}"
            asker = Requester(by.name, str(uuid.uuid5(_DELETIONS, day)), is_operation=True)
        return await self._deletes.delete(await self._catalog.inventory.snapshot(record.id), asker)


def _refused(policy: str, waiting: Sequence[Refused]) -> Notice:
    """Return what is told of assets and steps of which more would go than a run may delete by itself."""
    points, most = sum(one.count for one in waiting), waiting[0].most
    return Notice(
        event=Event.RETENTION_REFUSED,
        message=f"Retention of the policy {policy} would delete {points} points: more than {most} of an asset and step",
        next_step=f"Look at them: `snapkeep policy plan {policy}`. To delete exactly these, give the hash that ends "
        f"this: `snapkeep policy prune {policy} --plan HASH`.",
        subject=policy,
        actor=f"policy:{policy}",
        details={"assets": len({one.asset_id for one in waiting}), "points": points, "most": most},
    )


def _of_the_future(policy: str, assets: Sequence[str]) -> Notice:
    """Return what is told of assets that have points of the future: by these, those that are made now look old."""
    return Notice(
        event=Event.RETENTION_REFUSED,
        message=f"Retention of the policy {policy} deletes nothing of {len(assets)} assets, such as {assets[0]}: the "
        "clock was wrong, and they have points of the future",
        next_step="Wait until that time has come, or delete these points: see `snapkeep snapshot list`.",
        subject=policy,
        actor=f"policy:{policy}",
        details={"assets": len(assets), "points": 0, "most": 0},
    )


def _forgotten(record: PointRecord, by: Requester) -> Entry:
    return Entry(
        actor=shortened(by.name),
        actor_kind="operation" if by.is_operation else by.kind,
        source="",
        action="backup.forget",
        subject=shortened(record.reference),
        outcome=Outcome.DONE,
        detail={"id": record.id},
    )
