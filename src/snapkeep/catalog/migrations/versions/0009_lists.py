"""Indexes for the filters and orders of lists; what a key of a request was answered with."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

INDEXES = {
    "assets": (("name",), ("kind", "name")),
    "snapshots": (("name",), ("created_at",)),
    "operations": (("ended_at",), ("kind", "created_at"), ("system_name", "created_at"), ("requester", "created_at")),
    "backups": (("system_name", "asset_name"),),
    "change_lists": (("created_at",),),
}


def upgrade() -> None:
    """Apply."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    for table, indexes in INDEXES.items():
        for columns in indexes:
            op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns), unique=False)
    op.add_column("operations", sa.Column("digest", sa.LargeBinary(), nullable=True))
    op.create_table(
        "answers",
        sa.Column("id", sa.String(36, collation), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_created_at"), "answers", ["created_at"], unique=False)
