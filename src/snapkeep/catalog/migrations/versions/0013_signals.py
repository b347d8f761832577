"""Signals: what was thought of change lists."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "signals",
        sa.Column("operation_id", _text(36), nullable=False),
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("series", _text(36), nullable=False),
        sa.Column("backup_id", _text(36), nullable=True),
        sa.Column("snapshot_id", _text(36), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.Column("suspicious", sa.Boolean(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("held", _text(), nullable=False),
        sa.Column("acknowledged_at", time, nullable=True),
        sa.Column("acknowledged_by", _text(63), nullable=True),
        sa.Column("acknowledged_reason", _text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["asset_id"], ["assets.id"], name=op.f("fk_signals_asset_id_assets"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_signals")),
    )
    for columns in (("asset_id", "series", "at"), ("at",)):
        op.create_index(op.f(f"ix_signals_{'_'.join(columns)}"), "signals", list(columns), unique=False)


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)
