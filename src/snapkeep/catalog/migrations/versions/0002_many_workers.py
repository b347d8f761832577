"""Many workers: who works on what, in which turn; queues; the proof of the secret key."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply."""
    op.add_column("systems", sa.Column("queue", sa.String(length=63), nullable=False, server_default="default"))
    op.add_column("systems", sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
    for column in (
        sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("queue", sa.String(length=63), nullable=False, server_default="default"),
        sa.Column("worker", sa.String(length=63)),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("generation", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("exclusive", sa.String(length=36)),
        sa.Column("turn", sa.String(length=36)),
    ):
        op.add_column("operations", column)
    op.create_index(op.f("ix_operations_exclusive"), "operations", ["exclusive"], unique=False)
    op.create_index("uq_operations_turn", "operations", ["turn"], unique=True)

    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("incarnation", sa.String(length=36), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("place", sa.String(length=36), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=63), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("left_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("taken_by", sa.String(length=36), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "notes",
        sa.Column("key", sa.String(length=63), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_notes")),
    )
    if op.get_context().dialect.name == "postgresql":
        _sort_by_code_points()


def _sort_by_code_points() -> None:
    """Give every text column the order that SQLite has, whatever the order of the database is."""
    found = sa.inspect(op.get_bind())
    for table in set(found.get_table_names()) - {"alembic_version"}:
        for column in found.get_columns(table):
            if isinstance(column["type"], sa.String):
                kind = f"VARCHAR({column['type'].length})" if column["type"].length else "TEXT"
                op.execute(f'ALTER TABLE {table} ALTER COLUMN {column["name"]} TYPE {kind} COLLATE "C"')
