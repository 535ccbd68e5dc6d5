"""Reading runs: how they stand, their inputs, outcomes, conversations and prompts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, LargeBinary, Row, select, type_coerce

from handrail.kernel.db.operation import operation
from handrail.kernel.db.queries import batches, find_by_prefix
from handrail.kernel.db.rows import from_row
from handrail.kernel.money import NanoUsd
from handrail.kernel.serialization import unpack_json
from handrail.runs.fingerprint import Fingerprint
from handrail.runs.outcome import Path

from .tables import messages, outcomes, prompts, run_inputs, runs


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as it stands.

    Attributes:
        status: The type of its last outcome, `running`, or `interrupted` if its process has not renewed its lease.
        fingerprint: Known from the first model request on.
    """

    run_id: str
    agent: str
    tenant: str
    user: str
    conversation_id: str
    trace_id: str
    started_at: datetime
    ended_at: datetime | None
    status: str
    path: Path | None
    fault: str | None
    model: str | None
    requests: int
    input_tokens: int
    output_tokens: int
    cost: NanoUsd
    fingerprint: Fingerprint | None

    @property
    def duration(self) -> timedelta | None:
        """From its start to its last outcome."""
        return None if self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, kw_only=True)
class OutcomeView:
    """One of a run's outcomes: `body` holds the fields of its type."""

    type: str
    path: Path | None
    at: datetime
    body: Mapping[str, Any]


@operation
def list_runs(
    conn: Connection, now: datetime, *, tenant: str | None, agent: str | None, limit: int, before: str | None
) -> list[RunView]:
    """Runs, the newest first.

    Args:
        conn: The connection to read with.
        now: The time, which decides whether a run counts as interrupted.
        tenant: Whose runs; None for those of every tenant.
        agent: Only the runs of this agent; None for those of all.
        limit: The most runs to return.
        before: The id of the last run of the page before; None for the first page.
    """
    query = select(runs).order_by(runs.c.run_id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(runs.c.tenant == tenant)
    if agent is not None:
        query = query.where(runs.c.agent == agent)
    if before is not None:
        query = query.where(runs.c.run_id < before)
    return [_run_view(row, now) for row in conn.execute(query)]


@operation
def load_run(conn: Connection, run_id: str, now: datetime, tenant: str | None = None) -> RunView:
    """One run.

    Args:
        conn: The connection to read with.
        run_id: Its id, or the beginning of it if no other run's id begins with that.
        now: The time, which decides whether the run counts as interrupted.
        tenant: Only a run of this tenant is found; None for any.

    Raises:
        NotFound: If there is no such run, or more than one.
    """
    query = select(runs)
    if tenant is not None:
        query = query.where(runs.c.tenant == tenant)
    hint = "`handrail runs list` shows the newest"
    return _run_view(find_by_prefix(conn, query, runs.c.run_id, run_id, what="run", hint=hint), now)


@operation
def load_input(conn: Connection, run_id: str) -> Any:
    """The user's input to a run, as JSON."""
    return conn.execute(select(run_inputs.c.body).where(run_inputs.c.run_id == run_id)).scalar_one()


@operation
def load_outcomes(conn: Connection, run_id: str) -> list[OutcomeView]:
    """A run's outcomes, first to last."""
    query = select(outcomes).where(outcomes.c.run_id == run_id).order_by(outcomes.c.seq)
    return [from_row(OutcomeView, row) for row in conn.execute(query)]


@operation
def last_outcomes(conn: Connection, run_ids: Iterable[str]) -> dict[str, OutcomeView]:
    """The last outcome of each run, by the run's id; runs that are not in the store, or have none yet, are left out."""
    newest = {}
    for batch in batches(run_ids):
        query = select(outcomes).where(outcomes.c.run_id.in_(batch)).order_by(outcomes.c.seq)
        newest.update({row.run_id: row for row in conn.execute(query)})
    return {run_id: from_row(OutcomeView, row) for run_id, row in newest.items()}


@operation
def existing_runs(conn: Connection, run_ids: Iterable[str], tenant: str | None) -> set[str]:
    """Those of the ids that are of runs in this store: others may have been removed, or have run elsewhere."""
    existing: set[str] = set()
    for batch in batches(run_ids):
        query = select(runs.c.run_id).where(runs.c.run_id.in_(batch))
        existing.update(conn.execute(query if tenant is None else query.where(runs.c.tenant == tenant)).scalars())
    return existing


@operation
def load_conversation(conn: Connection, tenant: str, conversation_id: str) -> list[bytes]:
    """What each run of a conversation has added to it, as JSON, in order."""
    # As it is stored: Pydantic AI reads the JSON, so there is no need to.
    query = (
        select(type_coerce(messages.c.body, LargeBinary))
        .where(messages.c.tenant == tenant, messages.c.conversation_id == conversation_id)
        .order_by(messages.c.added_at, messages.c.run_id)
    )
    return [unpack_json(body) for body in conn.execute(query).scalars()]


@operation
def load_prompt(conn: Connection, hash_: str) -> str | None:
    """The text that a fingerprint's template or rendered hash stands for; None if it is not in the store."""
    text: str | None = conn.execute(select(prompts.c.text).where(prompts.c.hash == hash_)).scalar()
    return text


def _run_view(row: Row[Any], now: datetime) -> RunView:
    status = row.outcome or ("running" if row.lease_until > now else "interrupted")
    interrupted = status == "interrupted"
    fingerprinted = row.agent_hash is not None
    return from_row(
        RunView,
        row,
        status=status,
        path="failed" if interrupted else row.path,
        fault="interrupted" if interrupted else row.fault,
        fingerprint=Fingerprint(row.template_hash, row.rendered_hash, row.agent_hash) if fingerprinted else None,
    )
