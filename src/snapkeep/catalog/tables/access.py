"""Who may do what: identities and their roles, how they log in, and the labels by which they see things."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Integer, LargeBinary, Table, UniqueConstraint, false

from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata, own_id, reference

identities = Table(
    "identities",
    metadata,
    own_id(),
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
    own_id(),
    reference("identity_id", "identities"),
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
    own_id(),
    reference("identity_id", "identities"),
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
    own_id(),
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
    own_id(),
    reference("provider_id", "providers"),
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
