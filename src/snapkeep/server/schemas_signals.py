"""The schemas of signals."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from snapkeep.catalog.signals import SignalRecord
from snapkeep.server.schemas import In, Out


class AcknowledgeIn(In):
    """Why a suspicious list is harmless."""

    reason: Annotated[str, Field(min_length=1, max_length=300, description="Why, for those who come after.")]


class ScoreOut(Out):
    """One measure of a change list, beside the lists before.

    `usual`: the 10th and the 90th percentile of these; `z` and `drift` as the documentation of signals says.
    """

    value: float
    usual: list[float]
    z: float
    drift: float | None


class SignalOut(Out):
    """What was thought of a change list; its id is that of the operation: the backup, or the diff.

    `lists`: how many before it it was compared with; with too few, nothing is said. `held`: what is held because of it.
    """

    operation_id: str
    asset_id: str
    asset: str
    repository: str | None = Field(description="Of a backup; null: a diff that stands alone.")
    backup_id: str | None
    snapshot_id: str
    at: datetime = Field(description="When the newer snapshot was taken.")
    suspicious: bool
    reasons: list[str]
    lists: int
    scores: dict[str, ScoreOut]
    features: dict[str, Any] = Field(description="Counts and bytes by operation, extensions, and the entropy sample.")
    held: str
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acknowledged_reason: str | None

    @classmethod
    def of(cls, record: SignalRecord) -> SignalOut:
        """Map the record."""
        return cls(
            operation_id=record.operation_id,
            asset_id=record.asset_id,
            asset=record.reference,
            repository=record.repository_name,
            backup_id=record.backup_id,
            snapshot_id=record.snapshot_id,
            at=record.at,
            suspicious=record.suspicious,
            reasons=record.reasons,
            lists=record.verdict["lists"],
            scores={name: ScoreOut(**score) for name, score in record.verdict["scores"].items()},
            features=record.features,
            held=record.held,
            acknowledged_at=record.acknowledged_at,
            acknowledged_by=record.acknowledged_by,
            acknowledged_reason=record.acknowledged_reason,
        )
