"""Ceilings: accounts and the holds on them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("starts_ns", sa.BigInteger(), nullable=False),
        sa.Column("ends_ns", sa.BigInteger(), nullable=True),
        sa.Column("spent_cost", sa.BigInteger(), nullable=False),
        sa.Column("spent_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("spent_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("held_cost", sa.BigInteger(), nullable=False),
        sa.Column("held_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("held_output_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_accounts")),
    )
    op.create_index("ix_accounts_scope_starts_ns", "accounts", ["scope", "starts_ns"], unique=False)
    op.create_table(
        "holds",
        sa.Column("hold_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("tenant_account", sa.String(), nullable=False),
        sa.Column("user_account", sa.String(), nullable=False),
        sa.Column("run_account", sa.String(), nullable=False),
        sa.Column("held_cost", sa.BigInteger(), nullable=False),
        sa.Column("held_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("held_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("settled_cost", sa.BigInteger(), nullable=True),
        sa.Column("settled_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("settled_output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("made_ns", sa.BigInteger(), nullable=False),
        sa.Column("lease_until_ns", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("pk_holds")),
    )
    op.create_index("ix_holds_run_id", "holds", ["run_id"], unique=False)
    op.create_index("ix_holds_state_lease_until_ns", "holds", ["state", "lease_until_ns"], unique=False)
