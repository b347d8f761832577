"""What has changed between snapshots, and what is thought of that."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, Table

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id, reference

change_lists = Table(
    "change_lists",
    metadata,
    own_id(),
    reference("asset_id", "assets"),
    reference("base_id", "snapshots", nullable=True),
    reference("new_id", "snapshots"),
    Column("source", ExactText(32), nullable=False),
    Column("state", ExactText(16), nullable=False),
    Column("cursor", ExactText),
    Column("entries", BigInteger, nullable=False),
    Column("summary", JSON),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("completed_at", UtcDateTime),
)

change_blocks = Table(
    "change_blocks",
    metadata,
    Column("list_id", ExactText(36), ForeignKey("change_lists.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("entries", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# What was thought of a change list: one row for each operation that fetched one.
signals = Table(
    "signals",
    metadata,
    Column("operation_id", ExactText(36), primary_key=True),
    Column("asset_id", ExactText(36), ForeignKey("assets.id", ondelete="CASCADE"), nullable=False),
    # With which others it is compared: the repository of a backup; empty: diffs that stand alone.
    Column("series", ExactText(36), nullable=False),
    # No foreign keys: what is looked at later may be gone.
    Column("backup_id", ExactText(36)),
    Column("snapshot_id", ExactText(36), nullable=False),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("features", JSON, nullable=False),
    Column("verdict", JSON, nullable=False),
    Column("suspicious", Boolean, nullable=False),
    # Whether people were told: once.
    Column("told", Boolean, nullable=False),
    # What is held because of it, as people call it; empty: nothing.
    Column("held", ExactText, nullable=False),
    Column("acknowledged_at", UtcDateTime),
    Column("acknowledged_by", ExactText(63)),
    Column("acknowledged_reason", ExactText),
    Index(None, "asset_id", "series", "at"),
)
