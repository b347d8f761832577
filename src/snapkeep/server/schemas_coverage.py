"""The JSON of what is protected."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from snapkeep.policy.coverage import Cover, Coverage
from snapkeep.policy.retention import words
from snapkeep.server.schemas import Out


class CoverageOut(Out):
    """How it is with one asset. `state`: ok, late, unprotected or impossible.

    late: its last good recovery point is older than a policy promises; impossible: its system takes no snapshots of it.
    """

    asset: str
    asset_id: str
    kind: str
    state: Cover
    policies: list[str] = Field(description="Those that are enabled.")
    rpo: str | None = Field(description="The shortest that any of these promises.")
    last_good: str | None = Field(description="The newest snapshot or recovery point from which all can be restored.")
    last_good_at: datetime | None
    age_seconds: int | None
    next_at: datetime | None
    locked_until: datetime | None
    skipped: list[str] = Field(description="Why runs were left out last.")

    @classmethod
    def of(cls, found: Coverage) -> CoverageOut:
        """Map it."""
        last = found.last_good
        return cls(
            asset=found.asset.reference,
            asset_id=found.asset.id,
            kind=found.asset.asset.kind.value,
            state=found.cover,
            policies=list(found.policies),
            rpo=words(found.rpo) if found.rpo is not None else None,
            last_good=last.reference if last is not None else None,
            last_good_at=last.taken if last is not None else None,
            age_seconds=int(found.age.total_seconds()) if found.age is not None else None,
            next_at=found.next_at,
            locked_until=found.locked_until,
            skipped=list(found.skipped),
        )
