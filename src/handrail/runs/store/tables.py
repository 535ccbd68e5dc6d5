"""The tables of runs."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from handrail.kernel.db.columns import Money, Packed, Timestamp
from handrail.kernel.db.schema import metadata

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False, key="user"),
    Column("conversation_id", String, nullable=False),
    Column("trace_id", String, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("lease_until", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("outcome", String),
    Column("path", String),
    Column("fault", String),
    Column("model", String),
    Column("requests", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", Money, nullable=False),
    Column("template_hash", String),
    Column("rendered_hash", String),
    Column("agent_hash", String),
    Column("claims", Integer, nullable=False, server_default="0"),
    Index("ix_runs_tenant_started_at", "tenant", "started_at"),
    Index("ix_runs_agent_started_at", "agent", "started_at"),
)
run_inputs = Table(
    "run_inputs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("body", Packed, nullable=False),
)
outcomes = Table(
    "outcomes",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", String, nullable=False),
    Column("path", String),
    Column("recorded_at", Timestamp, nullable=False, key="at"),
    Column("body", Packed, nullable=False),
)
messages = Table(
    "messages",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("conversation_id", String, nullable=False),
    Column("added_at", Timestamp, nullable=False),
    Column("body", Packed, nullable=False),
    Index("ix_messages_tenant_conversation_id", "tenant", "conversation_id", "added_at"),
)
pauses = Table(
    "pauses",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("body", Packed, nullable=False),
)
prompts = Table("prompts", metadata, Column("hash", String, primary_key=True), Column("text", Text, nullable=False))
agents = Table(
    "agents",
    metadata,
    Column("hash", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False),
)
