"""Systems, and what was found on them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, UniqueConstraint

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id, reference

systems = Table(
    "systems",
    metadata,
    own_id(),
    Column("name", ExactText(63), nullable=False, unique=True),
    Column("plugin", ExactText(63), nullable=False),
    Column("settings", JSON, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("queue", ExactText(63), nullable=False, server_default="default"),
    # Raised with every change of settings or secrets, so that each worker notices that its connection is outdated.
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("discovered_at", UtcDateTime),
)

assets = Table(
    "assets",
    metadata,
    own_id(),
    reference("system_id", "systems"),
    Column("vendor_id", ExactText, nullable=False),
    Column("kind", ExactText(32), nullable=False),
    Column("name", ExactText, nullable=False),
    Column("parent_vendor_id", ExactText),
    Column("capabilities", JSON, nullable=False),
    Column("refusals", JSON, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("seen_by", ExactText(36), nullable=False),
    Column("gone_at", UtcDateTime),
    UniqueConstraint("system_id", "vendor_id"),
    Index(None, "system_id", "name"),
    Index(None, "name"),
    Index(None, "kind", "name"),
)

snapshots = Table(
    "snapshots",
    metadata,
    own_id(),
    reference("system_id", "systems"),
    reference("asset_id", "assets"),
    Column("vendor_id", ExactText, nullable=False),
    Column("name", ExactText, nullable=False),
    Column("kind", ExactText(32), nullable=False),
    Column("owned", Boolean, nullable=False),
    Column("created_at", UtcDateTime),
    Column("size_bytes", BigInteger),
    Column("reclaimable_bytes", BigInteger),
    # Known of what we made, never found by looking: the assets that were held for it, by name, and why it is less
    # than was asked for.
    Column("consistency", ExactText(16)),
    Column("quiesced", JSON(none_as_null=True)),
    Column("consistency_reason", ExactText),
    Column("seen_by", ExactText(36), nullable=False),
    Column("gone_at", UtcDateTime),
    UniqueConstraint("asset_id", "vendor_id"),
    Index(None, "asset_id", "name"),
    Index(None, "name"),
    Index(None, "created_at"),
)

exports = Table(
    "exports",
    metadata,
    own_id(),
    reference("snapshot_id", "snapshots"),
    Column("host_name", ExactText(253), nullable=False),
    Column("host_address", ExactText(253), nullable=False),
    Column("mode", ExactText(16), nullable=False),
    Column("state", ExactText(16), nullable=False, index=True),
    Column("locations", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("refresh_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("snapshot_id", "host_address"),
)
