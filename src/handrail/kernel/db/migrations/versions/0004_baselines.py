"""Evals: baselines and what the gate said."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "baselines",
        sa.Column("baseline_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("set_hash", sa.String(), nullable=False),
        sa.Column("agent_hash", sa.String(), nullable=True),
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("baseline_id", name=op.f("pk_baselines")),
    )
    op.create_index("ix_baselines_agent_set_hash", "baselines", ["agent", "set_hash", "at_ns"], unique=False)
    op.create_table(
        "gates",
        sa.Column("gate_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("baseline_id", sa.String(), nullable=False),
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gate_id", name=op.f("pk_gates")),
    )
    op.create_index("ix_gates_agent_at_ns", "gates", ["agent", "at_ns"], unique=False)
