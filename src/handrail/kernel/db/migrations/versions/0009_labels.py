"""Evals: what baselines were scored with, and what people say of trials, to calibrate a judge by."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("baselines", sa.Column("trials", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("baselines", sa.Column("scored_by", sa.Text(), nullable=False, server_default="{}"))
    op.create_table(
        "samples",
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("judge", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("judge_hash", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("eval_run_id", "judge", "case_id", "trial", name=op.f("pk_samples")),
    )
    op.create_table(
        "labels",
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("judge", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("right", sa.Boolean(), nullable=True),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("eval_run_id", "judge", "case_id", "trial", "by", name=op.f("pk_labels")),
    )
