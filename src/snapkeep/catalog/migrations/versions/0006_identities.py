"""Identities, roles, grants, tokens and labels; operations know the asset that they are about."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "identities",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("name", _text(63), nullable=False),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("password", _text(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("name", name=op.f("uq_identities_name")),
    )
    op.create_table(
        "roles",
        sa.Column("name", _text(63), nullable=False),
        sa.Column("description", _text(), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_roles")),
    )
    op.create_table(
        "grants",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("identity_id", _text(36), nullable=False),
        sa.Column("role", _text(63), nullable=False),
        sa.Column("scope", _text(300), nullable=False),
        sa.Column("granted_by", _text(63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        _cascades("grants", "identity_id", "identities"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("identity_id", "role", "scope", name=op.f("uq_grants_identity_id_role_scope")),
    )
    for column in ("identity_id", "role"):
        op.create_index(op.f(f"ix_grants_{column}"), "grants", [column], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("identity_id", _text(36), nullable=False),
        sa.Column("name", _text(63), nullable=False),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        _cascades("tokens", "identity_id", "identities"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    for column in ("identity_id", "expires_at"):
        op.create_index(op.f(f"ix_tokens_{column}"), "tokens", [column], unique=False)
    op.create_table(
        "labels",
        sa.Column("subject_id", _text(36), nullable=False),
        sa.Column("key", _text(63), nullable=False),
        sa.Column("value", _text(63), nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "key", name=op.f("pk_labels")),
    )
    op.add_column("operations", sa.Column("asset_id", _text(36), nullable=True))
    op.create_index(op.f("ix_operations_asset_id"), "operations", ["asset_id"], unique=False)
    if op.get_context().dialect.name == "postgresql":
        op.execute("UPDATE operations SET asset_id = request->>'asset_id'")
    else:
        op.execute("UPDATE operations SET asset_id = json_extract(request, '$.asset_id')")


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)


def _cascades(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")
