"""Policies, how far they are, and what they have made."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Index, Integer, Table

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id

# What is protected when, and how long it is kept: as it was written, and as it was read.
policies = Table(
    "policies",
    metadata,
    own_id(),
    Column("name", ExactText(63), nullable=False, unique=True),
    Column("text", ExactText, nullable=False),
    Column("document", JSON, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # Raised with every change, so that what has read it notices.
    Column("revision", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    # Before that, by the time that was seen to pass, its retention deletes nothing.
    Column("deletes_from", UtcDateTime, nullable=False),
    # When its retention went over everything last: of several servers, one does.
    Column("retained_at", UtcDateTime),
)

# How far each step of a policy is with each asset.
policy_positions = Table(
    "policy_positions",
    metadata,
    Column("policy_id", ExactText(36), ForeignKey("policies.id", ondelete="CASCADE"), primary_key=True),
    Column("step", ExactText(63), primary_key=True),
    Column("asset_id", ExactText(36), ForeignKey("assets.id", ondelete="CASCADE"), primary_key=True),
    Column("system_id", ExactText(36), nullable=False),
    # The last due moment that was dealt with: only who moves this on from where it was has a run.
    Column("due_at", UtcDateTime, nullable=False),
    # When to look again; null: never.
    Column("look_at", UtcDateTime, index=True),
    Column("operation_id", ExactText(36)),
    # Why the last one was left out; empty: it was not.
    Column("skipped", ExactText, nullable=False),
)

# What a policy has made: recovery points have the operation, snapshots the asset and the name.
policy_runs = Table(
    "policy_runs",
    metadata,
    Column("operation_id", ExactText(36), primary_key=True),
    # No foreign keys: what was made stays when its policy goes.
    Column("policy_id", ExactText(36), nullable=False),
    Column("policy", ExactText(63), nullable=False),
    Column("step", ExactText(63), nullable=False),
    Column("asset_id", ExactText(36), nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("state", ExactText(16), nullable=False),
    Column("snapshot_name", ExactText),
    # Why it was refused.
    Column("reason", ExactText, nullable=False),
    Column("claimed_at", UtcDateTime, nullable=False, index=True),
    Index(None, "asset_id", "snapshot_name"),
    Index(None, "state", "claimed_at"),
)

# Assets of which the last good recovery point is older than a policy promises, since when that is seen.
late_assets = Table(
    "late_assets",
    metadata,
    Column("asset_id", ExactText(36), ForeignKey("assets.id", ondelete="CASCADE"), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
    # Whether people were told of it: of several servers, one does.
    Column("told", Boolean, nullable=False),
)
