"""The JSON of what is protected."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from snapkeep.policy.coverage import Cover, Coverage
from snapkeep.policy.retention import words
from snapkeep.server.schemas import Out


class CoverageOut(Out):
    """How it is with one asset. `state`: ok, late, unproved, unprotected or impossible.

    late: its last good recovery point is older than a policy promises; unproved: so is the last proof that one can be
    restored, or something wrong was found since; impossible: its system takes no snapshots of it.
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
    prove_every: str | None = Field(description="The shortest time within which any of these promises a proof.")
    proved_at: datetime | None = Field(description="When it was proved last that a recovery point can be restored.")
    failed_at: datetime | None = Field(description="When something wrong was found last, if that was after the proof.")
    failed: str | None = Field(description="What that was.")

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
            prove_every=words(found.prove_every) if found.prove_every is not None else None,
            proved_at=found.proved.at if found.proved is not None else None,
            failed_at=found.failed.at if found.failed is not None else None,
            failed=found.failed.reason if found.failed is not None else None,
        )
