"""What people are told: channels, the outbox, and reports that are sent when they are due."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, Table

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id

# Where people are told of events.
channels = Table(
    "channels",
    metadata,
    own_id(),
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
    own_id(),
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

# A file that goes with a delivery, always the same.
attachments = Table(
    "attachments",
    metadata,
    Column("delivery_id", ExactText(36), ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("name", ExactText(255), nullable=False),
    Column("media_type", ExactText(63), nullable=False),
    Column("content", LargeBinary, nullable=False),
)

# Reports that are sent when they are due.
report_schedules = Table(
    "report_schedules",
    metadata,
    own_id(),
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
