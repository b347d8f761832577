"""Lets the retention of all policies go over what they have made, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.outages import is_outage
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
        task = asyncio.create_task(self._again_and_again())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _again_and_again(self) -> None:
        away = False
        while True:
            try:
                for policy_id in await self._catalog.policies.enabled():
                    await self._retain(policy_id)
                away = False
            except Exception as error:
                if not is_outage(error):
                    log.exception("retention failed; it is tried again")
                elif not away:
                    log.warning("the database is away; retention waits", reason=str(error))
                away = is_outage(error)
            await self._clock.sleep(LOOK_SECONDS)

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
