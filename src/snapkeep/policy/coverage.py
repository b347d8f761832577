"""What is protected, since when, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.drills import DrillRecord, Standing
from snapkeep.catalog.policy_points import PointRecord
from snapkeep.catalog.records import AssetRecord
from snapkeep.model.assets import Capability
from snapkeep.policy.firing import AHEAD
from snapkeep.policy.selecting import Loaded, labelled


class Cover(StrEnum):
    """How it is with an asset."""

    OK = "ok"
    """Under a policy that makes recovery points; the last good one, and its proof, are not older than that promises."""
    LATE = "late"
    """Under a policy that promises a younger recovery point than there is."""
    UNPROVED = "unproved"
    """Under a policy that promises a younger proof that it can be restored, or there was a failed one since."""
    UNPROTECTED = "unprotected"
    """It could be under a policy that makes recovery points, and is under none that runs."""
    IMPOSSIBLE = "impossible"
    """Its system cannot take snapshots of it."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of one asset."""

    asset: AssetRecord
    cover: Cover
    policies: Sequence[str]
    """Those that are enabled, by name."""
    rpo: timedelta | None
    """The shortest that any of these promises."""
    last_good: PointRecord | None
    age: timedelta | None
    """Of the last good recovery point."""
    next_at: datetime | None
    """When something is next due."""
    locked_until: datetime | None
    """The last end of a lock on anything of it."""
    skipped: Sequence[str]
    """Why runs were left out last."""
    prove_every: timedelta | None
    """The shortest that any of these promises."""
    proved: DrillRecord | None
    """The last that has proved that a recovery point of it can be restored."""
    failed: DrillRecord | None
    """The last that has found something wrong since then."""


async def loaded(catalog: Catalog) -> list[Loaded]:
    """Return the policies that run; those that cannot be read do not."""
    found = []
    for record in await catalog.policies.find():
        if record.enabled:
            try:
                found.append(Loaded.of(record))
            except ValueError:
                continue
    return found


async def coverage(
    catalog: Catalog, assets: Sequence[AssetRecord], policies: Sequence[Loaded], now: datetime
) -> list[Coverage]:
    """Say how it is with some assets, at most some hundreds."""
    ids = [asset.id for asset in assets]
    points, positions = await catalog.policy_points.of(ids), await catalog.policy_runs.outlook(ids)
    drilled = await catalog.drills.standing(ids, now + AHEAD)
    found = []
    for one in await labelled(catalog, assets):
        over = [policy for policy in policies if one.is_under(policy.policy)]
        there = points[one.asset.id]
        good = [point for point in there if point.is_good and point.taken is not None]
        last = max(
            good, key=lambda point: (point.taken is not None and point.taken.timestamp(), point.id), default=None
        )
        age = max(now - last.taken, timedelta()) if last is not None and last.taken is not None else None
        rpo = min((policy.policy.rpo for policy in over if policy.policy.rpo is not None), default=None)
        promised = [policy.policy.prove_every for policy in over]
        every = min((span for span in promised if span is not None), default=None)
        standing = drilled.get(one.asset.id, Standing(None, None))
        is_late = rpo is not None and (age is None or age > rpo)
        outlook = positions.get(one.asset.id, [])
        locks = [point.locked_until for point in there if point.locked_until is not None]
        found.append(
            Coverage(
                one.asset,
                _cover(
                    one.asset,
                    is_under=any(policy.policy.keeping for policy in over),
                    is_late=is_late,
                    is_proved=every is None or _is_proved(standing, every, now),
                ),
                [policy.policy.name for policy in over],
                rpo,
                last,
                age,
                min((look_at for look_at, _ in outlook if look_at is not None), default=None),
                max(locks, default=None),
                sorted({skipped for _, skipped in outlook if skipped}),
                every,
                standing.proved,
                standing.failed,
            )
        )
    return found


def _is_proved(standing: Standing, every: timedelta, now: datetime) -> bool:
    return standing.failed is None and standing.proved is not None and now - standing.proved.at <= every


def _cover(asset: AssetRecord, *, is_under: bool, is_late: bool, is_proved: bool) -> Cover:
    if not is_under:
        return Cover.UNPROTECTED if Capability.CREATE in asset.asset.capabilities else Cover.IMPOSSIBLE
    if is_late:
        return Cover.LATE
    return Cover.OK if is_proved else Cover.UNPROVED
