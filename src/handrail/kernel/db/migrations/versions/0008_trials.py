"""Evals: several trials of a case, how well each did, and what went wrong around it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("trials", sa.Column("value", sa.Float(), nullable=False, server_default="0"))
    op.add_column("trials", sa.Column("error", sa.String()))
    op.add_column("trials", sa.Column("scores", sa.Text()))
    op.execute("UPDATE trials SET value = CASE WHEN passed THEN 1 ELSE 0 END")
