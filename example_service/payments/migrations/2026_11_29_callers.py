"""Payments belong to a caller."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "5b8e0f3d9a27"
down_revision: str | None = "0d1bcfb77cb1"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema. Existing payments have no caller."""
    op.add_column(
        "payments", sa.Column("caller", sa.String(length=64), server_default="", nullable=False)
    )
    op.create_index(op.f("ix_payments_caller"), "payments", ["caller", "created_at", "id"])


def downgrade() -> None:
    """Downgrade the schema."""
    op.drop_index(op.f("ix_payments_caller"), "payments")
    op.drop_column("payments", "caller")
