"""Payments belong to a caller, and so do idempotency keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "5b8e0f3d9a27"
down_revision: str | None = "0d1bcfb77cb1"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema forward; payments that there are belong to no caller yet."""
    with op.batch_alter_table("payments") as payments:
        payments.add_column(
            sa.Column("caller", sa.String(length=64), server_default="", nullable=False)
        )
        payments.drop_constraint(op.f("uq_payments_idempotency_key"), type_="unique")
        payments.create_unique_constraint(op.f("uq_payments_caller"), ["caller", "idempotency_key"])
        payments.drop_index(op.f("ix_payments_created_at"))
        payments.create_index(op.f("ix_payments_caller"), ["caller", "created_at", "id"])


def downgrade() -> None:
    """Bring the schema back; fails where two callers have used the same key."""
    with op.batch_alter_table("payments") as payments:
        payments.drop_index(op.f("ix_payments_caller"))
        payments.create_index(op.f("ix_payments_created_at"), ["created_at", "id"])
        payments.drop_constraint(op.f("uq_payments_caller"), type_="unique")
        payments.create_unique_constraint(op.f("uq_payments_idempotency_key"), ["idempotency_key"])
        payments.drop_column("caller")
