"""What tests of notifications have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.model.notifications import DeliveryState, Event, Notice

CHANNEL_NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, b"k" * 32) as opened:
        yield opened


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Catalog]:
    """A catalog on SQLite, for what is the same on every store."""
    async with open_catalog(sqlite_url(tmp_path / "local.sqlite"), b"k" * 32) as opened:
        yield opened


def delivery(notice: Notice | None = None, **values: Any) -> DeliveryRecord:
    """Return a delivery that is being sent."""
    told = notice or Notice(event=Event.OPERATION_FAILED, message="backup files1/a failed: no space", system="files1")
    given: dict[str, Any] = {
        "id": "0a6ab1b6-2f4d-4b8f-9c58-6a2f4f7e0c11",
        "channel_id": "c",
        "channel_name": "ops",
        "event": told.event.value,
        "system": told.system,
        "subject": told.subject,
        "data": told.data("host1"),
        "recipients": None,
        "state": DeliveryState.WAITING,
        "attempts": 1,
        "answer": "",
        "summary_id": None,
        "created_at": CHANNEL_NOW,
        "due_at": CHANNEL_NOW,
        "ended_at": None,
    }
    return DeliveryRecord(**given | values)
