"""Which assets policies hold, by what is in the catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.policies import PolicyRecord
from snapkeep.catalog.policy_runs import Place
from snapkeep.catalog.records import AssetRecord
from snapkeep.model.assets import Asset, Capability
from snapkeep.policy.document import Policy, Step
from snapkeep.policy.firing import Calendar

PAGE = 500
"""Assets that are looked at together."""


_BACKUP = frozenset({Capability.CREATE, Capability.EXPORT})
_NEEDED = {"snapshot": frozenset({Capability.CREATE}), "diff": frozenset({Capability.DIFF_FILES})}
"""What an asset must be able to for a step; for all that works on backups: to be backed up."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy as it is in the catalog, ready to be used."""

    record: PolicyRecord
    policy: Policy
    steps: dict[str, Step]
    calendars: dict[str, Calendar]

    @classmethod
    def of(cls, record: PolicyRecord) -> Loaded:
        """Read what was stored. Raises ValueError for what this version does not know."""
        policy = Policy.model_validate(record.document)
        steps = {step.name: step for step in policy.steps}
        return cls(record, policy, steps, {name: Calendar(policy.schedule(step)) for name, step in steps.items()})


@dataclass(frozen=True, slots=True)
class Labelled:
    """An asset with its labels, over those of its system."""

    asset: AssetRecord
    labels: dict[str, str]

    def is_under(self, policy: Policy) -> bool:
        """Say whether a policy holds it."""
        record = self.asset
        return policy.holds(record.system_name, record.asset.kind, record.asset.name, self.labels)


async def labelled(catalog: Catalog, assets: Sequence[AssetRecord]) -> list[Labelled]:
    """Return assets with their labels."""
    labels = await catalog.identities.labels_of({id_ for one in assets for id_ in (one.system_id, one.id)})
    return [Labelled(one, {**labels[one.system_id], **labels[one.id]}) for one in assets]


async def all_assets(catalog: Catalog) -> AsyncIterator[list[Labelled]]:
    """Give all assets that exist, a page at a time."""
    after = ""
    while True:
        page = await catalog.inventory.assets(paging=Paging(after=after, limit=PAGE))
        yield await labelled(catalog, page)
        if page.next is None:
            return
        after = page.next


def can(asset: Asset, step: Step) -> bool:
    """Say whether what a step does is possible with an asset."""
    return _NEEDED.get(step.do, _BACKUP) <= asset.capabilities


async def places(catalog: Catalog, policies: Iterable[Loaded]) -> dict[str, set[Place]]:
    """Return where each policy is to run, by its id."""
    found: dict[str, set[Place]] = {one.record.id: set() for one in policies}
    loaded = list(policies)
    async for page in all_assets(catalog):
        for found_asset in page:
            for one in loaded:
                if found_asset.is_under(one.policy):
                    record = found_asset.asset
                    steps = [step.name for step in one.policy.steps if can(record.asset, step)]
                    found[one.record.id] |= {Place(step, record.id, record.system_id) for step in steps}
    return found
