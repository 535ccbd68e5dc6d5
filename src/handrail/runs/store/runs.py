"""Writing runs: a run is one row that is brought up to date; its outcomes are appended, never rewritten.

Two processes may believe that a run is theirs: one that was silent for longer than its lease, and one that took the run
over meanwhile. So each claim on a run has a number, one higher than the last, and every write of the run's state is
conditional on it (a fencing token): after a takeover, nothing that the first process writes changes the run any more,
however late it arrives. It raises TakenOver, and what was written with it is rolled back.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import Connection, bindparam, func, select, update

from handrail.kernel.db.engine import insert, insert_new
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.errors import StoreError
from handrail.kernel.serialization import PackedJson, escape_unstorable, pack
from handrail.runs.fingerprint import FingerprintedRequest, sha256
from handrail.runs.outcome import Path

from .tables import agents, messages, outcomes, prompts, run_inputs, runs

LEASE = timedelta(seconds=30)
"""A run whose process has not renewed its lease for this long counts as interrupted."""

# Built once: SQLAlchemy derives a cache key for each statement object, and every model request updates its run.
_UPDATE = update(runs).where(runs.c.run_id == bindparam("this_run"), runs.c.claims == bindparam("this_claim"))
_RENEW = _UPDATE.where(runs.c.outcome.is_(None))
_NEXT_SEQ = (
    select(func.coalesce(func.max(outcomes.c.seq), 0) + 1)
    .where(outcomes.c.run_id == bindparam("this_run"))
    .scalar_subquery()
)
_APPEND = outcomes.insert().values(seq=_NEXT_SEQ)


class TakenOver(StoreError):
    """Another process has taken the run over: leave it alone."""

    code: ClassVar[str] = "taken_over"


@dataclass(frozen=True)
class Claim:
    """A process's right to write a run's state; `number` counts the takeovers, and the next one ends the claim."""

    run_id: str
    number: int = 0


def start_run(row: Mapping[str, Any], run_input: Any) -> Operation[None]:
    """Inserts a run.

    Args:
        row: The columns of `runs` that are known at the start, by their keys.
        run_input: The user's input, as JSON.
    """
    return _start_run(dict(row), pack(run_input))


@operation
def _start_run(conn: Connection, row: Mapping[str, Any], body: PackedJson) -> None:
    conn.execute(runs.insert(), row)
    conn.execute(run_inputs.insert(), {"run_id": row["run_id"], "body": body})


@operation
def update_run(conn: Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    """Brings a run's columns up to date.

    Args:
        conn: The connection, within a transaction.
        claim: The claim of the process that runs it.
        values: The new values, by the columns' keys.

    Raises:
        TakenOver: If another process has claimed the run since.
    """
    changed = {"this_run": claim.run_id, "this_claim": claim.number, **values}
    if conn.execute(_UPDATE, changed).rowcount != 1:
        raise TakenOver(f"run {claim.run_id}: another process has taken it over; this one was silent for too long")


@operation
def renew_run_lease(conn: Connection, claim: Claim, until: datetime) -> None:
    """Keeps a run that is under way from counting as interrupted before `until`; changes nothing once it has ended."""
    conn.execute(_RENEW, {"this_run": claim.run_id, "this_claim": claim.number, "lease_until": until})


def append_outcome(
    claim: Claim,
    type_: str,
    path: Path | None,
    fault: str | None,
    at: datetime,
    body: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Operation[None]:
    """Appends an outcome, which the run stands at from then on.

    Args:
        claim: The claim of the process that ran it.
        type_: The outcome's type, which is the run's status.
        path: What the run counts as.
        fault: The code of the fault, if there was one.
        at: When the run ended.
        body: The fields of the outcome, as JSON.
        values: The run's other columns, by their keys.

    Returns:
        An operation that raises TakenOver if another process has claimed the run since.
    """
    row = {"run_id": claim.run_id, "type": type_, "path": path, "at": at, "body": pack(body)}
    return _append_outcome(claim, row, {**values, "outcome": type_, "path": path, "fault": fault, "ended_at": at})


@operation
def _append_outcome(conn: Connection, claim: Claim, row: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    # The update comes first: it locks the run, so that two outcomes cannot get the same number on Postgres.
    update_run(claim, values)(conn)
    conn.execute(_APPEND, {"this_run": claim.run_id, **row})


def store_definition(request: FingerprintedRequest, template: str, agent: str, at: datetime) -> Operation[None]:
    """Stores the texts behind a fingerprint, once each.

    Args:
        request: The fingerprint, the rendered prompt and the agent's definition.
        template: The prompt's template.
        agent: The agent's name.
        at: The time.
    """
    texts = [{"hash": sha256(text), "text": escape_unstorable(text)} for text in (template, request.rendered)]
    definition = {"hash": request.fingerprint.agent, "agent": agent, "body": request.body, "first_seen_at": at}
    return _store_definition(texts, definition)


@operation
def _store_definition(conn: Connection, texts: Sequence[Mapping[str, Any]], definition: Mapping[str, Any]) -> None:
    for text in texts:
        insert_new(conn, prompts, text)
    insert_new(conn, agents, definition)


def store_messages(
    run_id: str, tenant: str, conversation_id: str, at: datetime, added: Sequence[Any]
) -> Operation[None]:
    """Stores what a run has added to its conversation, in place of what it had added before.

    Args:
        run_id: The run.
        tenant: Its tenant.
        conversation_id: Its conversation.
        at: When the messages were added.
        added: Pydantic AI's messages.
    """
    row = {"run_id": run_id, "tenant": tenant, "conversation_id": conversation_id, "added_at": at, "body": pack(added)}
    return _store_messages(row)


@operation
def _store_messages(conn: Connection, row: Mapping[str, Any]) -> None:
    conn.execute(_upsert_messages(conn.dialect.name), row)


@functools.cache
def _upsert_messages(dialect: str) -> Any:
    statement = insert(dialect, messages)
    changed = {"body": statement.excluded.body, "added_at": statement.excluded.added_at}
    return statement.on_conflict_do_update(index_elements=["run_id"], set_=changed)
