"""Logins that failed: who guesses waits longer and longer. Kept in memory, for this process."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from snapkeep.model.errors import RateLimited

FREE = 5
"""Failures of a name from one address before it has to wait."""
FREE_OF_ADDRESS = 50
LONGEST = 900.0
"""Seconds of the longest wait; so long after the last failure all is forgotten, too."""
MOST = 10_000
"""What is remembered at most; the oldest goes first."""


class Attempts:
    """Counts failures by name and address, and by address alone: nobody locks out a name from elsewhere."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def begin(self, name: str, address: str) -> None:
        """Note an attempt, as failed until it has succeeded: many at once are many. Raises RateLimited when it is too
        early for another one."""
        address = _network(address)
        wait = max(self._wait((name, address), FREE), self._wait(("", address), FREE_OF_ADDRESS))
        if wait > 0:
            raise RateLimited(
                "Too many logins have failed",
                next_step=f"Try again in {wait:.0f} seconds.",
                retry_after=round(wait, 1),
            )
        for key in ((name, address), ("", address)):
            count, _ = self._failed.pop(key, (0, 0.0))
            self._failed[key] = (count + 1, self._monotonic())
        while len(self._failed) > MOST:
            self._failed.popitem(last=False)

    def news(self, name: str, address: str) -> int | None:
        """Return how many failures have made an attempt wait; None: nothing waits, or that was returned lately."""
        address = _network(address)
        now = self._monotonic()
        for key, free in (("", address), FREE_OF_ADDRESS), ((name, address), FREE):
            if self._wait(key, free) > 0:
                if now - self._told.get(key, -LONGEST) < LONGEST:
                    return None
                self._told[key] = now
                self._told.move_to_end(key)
                while len(self._told) > MOST:
                    self._told.popitem(last=False)
                return self._failed[key][0]
        return None

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of a name, and of its address this one attempt."""
        address = _network(address)
        self._failed.pop((name, address), None)
        count, last = self._failed.get(("", address), (0, 0.0))
        if count:
            self._failed["", address] = (count - 1, last)

    def _wait(self, key: tuple[str, str], free: int) -> float:
        count, last = self._failed.get(key, (0, 0.0))
        passed = self._monotonic() - last
        if passed > LONGEST:
            self._failed.pop(key, None)
            return 0.0
        return min(LONGEST, 2.0 ** min(count - free, 20)) - passed if count >= free else 0.0


def _network(address: str) -> str:
    """Return what one caller has: of IPv6 that is a network of 64 bits (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
