"""What the retention of a policy would do now, by what is in the catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.policy_points import PointRecord
from snapkeep.catalog.records import AssetRecord
from snapkeep.policy.document import Policy
from snapkeep.policy.plan import Digest, Item, Point, Refused, plan_asset, refused
from snapkeep.policy.retention import Zone
from snapkeep.policy.selecting import Labelled, all_assets

TOGETHER = 100
"""Assets that are planned together."""


@dataclass(frozen=True, slots=True)
class AssetPlan:
    """What happens to all that there is of one asset; the newest comes first."""

    asset: AssetRecord
    items: Sequence[Item]
    records: dict[str, PointRecord]
    refused: Sequence[Refused]
    """Where more would go than a run may delete by itself."""

    def record(self, item: Item) -> PointRecord:
        """Return the snapshot or the recovery point of an item."""
        return self.records[item.point.id]

    @property
    def last_due_at(self) -> datetime | None:
        """The last due moment for which a policy has made any of it, by our own clock; None: there is none."""
        return max((one.due_at for one in self.records.values() if one.due_at is not None), default=None)

    def going(self) -> list[PointRecord]:
        """Return what would go, the oldest first."""
        return [self.record(item) for item in reversed(self.items) if item.deleted]


async def plans(catalog: Catalog, policy: Policy) -> AsyncIterator[AssetPlan]:
    """Give the plan of each asset that is under a policy."""
    zone = Zone(policy.timezone)
    waiting: list[Labelled] = []
    async for page in all_assets(catalog):
        waiting += [one for one in page if one.is_under(policy)]
        while len(waiting) >= TOGETHER:
            some, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
            for plan in await _together(catalog, policy, zone, some):
                yield plan
    for plan in await _together(catalog, policy, zone, waiting):
        yield plan


async def plan_of(catalog: Catalog, policy: Policy) -> tuple[list[PointRecord], str]:
    """Return all that would go, of each asset the oldest first, and the hash of the plan. What stays is not kept."""
    going, digest = [], Digest()
    async for plan in plans(catalog, policy):
        digest.add(plan.items)
        going += plan.going()
    return going, digest.hexdigest()


async def _together(catalog: Catalog, policy: Policy, zone: Zone, some: Sequence[Labelled]) -> list[AssetPlan]:
    found = await catalog.policy_points.of([one.asset.id for one in some])
    made = []
    for one in some:
        records = {f"{record.kind}:{record.id}": record for record in found[one.asset.id]}
        items = plan_asset((_point(point_id, record) for point_id, record in records.items()), policy, zone)
        made.append(AssetPlan(one.asset, items, records, refused(items, policy)))
    return made


def _point(point_id: str, record: PointRecord) -> Point:
    return Point(
        point_id,
        record.asset_id,
        int(record.taken.timestamp()) if record.taken is not None else 0,
        record.policy,
        record.step,
        tuple(record.kept_by),
        record.is_good,
    )
