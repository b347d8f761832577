"""The schemas of holds, locks and the cooling time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from snapkeep.catalog.records import ProtectionRecord
from snapkeep.model.protections import Cooling, LockMode
from snapkeep.server.lists import Moment
from snapkeep.server.schemas import In, Out

Reason = Annotated[str, Field(min_length=1, max_length=300, description="Why, for those who come after.")]


# -- requests ----------------------------------------------------------------------------------------------------------
class HoldIn(In):
    """A hold to be placed."""

    reason: Reason
    until: Moment | None = Field(default=None, description="When it ends by itself; null: when it is released.")


class LockIn(In):
    """A lock to be placed."""

    mode: LockMode
    until: Moment
    reason: Reason


class LockEndIn(In):
    """Another end of a lock."""

    until: Moment


class CoolingIn(In):
    """What slows down a mass deletion."""

    limit: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        description="So many deletions within an hour begin at once; null: any number."
    )
    hours: int = Field(default=4, ge=1, le=168, description="After how long a further one begins.")


# -- answers -----------------------------------------------------------------------------------------------------------
class ProtectionOut(Out):
    """A hold or a lock of a snapshot (`snapshot_id`) or of a recovery point (`backup_id`).

    `in_force`: whether it still keeps it.
    """

    id: str
    kind: str
    mode: str | None
    reference: str
    snapshot_id: str | None
    backup_id: str | None
    until: datetime | None
    in_force: bool
    reason: str
    placed_by: str
    placed_at: datetime

    @classmethod
    def of(cls, record: ProtectionRecord) -> ProtectionOut:
        """Map the record."""
        return cls(
            id=record.id,
            kind=record.kind.value,
            mode=record.mode.value if record.mode else None,
            reference=record.reference,
            snapshot_id=record.snapshot_id,
            backup_id=record.backup_id,
            until=record.until,
            in_force=record.in_force,
            reason=record.reason,
            placed_by=record.placed_by,
            placed_at=record.placed_at,
        )


class CoolingOut(Out):
    """What slows down a mass deletion: of more than `limit` within an hour, each further one begins `hours` later."""

    limit: int | None
    hours: int

    @classmethod
    def of(cls, cooling: Cooling) -> CoolingOut:
        """Map it."""
        return cls(limit=cooling.limit, hours=cooling.hours)
