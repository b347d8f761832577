"""Assets that are late, reports that are sent when they are due, and files that go with what is told."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Apply."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "late_assets",
        sa.Column("asset_id", _text(36), nullable=False),
        sa.Column("since", time, nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asset_id"], ["assets.id"], name=op.f("fk_late_assets_asset_id_assets"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("asset_id", name=op.f("pk_late_assets")),
    )
    op.create_table(
        "report_schedules",
        sa.Column("id", _text(36), nullable=False),
        sa.Column("name", _text(63), nullable=False),
        sa.Column("report", _text(16), nullable=False),
        sa.Column("form", _text(16), nullable=False),
        sa.Column("cron", _text(255), nullable=False),
        sa.Column("timezone", _text(63), nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        sa.Column("system", _text(63), nullable=True),
        sa.Column("channel_id", _text(36), nullable=False),
        sa.Column("made_by", _text(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("due_at", time, nullable=False),
        sa.Column("fired_at", time, nullable=True),
        sa.Column("note", _text(), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_report_schedules_channel_id_channels")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_report_schedules_name")),
    )
    op.create_index(op.f("ix_report_schedules_due_at"), "report_schedules", ["due_at"], unique=False)
    op.create_table(
        "attachments",
        sa.Column("delivery_id", _text(36), nullable=False),
        sa.Column("name", _text(255), nullable=False),
        sa.Column("media_type", _text(63), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_attachments_delivery_id_deliveries"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_attachments")),
    )


def _text(length: int | None = None) -> "sa.types.TypeEngine[str]":
    """Return a column's type, sorted by code points on every database."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    return sa.String(length, collation) if length else sa.Text(collation=collation)
