"""Every table."""

import sqlalchemy as sa
from alembic import op

revision = "0001_initial"
down_revision = None


def upgrade() -> None:
    _create_jobs_tables()
    _create_access_tables()
    _create_requests_tables()
    _create_ceilings_tables()
    _create_runs_tables()
    _create_review_tables()
    _create_traces_tables()
    _create_evals_tables()


def _create_jobs_tables() -> None:
    op.create_table(
        "jobs",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("first_due_at", sa.BigInteger(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("key", name="pk_jobs"),
    )
    op.create_index("ix_jobs_state_due_at", "jobs", ["state", "due_at"])


def _create_access_tables() -> None:
    op.create_table(
        "dashboard_users",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("tenant", sa.String()),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_dashboard_users"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("user_name", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_sessions"),
    )
    op.create_index("ix_sessions_user_name", "sessions", ["user_name"])
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String()),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    )
    op.create_table(
        "failed_logins",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_failed_logins"),
    )


def _create_requests_tables() -> None:
    op.create_table(
        "idempotent_requests",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("body", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_idempotent_requests"),
    )
    op.create_index("ix_idempotent_requests_begun_at", "idempotent_requests", ["begun_at"])


def _create_ceilings_tables() -> None:
    op.create_table(
        "accounts",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String()),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger()),
        sa.Column("spent_cost", sa.BigInteger(), nullable=False),
        sa.Column("spent_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("spent_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("held_cost", sa.BigInteger(), nullable=False),
        sa.Column("held_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("held_output_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_accounts"),
    )
    op.create_index("ix_accounts_scope_starts_at", "accounts", ["scope", "starts_at"])
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
        sa.Column("settled_cost", sa.BigInteger()),
        sa.Column("settled_input_tokens", sa.BigInteger()),
        sa.Column("settled_output_tokens", sa.BigInteger()),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", name="pk_holds"),
    )
    op.create_index("ix_holds_run_id", "holds", ["run_id"])
    op.create_index("ix_holds_state_lease_until", "holds", ["state", "lease_until"])


def _create_runs_tables() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("outcome", sa.String()),
        sa.Column("path", sa.String()),
        sa.Column("fault", sa.String()),
        sa.Column("model", sa.String()),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("template_hash", sa.String()),
        sa.Column("rendered_hash", sa.String()),
        sa.Column("agent_hash", sa.String()),
        sa.Column("claims", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
    )
    op.create_index("ix_runs_agent_started_at", "runs", ["agent", "started_at"])
    op.create_index("ix_runs_tenant_started_at", "runs", ["tenant", "started_at"])
    op.create_table(
        "run_inputs",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_inputs"),
    )
    op.create_table(
        "outcomes",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("path", sa.String()),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_outcomes"),
    )
    op.create_table(
        "messages",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_messages"),
    )
    op.create_index("ix_messages_tenant_conversation_id", "messages", ["tenant", "conversation_id", "added_at"])
    op.create_table(
        "pauses",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "round", name="pk_pauses"),
    )
    op.create_table(
        "prompts",
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_prompts"),
    )
    op.create_table(
        "agents",
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_agents"),
    )


def _create_review_tables() -> None:
    op.create_table(
        "approvals",
        sa.Column("approval_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("tool", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("schema_hash", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("approver", sa.String(), nullable=False),
        sa.Column("idempotent", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("proposed_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_by", sa.String()),
        sa.Column("decided_at", sa.BigInteger()),
        sa.Column("note", sa.Text()),
        sa.Column("executing_until", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("result", sa.LargeBinary()),
        sa.Column("reason", sa.Text()),
        sa.Column("happened", sa.Boolean()),
        sa.Column("settlement_open", sa.Boolean()),
        sa.Column("settled_by", sa.String()),
        sa.Column("settled_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("approval_id", name="pk_approvals"),
    )
    op.create_index("ix_approvals_run_id", "approvals", ["run_id"])
    op.create_index("ix_approvals_state_proposed_at", "approvals", ["state", "proposed_at"])
    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("is_right", sa.Boolean(), nullable=False),
        sa.Column("expected", sa.LargeBinary()),
        sa.Column("note", sa.Text()),
        sa.Column("given_by", sa.String(), nullable=False),
        sa.Column("given_at", sa.BigInteger(), nullable=False),
        sa.Column("case_id", sa.String()),
        sa.PrimaryKeyConstraint("feedback_id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_run_id", "feedback", ["run_id"])
    op.create_index("ix_feedback_tenant_given_at", "feedback", ["tenant", "given_at"])


def _create_traces_tables() -> None:
    op.create_table(
        "step_rollups",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("total_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "level", "start_ns", "agent", "kind", "name", "bucket", name="pk_step_rollups"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spend_rollups",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("governed", sa.Boolean(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("reported_cost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant",
            "level",
            "start_ns",
            "user_id",
            "agent",
            "model",
            "fingerprint",
            "governed",
            name="pk_spend_rollups",
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spans",
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("span_id", sa.String(), nullable=False),
        sa.Column("parent_id", sa.String()),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("error_type", sa.String()),
        sa.Column("provider", sa.String()),
        sa.Column("model", sa.String()),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("reported_cost", sa.BigInteger()),
        sa.Column("held", sa.BigInteger()),
        sa.Column("conversation_id", sa.String()),
        sa.Column("first_token_ns", sa.BigInteger()),
        sa.Column("fingerprint", sa.String()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retry_of", sa.String()),
        sa.Column("attributes", sa.Text()),
        sa.PrimaryKeyConstraint("trace_id", "span_id", name="pk_spans"),
    )
    op.create_index("ix_spans_run_id", "spans", ["run_id"])
    op.create_table(
        "payloads",
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("span_id", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "span_id", name="pk_payloads"),
    )
    op.create_table(
        "traces",
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("spans", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String()),
        sa.Column("fingerprint", sa.String()),
        sa.Column("duration_ns", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "tenant", name="pk_traces"),
    )
    op.create_index("ix_traces_cost_start_ns", "traces", ["cost", "start_ns"])
    op.create_index("ix_traces_duration_ns_start_ns", "traces", ["duration_ns", "start_ns"])
    op.create_index("ix_traces_errors_start_ns", "traces", ["errors", "start_ns"])
    op.create_index("ix_traces_start_ns", "traces", ["start_ns"])
    op.create_index("ix_traces_tenant_cost_start_ns", "traces", ["tenant", "cost", "start_ns"])
    op.create_index("ix_traces_tenant_duration_ns_start_ns", "traces", ["tenant", "duration_ns", "start_ns"])
    op.create_index("ix_traces_tenant_errors_start_ns", "traces", ["tenant", "errors", "start_ns"])
    op.create_index("ix_traces_tenant_start_ns", "traces", ["tenant", "start_ns"])
    op.create_index("ix_traces_tenant_user_id_start_ns", "traces", ["tenant", "user_id", "start_ns"])


def _create_evals_tables() -> None:
    op.create_table(
        "gate_verdicts",
        sa.Column("gate_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("baseline_id", sa.String(), nullable=False),
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.LargeBinary(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gate_id", name="pk_gate_verdicts"),
    )
    op.create_index("ix_gate_verdicts_agent_decided_at", "gate_verdicts", ["agent", "decided_at"])
    op.create_table(
        "baselines",
        sa.Column("baseline_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("set_hash", sa.String(), nullable=False),
        sa.Column("agent_hash", sa.String()),
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("scorer_hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("baseline_id", name="pk_baselines"),
    )
    op.create_index("ix_baselines_agent_set_hash", "baselines", ["agent", "set_hash", "set_at"])
    op.create_table(
        "eval_runs",
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("set_hash", sa.String(), nullable=False),
        sa.Column("cases", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("scorer_hashes", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("eval_run_id", name="pk_eval_runs"),
    )
    op.create_index("ix_eval_runs_agent_started_at", "eval_runs", ["agent", "started_at"])
    op.create_table(
        "trials",
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("path", sa.String()),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("fields", sa.LargeBinary(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
        sa.Column("notes", sa.LargeBinary(), nullable=False),
        sa.Column("observed", sa.LargeBinary(), nullable=False),
        sa.Column("duration_ns", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String()),
        sa.Column("agent_hash", sa.String()),
        sa.Column("error", sa.String()),
        sa.PrimaryKeyConstraint("eval_run_id", "case_id", "trial", name="pk_trials"),
    )
    op.create_table(
        "label_samples",
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
        sa.PrimaryKeyConstraint("eval_run_id", "judge", "case_id", "trial", name="pk_label_samples"),
    )
    op.create_table(
        "labels",
        sa.Column("eval_run_id", sa.String(), nullable=False),
        sa.Column("judge", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("right", sa.Boolean()),
        sa.Column("labelled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("eval_run_id", "judge", "case_id", "trial", "by", name="pk_labels"),
    )
