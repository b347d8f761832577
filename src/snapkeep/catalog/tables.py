"""The tables. A change here needs a revision in `migrations/versions` (a test compares the two)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, stored in UTC; SQLite has no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; convert to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the time as aware."""
        if value is None:
            return None
        found: datetime = value
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[Any]:
    return Column("id", String(36), primary_key=True)


def _reference(name: str, table: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, String(36), ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=nullable, index=True)


systems = Table(
    "systems",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    Column("plugin", String(63), nullable=False),
    Column("settings", JSON, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("queue", String(63), nullable=False, server_default="default"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("discovered_at", UtcDateTime),
)

assets = Table(
    "assets",
    metadata,
    _id(),
    _reference("system_id", "systems"),
    Column("vendor_id", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("parent_vendor_id", Text),
    Column("capabilities", JSON, nullable=False),
    Column("refusals", JSON, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("seen_by", String(36), nullable=False),
    Column("gone_at", UtcDateTime),
    UniqueConstraint("system_id", "vendor_id"),
    Index(None, "system_id", "name"),
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    _reference("system_id", "systems"),
    _reference("asset_id", "assets"),
    Column("vendor_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("owned", Boolean, nullable=False),
    Column("created_at", UtcDateTime),
    Column("size_bytes", BigInteger),
    Column("reclaimable_bytes", BigInteger),
    Column("seen_by", String(36), nullable=False),
    Column("gone_at", UtcDateTime),
    UniqueConstraint("asset_id", "vendor_id"),
    Index(None, "asset_id", "name"),
)

exports = Table(
    "exports",
    metadata,
    _id(),
    _reference("snapshot_id", "snapshots"),
    Column("host_name", String(253), nullable=False),
    Column("host_address", String(253), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("locations", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("refresh_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("snapshot_id", "host_address"),
)

operations = Table(
    "operations",
    metadata,
    _id(),
    Column("kind", String(32), nullable=False),
    # No foreign key: what was done to a system is still to be read after the system was removed.
    Column("system_id", String(36), nullable=False, index=True),
    Column("system_name", String(63), nullable=False),
    Column("target", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("requester", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("phase", Text, nullable=False),
    Column("progress", Float),
    Column("items", BigInteger),
    Column("cursor", Text),
    Column("result", JSON),
    Column("error", JSON),
    Column("cancel_requested", Boolean, nullable=False),
    Column("pause_requested", Boolean, nullable=False, server_default=false()),
    Column("queue", String(63), nullable=False, server_default="default"),
    # Each step that begins raises `attempt`: what an earlier one still wants to write is refused (a fencing token).
    Column("worker", String(63)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    # The engine knows an operation by id and generation; a resumed one gets the next.
    Column("generation", Integer, nullable=False, server_default="0"),
    # Operations with the same `exclusive` run one by one: the one whose turn it is has it in `turn` until its end.
    Column("exclusive", String(36), index=True),
    Column("turn", String(36)),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Index("uq_operations_turn", "turn", unique=True),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("incarnation", String(36), nullable=False),
    Column("queues", JSON, nullable=False),
    Column("host", String(253), nullable=False),
    Column("place", String(36), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(63), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    # By the clock of the database, as everything that workers compare with each other.
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("left_at", UtcDateTime),
    # Who hands its unfinished operations to the others, since when, and whether that is done.
    Column("taken_by", String(36)),
    Column("taken_at", UtcDateTime),
    Column("cleared", Boolean, nullable=False),
)

notes = Table(
    "notes",
    metadata,
    Column("key", String(63), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

change_lists = Table(
    "change_lists",
    metadata,
    _id(),
    _reference("asset_id", "assets"),
    _reference("base_id", "snapshots", nullable=True),
    _reference("new_id", "snapshots"),
    Column("source", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cursor", Text),
    Column("entries", BigInteger, nullable=False),
    Column("summary", JSON),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
)

change_blocks = Table(
    "change_blocks",
    metadata,
    Column("list_id", String(36), ForeignKey("change_lists.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("entries", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
