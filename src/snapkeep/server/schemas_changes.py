"""The JSON of change lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from snapkeep.catalog.records import ChangeListRecord
from snapkeep.server.schemas import In, Out


class ChangeListIn(In):
    """A diff between two snapshots of one asset."""

    base_id: str | None = Field(default=None, description="Older snapshot; null: everything in the new one.")
    new_id: str = Field(description="Newer snapshot.")
    source: Literal["system", "walk"] = Field(
        default="system", description="Who says what changed: the system, or a walk of both by a backup host."
    )
    verify: Literal["none", "sample", "full"] = Field(
        default="none", description="How much of both snapshots the list is held against; its verdict is in the result."
    )


class ChangeListOut(Out):
    """The head of a change list."""

    id: str
    asset: str
    base: str | None
    new: str
    source: str
    state: str
    entries: int
    summary: dict[str, Any] | None
    created_at: datetime
    completed_at: datetime | None

    @classmethod
    def of(cls, record: ChangeListRecord) -> ChangeListOut:
        """Map the record."""
        return cls(
            id=record.id,
            asset=record.asset,
            base=record.base_name,
            new=record.new_name,
            source=record.source,
            state=record.state.value,
            entries=record.entries,
            summary=record.summary,
            created_at=record.created_at,
            completed_at=record.completed_at,
        )
