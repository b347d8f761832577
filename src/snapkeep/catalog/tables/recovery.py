"""Where recovery points lie, which there are, and what was proved of them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, ForeignKey, Index, LargeBinary, Table

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id, reference

repositories = Table(
    "repositories",
    metadata,
    own_id(),
    Column("name", ExactText(63), nullable=False, unique=True),
    Column("location", ExactText, nullable=False, unique=True),
    # The repository's own id: what is at the location later must still be the same one.
    Column("restic_id", ExactText(64), nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("queue", ExactText(63), nullable=False, server_default="default"),
    Column("created_at", UtcDateTime, nullable=False),
)

backups = Table(
    "backups",
    metadata,
    own_id(),
    reference("repository_id", "repositories"),
    # No foreign keys to what was backed up: a recovery point outlives its system.
    Column("asset_id", ExactText(36), nullable=False, index=True),
    Column("system_name", ExactText(63), nullable=False),
    Column("asset_name", ExactText, nullable=False),
    Column("snapshot_id", ExactText(36), nullable=False),
    Column("snapshot_name", ExactText, nullable=False),
    Column("snapshot_at", UtcDateTime),
    Column("operation_id", ExactText(36), nullable=False),
    Column("restic_id", ExactText(64), nullable=False),
    Column("tree_id", ExactText(64), nullable=False),
    Column("parent_id", ExactText(36)),
    Column("mode", ExactText(16), nullable=False),
    Column("reason", ExactText),
    Column("partial", Boolean, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("verification", JSON),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Index(None, "system_name", "asset_name"),
)

# From which snapshot the next incremental backup of an asset starts. It must not be deleted: the pin.
chains = Table(
    "chains",
    metadata,
    Column("asset_id", ExactText(36), ForeignKey("assets.id", ondelete="CASCADE"), primary_key=True),
    Column("repository_id", ExactText(36), ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("backup_id", ExactText(36), ForeignKey("backups.id", ondelete="CASCADE"), nullable=False),
    Column("snapshot_id", ExactText(36), ForeignKey("snapshots.id", ondelete="CASCADE"), nullable=False, index=True),
)

# What verifications and drills of recovery points have found.
drills = Table(
    "drills",
    metadata,
    Column("operation_id", ExactText(36), primary_key=True),
    # No foreign keys: what was proved stays when the recovery point, its repository or its system goes.
    Column("asset_id", ExactText(36), nullable=False),
    Column("system_name", ExactText(63), nullable=False),
    Column("asset_name", ExactText, nullable=False),
    Column("repository_id", ExactText(36), nullable=False),
    Column("repository_name", ExactText(63), nullable=False),
    Column("backup_id", ExactText(36), nullable=False),
    Column("kind", ExactText(16), nullable=False),
    # All content was looked at; else a sample.
    Column("whole", Boolean, nullable=False),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("seconds", Float, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("passed", Boolean, nullable=False),
    # Why it has not passed; empty: it has.
    Column("reason", ExactText, nullable=False),
    Index(None, "asset_id", "passed", "at"),
)
