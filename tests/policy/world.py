"""A catalog with assets and policies, a clock that tests set, and operations that are only noted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.policies import PolicyRecord
from snapkeep.catalog.records import AssetRecord
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.operations.clock import Clock
from snapkeep.operations.requester import Requester
from snapkeep.policy.document import Policy, Step

START = datetime(2027, 6, 1, 0, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
BOTH = frozenset({Capability.CREATE, Capability.EXPORT})
HOURLY = {"name": "hourly", "do": "snapshot", "schedule": "0 * * * *", "keep": {"last": 3}}
DRILL = {"name": "drill", "do": "drill", "schedule": "0 3 * * 0", "repository": "vault"}
NIGHTLY = {"name": "nightly", "do": "backup", "schedule": "0 1 * * *", "repository": "vault", "keep": {"daily": 2}}


class Died(BaseException):
    """The process is no more."""


class SetClock(Clock):
    """It shows what it is told to."""

    def __init__(self, now: datetime = START) -> None:
        self.time = now
        self.passed = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.passed

    def go(self, by: timedelta) -> None:
        self.time += by
        self.passed += by.total_seconds()


class Noted:
    """Takes what it is asked for; `dies_at`: in place of the n-th; `fails`: with this."""

    def __init__(self, *, dies_at: int | None = None) -> None:
        self.asked: list[tuple[str, str, str]] = []
        """Operation, asset, who asks."""
        self.steps: list[Step] = []
        """Of the same."""
        self.running: set[str] = set()
        self.fails: Exception | None = None
        self._left = dies_at

    async def ask(self, step: Step, asset: AssetRecord, by: Requester) -> str | None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Died
        if self.fails is not None:
            raise self.fails
        self.asked.append((by.operation_id or "", asset.asset.name, by.name))
        self.steps.append(step)
        return f"snapkeep-{by.operation_id}" if step.do == "snapshot" else None

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        return self.running & set(operation_ids)

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _, _ in self.asked]


async def add_assets(catalog: Catalog, system: str = "files1", count: int = 3, **values: Any) -> None:
    """Add a system with shares 0, 1, 2 and so on."""
    if not any(one.name == system for one in await catalog.systems.find()):
        await catalog.systems.add(f"id-{system}", system, "p", {}, {}, "default", START)
    found = [
        Asset(id=f"v{number}", kind=AssetKind.SHARE, name=f"{number}", **({"capabilities": BOTH} | values))
        for number in range(count)
    ]
    await catalog.inventory.record_batch(f"id-{system}", found, (), seen_by="o")


async def add_policy(catalog: Catalog, name: str = "p", *steps: dict[str, Any], **values: Any) -> PolicyRecord:
    policy = document(name, *steps, **values)
    return await catalog.policies.add(
        f"id-{name}", name=name, text="", document=policy, now=START, cooling=timedelta(hours=4)
    )


def document(name: str = "p", *steps: dict[str, Any], **values: Any) -> dict[str, Any]:
    given = {"name": name, "assets": [{}], "steps": list(steps or (HOURLY,))} | values
    return Policy.model_validate(given).model_dump(mode="json")
