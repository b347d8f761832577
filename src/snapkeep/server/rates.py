"""How many requests somebody may send: a bucket of tokens each, in memory, for this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from snapkeep.model.errors import RateLimited

MOST = 10_000
"""Buckets that are kept at most; who was away longest begins with a full one again."""


class Rates:
    """Counts requests by who sends them: an identity, or an address as long as no identity is proved."""

    def __init__(self, per_second: float, burst: int, monotonic: Callable[[], float]) -> None:
        """`per_second`: how many may come all the time, 0 for any number; `burst`: how many at once."""
        self._rate = per_second
        self._burst = float(burst)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> None:
        """Count a request. Raises RateLimited when it is one too many."""
        if not self._rate:
            return
        now = self._monotonic()
        left, since = self._buckets.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        if left < 1:
            self._buckets[who] = left, now
            wait = (1 - left) / self._rate
            raise RateLimited(
                f"More than {self._rate:g} requests a second",
                next_step="Wait and try again, and ask for longer pages, or for events instead of looking again and "
                "again.",
                retry_after=round(wait, 3),
            )
        self._buckets[who] = left - 1, now
        while len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
