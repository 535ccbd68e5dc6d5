"""Traces: what questions about cost, latency and origin need."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("spans", sa.Column("reported_cost", sa.BigInteger()))
    op.add_column("spans", sa.Column("held", sa.BigInteger()))
    op.add_column("spans", sa.Column("conversation_id", sa.String()))
    op.add_column("spans", sa.Column("first_token_ns", sa.BigInteger()))
    op.add_column("spans", sa.Column("fingerprint", sa.String()))
