"""What guards against deletions and other harm: protections, the cooling time, approvals by others."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Integer, Table

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id

# What keeps a snapshot or a recovery point, which cannot be forgotten as long as there is a row.
protections = Table(
    "protections",
    metadata,
    own_id(),
    Column("snapshot_id", ExactText(36), ForeignKey("snapshots.id"), index=True),
    Column("backup_id", ExactText(36), ForeignKey("backups.id"), index=True),
    Column("kind", ExactText(16), nullable=False),
    Column("mode", ExactText(16)),
    Column("until", UtcDateTime),
    Column("reason", ExactText, nullable=False),
    Column("placed_by", ExactText(63), nullable=False),
    Column("placed_at", UtcDateTime, nullable=False),
)

# Deletions of snapshots and recovery points: which are under way, and how many were asked for lately.
deletions = Table(
    "deletions",
    metadata,
    own_id(),
    Column("subject_id", ExactText(36), nullable=False, index=True),
    Column("requester", ExactText, nullable=False),
    # By the time that was seen to pass, as all that protects from deletion.
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("begun", Boolean, nullable=False),
    Column("counted", Boolean, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    own_id(),
    Column("action", ExactText(63), nullable=False),
    Column("subject", ExactText, nullable=False),
    # The request as it was sent; without what is secret in its body, if something is `hidden`.
    Column("method", ExactText(16), nullable=False),
    Column("path", ExactText, nullable=False),
    Column("query", ExactText, nullable=False),
    Column("digest", ExactText(64), nullable=False, index=True),
    Column("body", ExactText, nullable=False),
    Column("hidden", Boolean, nullable=False),
    Column("requester", ExactText(63), nullable=False),
    Column("needed", Integer, nullable=False),
    # Objects of by, at, approves and comment.
    Column("decisions", JSON, nullable=False),
    Column("state", ExactText(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("expires_at", UtcDateTime, nullable=False),
)
