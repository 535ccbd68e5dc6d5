"""The tables of the ledger."""

from sqlalchemy import BigInteger, Column, Index, String, Table

from handrail.kernel.db.columns import Money, Timestamp
from handrail.kernel.db.schema import metadata

accounts = Table(
    "accounts",
    metadata,
    Column("key", String, primary_key=True),
    Column("scope", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, key="user"),
    Column("starts_at", Timestamp, nullable=False),
    Column("ends_at", Timestamp),
    Column("spent_cost", Money, nullable=False),
    Column("spent_input_tokens", BigInteger, nullable=False),
    Column("spent_output_tokens", BigInteger, nullable=False),
    Column("held_cost", Money, nullable=False),
    Column("held_input_tokens", BigInteger, nullable=False),
    Column("held_output_tokens", BigInteger, nullable=False),
    Index("ix_accounts_scope_starts_at", "scope", "starts_at"),
)
holds = Table(
    "holds",
    metadata,
    Column("hold_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False, key="user"),
    Column("tenant_account", String, nullable=False),
    Column("user_account", String, nullable=False),
    Column("run_account", String, nullable=False),
    Column("held_cost", Money, nullable=False),
    Column("held_input_tokens", BigInteger, nullable=False),
    Column("held_output_tokens", BigInteger, nullable=False),
    Column("settled_cost", Money),
    Column("settled_input_tokens", BigInteger),
    Column("settled_output_tokens", BigInteger),
    Column("made_at", Timestamp, nullable=False),
    Column("lease_until", Timestamp, nullable=False),
    Column("state", String, nullable=False),
    Index("ix_holds_run_id", "run_id"),
    Index("ix_holds_state_lease_until", "state", "lease_until"),
)
