"""Keeps the time by which holds and locks end."""

from __future__ import annotations

from snapkeep.catalog.catalog import Catalog
from snapkeep.operations.clock import Clock


class Timekeeper:
    """Lets the observed time go on, as far as this process has seen it pass itself: see `catalog.observed_time`."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._name = clock.new_id()
        self._last = clock.monotonic()

    async def keep_time(self) -> None:
        """Do so; what has passed in vain, since the database was away, counts no more."""
        now = self._clock.monotonic()
        measured, self._last = now - self._last, now
        await self._catalog.protections.time.observe(self._name, measured)
