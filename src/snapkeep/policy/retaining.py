"""Lets the retention of all policies go over what they have made, again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.outages import is_outage
from snapkeep.operations.background import again_and_again, in_background
from snapkeep.operations.clock import Clock
from snapkeep.policy.pruning import Pruner

LOOK_SECONDS: Final = 30.0
"""How often it is looked whose turn it is."""

log = structlog.get_logger(__name__)


class Retaining:
    """Retention, in this process; others may do so at the same time: each policy has one at a time."""

    def __init__(self, catalog: Catalog, pruner: Pruner, clock: Clock) -> None:
        self._catalog = catalog
        self._pruner = pruner
        self._clock = clock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do so in the background."""
        async with in_background(again_and_again("retention", self._look, partial(self._clock.sleep, LOOK_SECONDS))):
            yield

    async def _look(self) -> None:
        for policy_id in await self._catalog.policies.enabled():
            await self._retain(policy_id)

    async def _retain(self, policy_id: str) -> None:
        """Let one policy's retention go over all; that one fails keeps no other from it."""
        try:
            done = await self._pruner.retain(policy_id)
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("the retention of a policy failed; it is tried again", policy=policy_id)
        else:
            if done is not None and (done.deleted or done.refused):
                log.info("retention", policy=policy_id, deleted=len(done.deleted), refused=len(done.refused))
