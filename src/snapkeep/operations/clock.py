"""Time and ids, injected: tests replace them, nothing else asks the machine."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime


class Clock:
    """The real clock."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC: for what people read, never for measuring; it may jump."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that only grow, in this process: for deadlines and pauses."""
        return time.monotonic()

    def new_id(self) -> str:
        """Return a fresh id."""
        return str(uuid.uuid4())

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
