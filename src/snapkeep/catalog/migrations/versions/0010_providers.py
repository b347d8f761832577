"""Identity providers, by whose word people log in; whom they know; logins that are under way with them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Apply."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None

    def text(length: int | None = None) -> sa.String:
        return sa.String(length, collation) if length else sa.Text(collation=collation)

    time = sa.DateTime(timezone=True)
    op.create_table(
        "providers",
        sa.Column("id", text(36), nullable=False),
        sa.Column("name", text(40), nullable=False),
        sa.Column("issuer", text(300), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_providers")),
        sa.UniqueConstraint("name", name=op.f("uq_providers_name")),
        sa.UniqueConstraint("issuer", name=op.f("uq_providers_issuer")),
    )
    op.create_table(
        "accounts",
        sa.Column("identity_id", text(36), nullable=False),
        sa.Column("issuer", text(300), nullable=False),
        sa.Column("subject", text(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["identity_id"], ["identities.id"], name=op.f("fk_accounts_identity_id_identities"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("identity_id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_accounts_issuer_subject")),
    )
    op.create_table(
        "logins",
        sa.Column("id", text(36), nullable=False),
        sa.Column("provider_id", text(36), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("kind", text(16), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=True),
        sa.Column("ask_at", time, nullable=True),
        sa.Column("expires_at", time, nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_logins_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logins")),
        sa.UniqueConstraint("digest", name=op.f("uq_logins_digest")),
    )
    op.create_index(op.f("ix_logins_provider_id"), "logins", ["provider_id"], unique=False)
    op.create_index(op.f("ix_logins_expires_at"), "logins", ["expires_at"], unique=False)
    op.add_column("grants", sa.Column("provider_id", text(36), nullable=True))
