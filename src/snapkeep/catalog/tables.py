"""The tables. A change here needs a revision in `migrations/versions` (a test compares the two)."""

from __future__ import annotations

import re
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
from sqlalchemy.types import TypeEngine


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


_ESCAPE = "\U0010ffff"
_REFUSED = re.compile(f"[\0\ud800-\udfff{_ESCAPE}]")
_ESCAPED = re.compile(f"{_ESCAPE}([0-9a-f]{{6}})")


class ExactText(TypeDecorator[str]):
    """Any text: kept and found exactly, and in the order of code points, on every database.

    PostgreSQL takes no NUL, and no database takes lone surrogates, which stand for bytes that are not UTF-8 (PEP 383).
    They are stored as U+10FFFF and six hexadecimal digits. PostgreSQL would sort by language: an index would then
    depend on the libraries of its machine, and pages on its settings.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    @property
    def python_type(self) -> type[str]:
        """Return what programs see."""
        return str

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return VARCHAR or TEXT."""
        collation = "C" if dialect.name == "postgresql" else None
        return String(self.length, collation) if self.length else Text(collation=collation)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Escape."""
        return value and _REFUSED.sub(lambda found: f"{_ESCAPE}{ord(found[0]):06x}", value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Turn back."""
        return value and _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[Any]:
    return Column("id", ExactText(36), primary_key=True)


def _reference(name: str, table: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, ExactText(36), ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=nullable, index=True)


systems = Table(
    "systems",
    metadata,
    _id(),
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
    _id(),
    _reference("system_id", "systems"),
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
    _id(),
    _reference("system_id", "systems"),
    _reference("asset_id", "assets"),
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
    _id(),
    _reference("snapshot_id", "snapshots"),
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

operations = Table(
    "operations",
    metadata,
    _id(),
    Column("kind", ExactText(32), nullable=False),
    # No foreign key: what was done to a system is still to be read after the system was removed.
    Column("system_id", ExactText(36), nullable=False, index=True),
    Column("system_name", ExactText(63), nullable=False),
    # The asset that it is about: who may see the asset may see it.
    Column("asset_id", ExactText(36), index=True),
    Column("target", ExactText, nullable=False),
    Column("request", JSON, nullable=False),
    # SHA-256 of the request that came with a key: another one under the same key is refused.
    Column("digest", LargeBinary),
    Column("requester", ExactText, nullable=False),
    Column("state", ExactText(16), nullable=False, index=True),
    Column("phase", ExactText, nullable=False),
    Column("progress", Float),
    Column("items", BigInteger),
    Column("cursor", ExactText),
    Column("result", JSON),
    Column("error", JSON),
    Column("cancel_requested", Boolean, nullable=False),
    Column("pause_requested", Boolean, nullable=False, server_default=false()),
    Column("queue", ExactText(63), nullable=False, server_default="default"),
    # Each step that begins raises `attempt`: what an earlier one still wants to write is refused (a fencing token).
    Column("worker", ExactText(63)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    # The engine knows an operation by id and generation; a resumed one gets the next.
    Column("generation", Integer, nullable=False, server_default="0"),
    # Operations with the same `exclusive` run one by one: the one whose turn it is has it in `turn` until its end.
    Column("exclusive", ExactText(36), index=True),
    Column("turn", ExactText(36)),
    # It begins no sooner, by the time that was seen to pass.
    Column("not_before", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime, index=True),
    Index("uq_operations_turn", "turn", unique=True),
    Index(None, "kind", "created_at"),
    Index(None, "system_name", "created_at"),
    Index(None, "requester", "created_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("name", ExactText(63), primary_key=True),
    Column("incarnation", ExactText(36), nullable=False),
    Column("queues", JSON, nullable=False),
    Column("host", ExactText(253), nullable=False),
    Column("place", ExactText(36), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", ExactText(63), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    # By the clock of the database, as everything that workers compare with each other.
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("left_at", UtcDateTime),
    # Who hands its unfinished operations to the others, since when, and whether that is done.
    Column("taken_by", ExactText(36)),
    Column("taken_at", UtcDateTime),
    Column("cleared", Boolean, nullable=False),
)

notes = Table(
    "notes",
    metadata,
    Column("key", ExactText(63), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# Written and read by `snapkeep.catalog.audit` alone; nothing is ever changed or removed in it.
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor", ExactText, nullable=False),
    Column("actor_kind", ExactText(16), nullable=False),
    Column("source", ExactText, nullable=False),
    Column("request_id", ExactText(64), nullable=False),
    Column("action", ExactText, nullable=False),
    Column("subject", ExactText, nullable=False),
    Column("outcome", ExactText(16), nullable=False),
    Column("status", Integer),
    Column("detail", JSON, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index(None, "actor", "seq"),
    Index(None, "action", "seq"),
)

change_lists = Table(
    "change_lists",
    metadata,
    _id(),
    _reference("asset_id", "assets"),
    _reference("base_id", "snapshots", nullable=True),
    _reference("new_id", "snapshots"),
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

repositories = Table(
    "repositories",
    metadata,
    _id(),
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
    _id(),
    _reference("repository_id", "repositories"),
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

identities = Table(
    "identities",
    metadata,
    _id(),
    Column("name", ExactText(63), nullable=False, unique=True),
    Column("kind", ExactText(16), nullable=False),
    Column("password", ExactText),
    Column("disabled", Boolean, nullable=False, server_default=false()),
    Column("created_at", UtcDateTime, nullable=False),
)

# A role that is always there has no row; it stands in the program.
roles = Table(
    "roles",
    metadata,
    Column("name", ExactText(63), primary_key=True),
    Column("description", ExactText, nullable=False),
    Column("actions", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    _id(),
    _reference("identity_id", "identities"),
    Column("role", ExactText(63), nullable=False, index=True),
    Column("scope", ExactText(300), nullable=False),
    Column("granted_by", ExactText(63), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # The identity provider whose groups gave it, and take it back; null: somebody did.
    Column("provider_id", ExactText(36)),
    UniqueConstraint("identity_id", "role", "scope"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _reference("identity_id", "identities"),
    Column("name", ExactText(63), nullable=False),
    Column("kind", ExactText(16), nullable=False),
    # SHA-256 of the token, which has 256 random bits; the token itself is nowhere.
    Column("digest", LargeBinary, nullable=False, unique=True),
    # What it is narrowed to, as [role, scope]; null: nothing.
    Column("limits", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("used_at", UtcDateTime),
)

providers = Table(
    "providers",
    metadata,
    _id(),
    Column("name", ExactText(40), nullable=False, unique=True),
    Column("issuer", ExactText(300), nullable=False, unique=True),
    Column("settings", JSON, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# As whom a provider knows somebody. By its issuer: who removes a provider and adds it again means the same people.
accounts = Table(
    "accounts",
    metadata,
    Column("identity_id", ExactText(36), ForeignKey("identities.id", ondelete="CASCADE"), primary_key=True),
    Column("issuer", ExactText(300), nullable=False),
    Column("subject", ExactText(255), nullable=False),
    UniqueConstraint("issuer", "subject"),
)

# Logins with a provider that have begun, and not ended yet.
logins = Table(
    "logins",
    metadata,
    _id(),
    _reference("provider_id", "providers"),
    # SHA-256 of what was given to who began it, and who alone may end it.
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("kind", ExactText(16), nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    # How often, and when, the provider may be asked whether the person has agreed at another device.
    Column("seconds", Integer),
    Column("ask_at", UtcDateTime),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

# No foreign key: recovery points outlive their asset, and who may see them goes by its labels.
labels = Table(
    "labels",
    metadata,
    Column("subject_id", ExactText(36), primary_key=True),
    Column("key", ExactText(63), primary_key=True),
    Column("value", ExactText(63), nullable=False),
)

# What keeps a snapshot or a recovery point, which cannot be forgotten as long as there is a row.
protections = Table(
    "protections",
    metadata,
    _id(),
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
    _id(),
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
    _id(),
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

# What a request that makes something was answered, by the id of the key that it came with.
answers = Table(
    "answers",
    metadata,
    _id(),
    # Of the request, keyed: there may be a password in it.
    Column("digest", LargeBinary, nullable=False),
    Column("status", Integer),
    Column("body", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

# Where people are told of events.
channels = Table(
    "channels",
    metadata,
    _id(),
    Column("name", ExactText(63), nullable=False, unique=True),
    Column("kind", ExactText(16), nullable=False),
    # Without secrets, which are sealed; references to secrets stand here.
    Column("settings", JSON, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    # Names of events, and of systems; empty: all.
    Column("events", JSON, nullable=False),
    Column("systems", JSON, nullable=False),
    Column("per_minute", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # Why it was turned off, when nobody did.
    Column("reason", ExactText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("succeeded_at", UtcDateTime),
    Column("failed_at", UtcDateTime),
    Column("failure", ExactText),
)

# The outbox: what is to be told over a channel, and what was. Rows come with what they tell, in one transaction.
deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    Column("channel_id", ExactText(36), ForeignKey("channels.id", ondelete="CASCADE"), nullable=False),
    Column("event", ExactText(63), nullable=False),
    Column("system", ExactText(63)),
    Column("subject", ExactText, nullable=False),
    Column("data", JSON, nullable=False),
    # Of an e-mail that some have got already: who is left.
    Column("recipients", JSON(none_as_null=True)),
    Column("state", ExactText(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("answer", ExactText, nullable=False),
    Column("summary_id", ExactText(36)),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    # Whoever sends it moves this on first: when he dies, it is sent again then.
    Column("due_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, index=True),
    Index(None, "channel_id", "state", "due_at"),
    Index(None, "state", "due_at"),
)

# What is protected when, and how long it is kept: as it was written, and as it was read.
policies = Table(
    "policies",
    metadata,
    _id(),
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

# Reports that are sent when they are due.
report_schedules = Table(
    "report_schedules",
    metadata,
    _id(),
    Column("name", ExactText(63), nullable=False, unique=True),
    Column("report", ExactText(16), nullable=False),
    Column("form", ExactText(16), nullable=False),
    Column("cron", ExactText(255), nullable=False),
    Column("timezone", ExactText(63), nullable=False),
    # How long the period is that ends when it is due.
    Column("seconds", BigInteger, nullable=False),
    # Name of the only system that it is about; null: all.
    Column("system", ExactText(63)),
    # A channel stays as long as reports go over it.
    Column("channel_id", ExactText(36), ForeignKey("channels.id"), nullable=False),
    Column("made_by", ExactText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Whoever sends it moves this on in the transaction that writes to the outbox.
    Column("due_at", UtcDateTime, nullable=False, index=True),
    Column("fired_at", UtcDateTime),
    # Why the last one was not sent; empty: it was.
    Column("note", ExactText, nullable=False),
)

# A file that goes with a delivery, always the same.
attachments = Table(
    "attachments",
    metadata,
    Column("delivery_id", ExactText(36), ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("name", ExactText(255), nullable=False),
    Column("media_type", ExactText(63), nullable=False),
    Column("content", LargeBinary, nullable=False),
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
