"""Notifications: channels, and what is to be told over each."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "channels",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("name", _text(63), nullable=False),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("systems", sa.JSON(), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", _text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sa.UniqueConstraint("name", name=op.f("uq_channels_name")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("channel_id", _text(36), nullable=False),
        sa.Column("event", _text(63), nullable=False),
        sa.Column("system", _text(63), nullable=True),
        sa.Column("subject", _text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("recipients", sa.JSON(), nullable=True),
        sa.Column("state", _text(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("answer", _text(), nullable=False),
        sa.Column("summary_id", _text(36), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["channels.id"], name=op.f("fk_deliveries_channel_id_channels"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    for columns in (("channel_id", "state", "due_at"), ("state", "due_at"), ("created_at",), ("ended_at",)):
        op.create_index(op.f(f"ix_deliveries_{'_'.join(columns)}"), "deliveries", list(columns), unique=False)


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)
