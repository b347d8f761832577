"""Policies, how far each step of them is with each asset, and what they have made."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Apply."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "policies",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("name", _text(63), nullable=False),
        sa.Column("text", _text(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("changed_at", time, nullable=False),
        sa.Column("deletes_from", time, nullable=False),
        sa.Column("retained_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("name", name=op.f("uq_policies_name")),
    )
    op.create_table(
        "policy_positions",
        sa.Column("policy_id", _text(36), nullable=False),
        sa.Column("step", _text(63), nullable=False),
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("system_id", _text(36), nullable=False),
        sa.Column("due_at", time, nullable=False),
        sa.Column("look_at", time, nullable=True),
        sa.Column("operation_id", _text(36), nullable=True),
        sa.Column("skipped", _text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_id"], ["policies.id"], name=op.f("fk_policy_positions_policy_id_policies"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["asset_id"], ["assets.id"], name=op.f("fk_policy_positions_asset_id_assets"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("policy_id", "step", "asset_id", name=op.f("pk_policy_positions")),
    )
    op.create_table(
        "policy_runs",
        sa.Column("operation_id", _text(36), nullable=False),
        sa.Column("policy_id", _text(36), nullable=False),
        sa.Column("policy", _text(63), nullable=False),
        sa.Column("step", _text(63), nullable=False),
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("due_at", time, nullable=False),
        sa.Column("state", _text(16), nullable=False),
        sa.Column("snapshot_name", _text(), nullable=True),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("claimed_at", time, nullable=False),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_policy_runs")),
    )
    indexes = {
        "policy_positions": (("look_at",),),
        "policy_runs": (("claimed_at",), ("asset_id", "snapshot_name"), ("state", "claimed_at")),
    }
    for table, several in indexes.items():
        for columns in several:
            op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns), unique=False)


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)
