"""Backups: repositories, recovery points, and the snapshots that the next incremental backups start from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "repositories",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("name", _text(63), nullable=False),
        sa.Column("location", _text(), nullable=False),
        sa.Column("restic_id", _text(64), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("queue", _text(63), nullable=False, server_default="default"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sa.UniqueConstraint("name", name=op.f("uq_repositories_name")),
        sa.UniqueConstraint("location", name=op.f("uq_repositories_location")),
    )
    op.create_table(
        "backups",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("repository_id", _text(36), nullable=False),
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("system_name", _text(63), nullable=False),
        sa.Column("asset_name", _text(), nullable=False),
        sa.Column("snapshot_id", _text(36), nullable=False),
        sa.Column("snapshot_name", _text(), nullable=False),
        sa.Column("snapshot_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("operation_id", _text(36), nullable=False),
        sa.Column("restic_id", _text(64), nullable=False),
        sa.Column("tree_id", _text(64), nullable=False),
        sa.Column("parent_id", _text(36), nullable=True),
        sa.Column("mode", _text(16), nullable=False),
        sa.Column("reason", _text(), nullable=True),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("verification", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        _cascades("backups", "repository_id", "repositories"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    for column in ("repository_id", "asset_id", "created_at"):
        op.create_index(op.f(f"ix_backups_{column}"), "backups", [column], unique=False)
    op.create_table(
        "chains",
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("repository_id", _text(36), nullable=False),
        sa.Column("backup_id", _text(36), nullable=False),
        sa.Column("snapshot_id", _text(36), nullable=False),
        _cascades("chains", "asset_id", "assets"),
        _cascades("chains", "repository_id", "repositories"),
        _cascades("chains", "backup_id", "backups"),
        _cascades("chains", "snapshot_id", "snapshots"),
        sa.PrimaryKeyConstraint("asset_id", "repository_id", name=op.f("pk_chains")),
    )
    op.create_index(op.f("ix_chains_snapshot_id"), "chains", ["snapshot_id"], unique=False)


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)


def _cascades(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")
