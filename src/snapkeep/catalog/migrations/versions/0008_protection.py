"""Protection: holds, locks, what is being deleted, approvals, and operations that begin later."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "protections",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("snapshot_id", _text(36), nullable=True),
        sa.Column("backup_id", _text(36), nullable=True),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("mode", _text(16), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("placed_by", _text(63), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        _keeps("protections", "snapshot_id", "snapshots"),
        _keeps("protections", "backup_id", "backups"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_protections")),
    )
    for column in ("snapshot_id", "backup_id"):
        op.create_index(op.f(f"ix_protections_{column}"), "protections", [column], unique=False)
    op.create_table(
        "deletions",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("subject_id", _text(36), nullable=False),
        sa.Column("requester", _text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("begun", sa.Boolean(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
    )
    for column in ("subject_id", "at"):
        op.create_index(op.f(f"ix_deletions_{column}"), "deletions", [column], unique=False)
    op.create_table(
        "approvals",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("action", _text(63), nullable=False),
        sa.Column("subject", _text(), nullable=False),
        sa.Column("method", _text(16), nullable=False),
        sa.Column("path", _text(), nullable=False),
        sa.Column("query", _text(), nullable=False),
        sa.Column("digest", _text(64), nullable=False),
        sa.Column("body", _text(), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("requester", _text(63), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("decisions", sa.JSON(), nullable=False),
        sa.Column("state", _text(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    for column in ("digest", "created_at"):
        op.create_index(op.f(f"ix_approvals_{column}"), "approvals", [column], unique=False)
    op.add_column("operations", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)


def _keeps(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    """Return a reference whose target cannot be deleted."""
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=op.f(f"fk_{table}_{column}_{target}"))
