"""What verifications and drills of recovery points have found."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "drills",
        sa.Column("operation_id", _text(36), nullable=False),
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("system_name", _text(63), nullable=False),
        sa.Column("asset_name", _text(), nullable=False),
        sa.Column("repository_id", _text(36), nullable=False),
        sa.Column("repository_name", _text(63), nullable=False),
        sa.Column("backup_id", _text(36), nullable=False),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("reason", _text(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_drills")),
    )
    for columns in (("at",), ("asset_id", "passed", "at")):
        op.create_index(op.f(f"ix_drills_{'_'.join(columns)}"), "drills", list(columns), unique=False)


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)
