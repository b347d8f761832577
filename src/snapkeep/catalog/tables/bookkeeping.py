"""What the servers keep for themselves: the audit log, answers to repeated requests, small notes."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, Table

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id

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

# What a request that makes something was answered, by the id of the key that it came with.
answers = Table(
    "answers",
    metadata,
    own_id(),
    # Of the request, keyed: there may be a password in it.
    Column("digest", LargeBinary, nullable=False),
    Column("status", Integer),
    Column("body", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

notes = Table(
    "notes",
    metadata,
    Column("key", ExactText(63), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
