"""Evals: what an eval run was scored with; nobody knows it of those that are there."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("eval_runs", sa.Column("scored_by", sa.Text()))
