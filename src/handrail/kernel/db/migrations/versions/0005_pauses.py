"""Runs: what carries a run on that waits for people, and how many processes took it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "round", name=op.f("pk_pauses")),
    )
    op.add_column("runs", sa.Column("claims", sa.Integer(), nullable=False, server_default="0"))
