"""Quiesce: how consistent a snapshot is, what was held for it, and why it is not what was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply. What we made so far was made without holding anything."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    op.add_column("snapshots", sa.Column("consistency", sa.String(16, collation)))
    op.add_column("snapshots", sa.Column("quiesced", sa.JSON(none_as_null=True)))
    op.add_column("snapshots", sa.Column("consistency_reason", sa.Text(collation=collation)))
    op.execute("UPDATE snapshots SET consistency = 'crash' WHERE owned")
