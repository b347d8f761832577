"""The JSON of policies, of their plans, and of what became of those."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from snapkeep.catalog.policies import PolicyRecord
from snapkeep.policy.planning import AssetPlan
from snapkeep.policy.pruning import Pruned
from snapkeep.server.schemas import In, Out

LONGEST_TEXT = 1_000_000


class PolicyIn(In):
    """A policy as somebody has written it."""

    text: Annotated[str, Field(max_length=LONGEST_TEXT)] = Field(description="YAML; it is kept with its comments.")


class PruneIn(In):
    """Which plan is to be applied."""

    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="Of the plan that was looked at.")


class PolicyOut(Out):
    """A policy. `document`: what it says; `deletes_from`: before that, its retention deletes nothing."""

    name: str
    enabled: bool
    revision: int
    comment: str
    timezone: str
    rpo: str | None
    steps: list[str] = Field(description="Their names.")
    document: dict[str, Any]
    text: str
    created_at: datetime
    changed_at: datetime
    deletes_from: datetime

    @classmethod
    def of(cls, record: PolicyRecord) -> PolicyOut:
        """Map the record."""
        said = record.document
        return cls(
            name=record.name,
            enabled=record.enabled,
            revision=record.revision,
            comment=str(said.get("comment", "")),
            timezone=str(said.get("timezone", "UTC")),
            rpo=said.get("rpo"),
            steps=[str(step.get("name")) for step in said.get("steps", [])],
            document=said,
            text=record.text,
            created_at=record.created_at,
            changed_at=record.changed_at,
            deletes_from=record.deletes_from,
        )


class PlanItemOut(Out):
    """What retention does with one snapshot (`kind`: snapshot) or recovery point (backup) at present, and why."""

    kind: str
    id: str
    reference: str
    asset: str
    step: str = Field(description="Which has made it; empty: none of this policy.")
    taken_at: datetime | None
    delete: bool
    reason: str

    @classmethod
    def all_of(cls, plan: AssetPlan, policy: str) -> list[PlanItemOut]:
        """Map the plan of one asset."""
        found = [(item, plan.record(item)) for item in plan.items]
        return [
            cls(
                kind=record.kind,
                id=record.id,
                reference=record.reference,
                asset=plan.asset.reference,
                step=record.step if record.policy == policy else "",
                taken_at=record.taken,
                delete=item.deleted,
                reason=item.reason,
            )
            for item, record in found
        ]


class TooManyOut(Out):
    """More would go of one asset and step than a run deletes by itself."""

    asset: str
    step: str
    count: int
    most: int


class PlanEndOut(Out):
    """The last line of a plan."""

    hash: str
    deleted: int
    kept: int
    too_many: list[TooManyOut]


class DeletedOut(Out):
    """What is deleted; `operation_id`: by which operation, null: it is gone already."""

    reference: str
    operation_id: str | None


class NotDeletedOut(Out):
    """What was not deleted after all."""

    reference: str
    code: str
    message: str


class PrunedOut(Out):
    """What became of a plan."""

    deleted: list[DeletedOut]
    refused: list[NotDeletedOut]

    @classmethod
    def of(cls, done: Pruned) -> PrunedOut:
        """Map it."""
        return cls(
            deleted=[DeletedOut(reference=one.reference, operation_id=by) for one, by in done.deleted],
            refused=[
                NotDeletedOut(reference=one.reference, code=error.code, message=error.message)
                for one, error in done.refused
            ],
        )
