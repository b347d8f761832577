"""Operations, and the workers that run them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, Table, false

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id

operations = Table(
    "operations",
    metadata,
    own_id(),
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
