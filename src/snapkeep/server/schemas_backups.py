"""The JSON of repositories and backups."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from snapkeep.catalog.records import BackupRecord, RepositoryRecord
from snapkeep.operations.asking import QUIESCE_SECONDS
from snapkeep.server.schemas import In, Out, SystemName
from snapkeep.server.schemas_snapshots import ProgramsIn, QuiesceIds, QuiesceSeconds


class SecretReference(In):
    """Where a secret is, instead of the secret."""

    reference: str = Field(description="`file:NAME`, `env:SNAPKEEP_SECRET_NAME` or `vault:MOUNT/PATH#FIELD`.")


class RepositoryIn(In):
    """A repository of backups."""

    name: SystemName = Field(description="Lower-case letters, digits, '-' and '.', at most 63 characters.")
    location: str = Field(
        min_length=1,
        max_length=4096,
        description="Where it is: /path, s3:https://host/bucket/prefix or sftp:user@host:/path.",
    )
    password: Annotated[SecretStr, Field(min_length=1)] | SecretReference = Field(
        description="Opens the repository; without it nothing can be restored."
    )
    secrets: dict[str, SecretStr | SecretReference] = Field(
        default={}, description="What the place asks for, such as access_key and secret_key of S3."
    )
    create: bool = Field(default=True, description="Make it; otherwise one is taken that is there, made by any restic.")
    queue: SystemName = Field(
        default="default", description="Workers that serve it can reach the repository, and are the backup hosts."
    )


class BackupIn(In):
    """A backup of an asset."""

    repository: str = Field(description="Name of the repository.")
    full: bool = Field(default=False, description="Walk everything, whatever the system says has changed.")
    keep_base: bool = Field(default=False, description="Do not delete the snapshot that the backup before was made of.")
    quiesce: QuiesceIds = []
    quiesce_seconds: QuiesceSeconds = QUIESCE_SECONDS
    programs: ProgramsIn | None = Field(default=None, description="Needs the permission program.run, for everything.")


class RecoverIn(In):
    """A restore of files from a recovery point."""

    target: str | None = Field(
        default=None,
        pattern=r"^/[^\x00]*$",
        max_length=4095,
        description="Absolute path of a directory on the host of the repository's queue; without: back to the asset.",
    )
    paths: list[str] = Field(
        default=[], max_length=1000, description="What to restore, below the asset, percent-encoded; none: all of it."
    )
    overwrite: bool = Field(default=False, description="Into a directory that holds something: replace what is there.")
    confirmation: str | None = Field(default=None, description="Back to the asset: its name, to confirm.")


class CheckIn(In):
    """A check of a repository."""

    data: Literal["none", "sample", "all"] = Field(default="none", description="How much of the data is read.")


class RepositoryOut(Out):
    """A repository of backups."""

    name: str
    location: str
    restic_id: str = Field(description="The repository's own id.")
    queue: str
    created_at: datetime

    @classmethod
    def of(cls, record: RepositoryRecord) -> RepositoryOut:
        """Map the record."""
        return cls(
            name=record.name,
            location=record.location,
            restic_id=record.restic_id,
            queue=record.queue,
            created_at=record.created_at,
        )


class BackupOut(Out):
    """A recovery point. `restic_id` and `tree_id` are those that restic shows."""

    id: str
    repository: str
    asset: str
    snapshot: str
    snapshot_at: datetime | None
    operation_id: str
    restic_id: str
    tree_id: str
    parent_id: str | None
    mode: str
    reason: str | None
    partial: bool
    counts: dict[str, Any]
    verification: dict[str, Any] | None
    created_at: datetime

    @classmethod
    def of(cls, record: BackupRecord) -> BackupOut:
        """Map the record."""
        return cls(
            id=record.id,
            repository=record.repository_name,
            asset=f"{record.system_name}/{record.asset_name}",
            snapshot=record.snapshot_name,
            snapshot_at=record.snapshot_at,
            operation_id=record.operation_id,
            restic_id=record.restic_id,
            tree_id=record.tree_id,
            parent_id=record.parent_id,
            mode=record.mode,
            reason=record.reason,
            partial=record.partial,
            counts=record.counts,
            verification=record.verification,
            created_at=record.created_at,
        )


class EntryOut(Out):
    """What a recovery point holds. Paths that are not UTF-8 come with their exact bytes in `path_base64`."""

    path: str
    path_base64: str | None = None
    type: str
    size: int | None = None
    mode: int
    uid: int
    gid: int
    modified_at: str
    link_target: str | None = None
