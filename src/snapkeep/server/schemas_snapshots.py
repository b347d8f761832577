"""The JSON of snapshots: what is done around one that is taken, and with one that is there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from snapkeep.catalog.records import SnapshotRecord
from snapkeep.model.programs import MOST_SECONDS, NO_PROGRAMS, Programs
from snapkeep.model.programs import NAME as PROGRAM_NAME
from snapkeep.model.programs import SECONDS as PROGRAM_SECONDS
from snapkeep.operations.asking import QUIESCE_SECONDS
from snapkeep.server.schemas import In, Out

QuiesceIds = Annotated[
    list[str],
    Field(max_length=16, description="Assets of any system that are held at a consistent point for it, in this order."),
]
QuiesceSeconds = Annotated[int, Field(ge=1, le=600, description="How long they are held at the longest, in seconds.")]
ProgramName = Annotated[str, Field(pattern=PROGRAM_NAME, description="Name of a file, no path.")]


class ProgramsIn(In):
    """Programs of the worker that takes the snapshot: files in the directory with which it was started."""

    before: ProgramName | None = Field(default=None, description="Runs before; when it fails, no snapshot is taken.")
    after: ProgramName | None = Field(
        default=None, description="Runs afterwards, also when no snapshot could be taken, or the program before failed."
    )
    seconds: int = Field(
        default=PROGRAM_SECONDS, ge=1, le=MOST_SECONDS, description="How long each may take; then it is ended."
    )

    @staticmethod
    def named(body: ProgramsIn | None) -> Programs:
        """Return them as an operation takes them."""
        return Programs(**body.model_dump()) if body is not None else NO_PROGRAMS


class SnapshotIn(In):
    """A snapshot to be taken."""

    name: str | None = Field(
        default=None, min_length=1, max_length=255, description="Default: a unique name that carries our mark."
    )
    quiesce: QuiesceIds = []
    quiesce_seconds: QuiesceSeconds = QUIESCE_SECONDS
    programs: ProgramsIn | None = Field(default=None, description="Needs the permission program.run, for everything.")


class RestoreIn(In):
    """A restore in place."""

    confirmation: str = Field(description="Name of the asset whose newer data will be lost.")


class CloneIn(In):
    """A clone."""

    name: str = Field(min_length=1, max_length=255, description="Name of the new asset.")
    confirmation: str = Field(description="Name of the asset that is cloned.")


class SnapshotOut(Out):
    """A snapshot; `reference` is its name for people: `system/asset@snapshot`. Sizes are bytes."""

    id: str
    reference: str
    system: str
    asset: str
    asset_id: str
    name: str
    kind: str
    owned: bool
    created_at: datetime | None
    size_bytes: int | None
    reclaimable_bytes: int | None
    consistency: str | None = Field(description="`crash` or `application`; null where it is not known.")
    quiesced: list[str] = Field(description="Assets that were to be held for it: `system/asset`.")
    consistency_reason: str | None = Field(description="Why it is only crash-consistent although some were to be held.")
    vendor_id: str
    gone_at: datetime | None

    @classmethod
    def of(cls, record: SnapshotRecord) -> SnapshotOut:
        """Map the record."""
        snapshot = record.snapshot
        return cls(
            id=record.id,
            reference=record.reference,
            system=record.system_name,
            asset=record.asset_name,
            asset_id=record.asset_id,
            name=snapshot.name,
            kind=snapshot.kind.value,
            owned=snapshot.owned,
            created_at=snapshot.created_at,
            size_bytes=snapshot.size_bytes,
            reclaimable_bytes=snapshot.reclaimable_bytes,
            consistency=record.consistency,
            quiesced=list(record.quiesced),
            consistency_reason=record.consistency_reason,
            vendor_id=snapshot.id,
            gone_at=record.gone_at,
        )
