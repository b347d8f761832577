"""Running policies beside a server: what is due, retention, and watching what is covered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapkeep.catalog.catalog import Catalog
from snapkeep.operations.clock import Clock
from snapkeep.operations.forgetting import Forgetting
from snapkeep.operations.open import Opened
from snapkeep.policy.asks import AsksOperations
from snapkeep.policy.pruning import DeletesReally, Pruner
from snapkeep.policy.retaining import Retaining
from snapkeep.policy.runner import Runner
from snapkeep.policy.watching import Watcher


@asynccontextmanager
async def running_policies(catalog: Catalog, parts: Opened, clock: Clock) -> AsyncIterator[Watcher]:
    """Run the policies of a catalog as long as this runs; yield who watches what they cover."""
    forgetting = Forgetting(catalog, parts.operations, parts.host, clock)
    runner = Runner(catalog, AsksOperations(catalog, parts.operations), clock)
    retaining = Retaining(catalog, Pruner(catalog, DeletesReally(parts.operations, forgetting), clock), clock)
    watcher = Watcher(catalog, clock)
    async with runner.running(), retaining.running(), watcher.running():
        yield watcher
