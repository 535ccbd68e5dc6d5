"""The runs' tables. A run is one row that is brought up to date; its outcomes are appended, never rewritten."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    bindparam,
    func,
    select,
    update,
)

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.engine import insert, insert_new
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound, StoreError
from handrail.kernel.money import NanoUsd
from handrail.kernel.serialization import pack, storable, unpack, unpack_json
from handrail.runs.fingerprint import Fingerprint, Sent, sha256
from handrail.runs.outcome import Path

_AT_ONCE = 1_000
LEASE = timedelta(seconds=30)
"""A run whose process has not been heard of for this long counts as interrupted."""

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("conversation_id", String, nullable=False),
    Column("trace_id", String, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("lease_until_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger),
    Column("outcome", String),
    Column("path", String),
    Column("fault", String),
    Column("model", String),
    Column("requests", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("template_hash", String),
    Column("rendered_hash", String),
    Column("agent_hash", String),
    Column("claims", Integer, nullable=False, server_default="0"),
    Index("ix_runs_tenant_started_ns", "tenant", "started_ns"),
    Index("ix_runs_agent_started_ns", "agent", "started_ns"),
)
run_inputs = Table(
    "run_inputs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
outcomes = Table(
    "outcomes",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", String, nullable=False),
    Column("path", String),
    Column("at_ns", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
messages = Table(
    "messages",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("conversation_id", String, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_messages_tenant_conversation_id", "tenant", "conversation_id", "at_ns"),
)
prompts = Table("prompts", metadata, Column("hash", String, primary_key=True), Column("text", Text, nullable=False))
agents = Table(
    "agents",
    metadata,
    Column("hash", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("first_seen_ns", BigInteger, nullable=False),
)


class TakenOver(StoreError):
    """Another process carries the run on: leave it alone."""

    code: ClassVar[str] = "taken_over"


@dataclass(frozen=True)
class Claim:
    """One process's hold on a run, the `number`-th since it began; the next one ends it."""

    run_id: str
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as it stands. `status` is its outcome's type, or `running`, or `interrupted` where its process is gone."""

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
    def took(self) -> timedelta | None:
        """From its beginning to its last outcome."""
        return None if self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, kw_only=True)
class OutcomeView:
    """One of a run's outcomes: `body` holds the fields of its type."""

    type: str
    path: Path | None
    at: datetime
    body: Mapping[str, Any]


_ADVANCE = update(runs).where(runs.c.run_id == bindparam("this_run"), runs.c.claims == bindparam("this_claim"))
_RENEW = _ADVANCE.where(runs.c.outcome.is_(None))
_NEXT_SEQ = (
    select(func.coalesce(func.max(outcomes.c.seq), 0) + 1)
    .where(outcomes.c.run_id == bindparam("this_run"))
    .scalar_subquery()
)
_APPEND = outcomes.insert().values(seq=_NEXT_SEQ)


def start(row: Mapping[str, Any], asked: Any) -> Callable[[Connection], None]:
    """An op that opens a run; `row` has the columns of `runs` that are known then."""
    body = pack(asked)

    def op(conn: Connection) -> None:
        conn.execute(runs.insert(), dict(row))
        conn.execute(run_inputs.insert(), {"run_id": row["run_id"], "body": body})

    return op


def advance(claim: Claim, values: Mapping[str, Any]) -> Callable[[Connection], None]:
    """An op that brings a run's columns up to date. It raises TakenOver."""

    def op(conn: Connection) -> None:
        _advance(conn, claim, values)

    return op


def renew(claim: Claim, until: datetime) -> Callable[[Connection], None]:
    """An op that keeps a run that is under way from counting as interrupted until then; nothing where it is not."""
    changed = {"this_run": claim.run_id, "this_claim": claim.number, "lease_until_ns": unix_ns(until)}

    def op(conn: Connection) -> None:
        conn.execute(_RENEW, changed)

    return op


def append_outcome(
    claim: Claim,
    type_: str,
    path: Path | None,
    fault: str | None,
    at: datetime,
    body: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Callable[[Connection], None]:
    """An op that appends an outcome and makes it the one the run stands at; `values` are the run's other columns.

    It raises TakenOver.
    """
    row = {"run_id": claim.run_id, "type": type_, "path": path, "at_ns": unix_ns(at), "body": pack(body)}
    standing = {**values, "outcome": type_, "path": path, "fault": fault, "ended_ns": unix_ns(at)}

    def op(conn: Connection) -> None:
        _advance(conn, claim, standing)
        conn.execute(_APPEND, {"this_run": claim.run_id, **row})

    return op


def remember(sent: Sent, template: str, agent: str, at: datetime) -> Callable[[Connection], None]:
    """An op that keeps the texts behind a fingerprint, once each."""

    def op(conn: Connection) -> None:
        for text in (template, sent.rendered):
            insert_new(conn, prompts, {"hash": sha256(text), "text": storable(text)})
        row = {"hash": sent.fingerprint.agent, "agent": agent, "body": sent.body, "first_seen_ns": unix_ns(at)}
        insert_new(conn, agents, row)

    return op


def keep_messages(
    run_id: str, tenant: str, conversation_id: str, at: datetime, said: Sequence[Any]
) -> Callable[[Connection], None]:
    """An op that keeps what a run added to its conversation (Pydantic AI's messages)."""
    row = {"run_id": run_id, "tenant": tenant, "conversation_id": conversation_id, "at_ns": unix_ns(at)}
    body = pack(said)

    def op(conn: Connection) -> None:
        conn.execute(_keep(conn.dialect.name), {**row, "body": body})

    return op


@functools.cache
def _keep(dialect: str) -> Any:
    statement = insert(dialect, messages)
    changed = {"body": statement.excluded.body, "at_ns": statement.excluded.at_ns}
    return statement.on_conflict_do_update(index_elements=["run_id"], set_=changed)


def load_conversation(conn: Connection, tenant: str, conversation_id: str) -> list[bytes]:
    """What each run of a tenant's conversation added, in order."""
    query = select(messages.c.body).where(messages.c.tenant == tenant, messages.c.conversation_id == conversation_id)
    return [unpack_json(body) for body in conn.execute(query.order_by(messages.c.at_ns, messages.c.run_id)).scalars()]


def list_runs(
    conn: Connection, now: datetime, *, tenant: str | None, agent: str | None, limit: int, before: str | None
) -> list[RunView]:
    """The newest runs first; `before` is the id of the last run of the page before."""
    query = select(runs).order_by(runs.c.run_id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(runs.c.tenant == tenant)
    if agent is not None:
        query = query.where(runs.c.agent == agent)
    if before is not None:
        query = query.where(runs.c.run_id < before)
    return [_view(row, now) for row in conn.execute(query)]


def load_run(conn: Connection, run_id: str, now: datetime, tenant: str | None = None) -> RunView:
    """Raises NotFound. A prefix that only one run has is enough."""
    query = select(runs).where(runs.c.run_id.startswith(run_id, autoescape=True)).limit(2)
    if tenant is not None:
        query = query.where(runs.c.tenant == tenant)
    found = conn.execute(query).all()
    if len(found) != 1:
        what = "several runs begin" if found else "no run is called or begins"
        raise NotFound(f"{what} with {run_id!r}; `handrail runs list` shows the newest")
    return _view(found[0], now)


def load_input(conn: Connection, run_id: str) -> Any:
    """What the run was asked, as JSON."""
    body = conn.execute(select(run_inputs.c.body).where(run_inputs.c.run_id == run_id)).scalar_one()
    return unpack(body)


def load_outcomes(conn: Connection, run_id: str) -> list[OutcomeView]:
    """How the run stood, first to last."""
    query = select(outcomes).where(outcomes.c.run_id == run_id).order_by(outcomes.c.seq)
    return [_outcome(row) for row in conn.execute(query)]


def last_outcomes(conn: Connection, run_ids: Iterable[str]) -> dict[str, OutcomeView]:
    """How each of these runs stood last, by its id; runs that are not here, or did not get that far, are left out."""
    found = {}
    for some in _chunks(run_ids):
        query = select(outcomes).where(outcomes.c.run_id.in_(some)).order_by(outcomes.c.seq)
        found.update({row.run_id: row for row in conn.execute(query)})
    return {run_id: _outcome(row) for run_id, row in found.items()}


def known_runs(conn: Connection, run_ids: Iterable[str], tenant: str | None) -> set[str]:
    """Those of the ids that are of runs in this store: others may have been pruned, or have run elsewhere."""
    found: set[str] = set()
    for some in _chunks(run_ids):
        query = select(runs.c.run_id).where(runs.c.run_id.in_(some))
        found.update(conn.execute(query if tenant is None else query.where(runs.c.tenant == tenant)).scalars())
    return found


def _chunks(run_ids: Iterable[str]) -> Iterator[list[str]]:
    """As many at a time as every engine takes in one statement."""
    ids = list(run_ids)
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _outcome(row: Row[Any]) -> OutcomeView:
    return OutcomeView(type=row.type, path=row.path, at=from_unix_ns(row.at_ns), body=unpack(row.body))


def load_prompt(conn: Connection, hash_: str) -> str | None:
    """The text a template or rendered hash stands for."""
    text: str | None = conn.execute(select(prompts.c.text).where(prompts.c.hash == hash_)).scalar()
    return text


def _advance(conn: Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    changed = {"this_run": claim.run_id, "this_claim": claim.number, **values}
    if conn.execute(_ADVANCE, changed).rowcount != 1:
        raise TakenOver(f"run {claim.run_id}: another process carries it on; this one was silent for too long")


def _view(row: Row[Any], now: datetime) -> RunView:
    status = row.outcome or ("running" if row.lease_until_ns > unix_ns(now) else "interrupted")
    known = row.agent_hash is not None
    return RunView(
        run_id=row.run_id,
        agent=row.agent,
        tenant=row.tenant,
        user=row.user_id,
        conversation_id=row.conversation_id,
        trace_id=row.trace_id,
        started_at=from_unix_ns(row.started_ns),
        ended_at=None if row.ended_ns is None else from_unix_ns(row.ended_ns),
        status=status,
        path=row.path if status != "interrupted" else "failed",
        fault=row.fault if status != "interrupted" else "interrupted",
        model=row.model,
        requests=row.requests,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost=NanoUsd(row.cost),
        fingerprint=Fingerprint(row.template_hash, row.rendered_hash, row.agent_hash) if known else None,
    )
