"""The last requests, so that a test can ask what its client really sent."""

from collections import deque

import msgspec

KEPT = 10_000


class LoggedRequest(msgspec.Struct, kw_only=True):
    """One request and its outcome. ``status`` 0: no answer was sent."""

    n: int
    time: float
    method: str
    path: str
    query: str
    status: int
    account: str | None
    request_id: str | None
    faults: list[str]


class RequestLog:
    """A ring of the last :data:`KEPT` requests, numbered from 1."""

    def __init__(self) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=KEPT)
        self.count = 0

    def next_number(self) -> int:
        """The number of a request that arrives now."""
        self.count += 1
        return self.count

    def add(self, entry: LoggedRequest) -> None:
        """Keep one."""
        self._entries.append(entry)

    def after(self, number: int) -> list[LoggedRequest]:
        """The requests with a higher number, in the order in which they ended."""
        return [entry for entry in self._entries if entry.n > number]
