"""The JSON of verifications and drills."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from snapkeep.catalog.drills import DrillKind, DrillRecord
from snapkeep.model.drills import BYTES, FILES, MOST_FILES
from snapkeep.server.schemas import In, Out
from snapkeep.server.schemas_snapshots import ProgramName


class VerifyIn(In):
    """A verification of a recovery point."""

    data: Literal["sample", "all"] = Field(default="sample", description="How much of the content of files is read.")


class DrillIn(In):
    """A restore of a sample to a scratch directory, where it is compared, and removed."""

    files: Annotated[int, Field(ge=1, le=MOST_FILES)] | Literal["all"] = Field(
        default=FILES, description="So many files at random; all: the whole recovery point, however big it is."
    )
    bytes: int = Field(default=BYTES, ge=1, le=1 << 50, description="So many bytes at most, unless it is all.")
    check: ProgramName | None = Field(
        default=None,
        description="A program of the worker that looks at what was restored; needs the permission program.run, for "
        "everything.",
    )


class DrillOut(Out):
    """What a verification or a drill of a recovery point has found."""

    operation_id: str
    kind: DrillKind = Field(description="verify: the repository was read; drill: files were restored, and compared.")
    asset: str
    asset_id: str
    repository: str
    backup_id: str
    at: datetime
    seconds: float
    files: int = Field(description="Files whose content was looked at.")
    bytes: int
    whole: bool = Field(description="All content was looked at; else a sample.")
    passed: bool
    reason: str = Field(description="Why it has not passed.")

    @classmethod
    def of(cls, record: DrillRecord) -> DrillOut:
        """Map the record."""
        return cls(
            operation_id=record.operation_id,
            kind=DrillKind(record.kind),
            asset=f"{record.system_name}/{record.asset_name}",
            asset_id=record.asset_id,
            repository=record.repository_name,
            backup_id=record.backup_id,
            at=record.at,
            seconds=record.seconds,
            files=record.files,
            bytes=record.bytes,
            whole=record.whole,
            passed=record.passed,
            reason=record.reason,
        )
