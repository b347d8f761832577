"""Time and ids, injected: tests replace them, nothing else asks the machine."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime


class Clock:
    """The real clock."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return datetime.now(UTC)

    def new_id(self) -> str:
        """Return a fresh id."""
        return str(uuid.uuid4())

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
