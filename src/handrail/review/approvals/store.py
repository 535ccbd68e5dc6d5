"""The approvals' table, the authority on what may be executed. Every op swaps a state only where it is the one that the
move starts from, so of two that race one wins.

Where several rows decide, an op locks them in the order of their ids (Postgres runs many transactions at once).
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    select,
    tuple_,
    update,
)

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.jobs import enqueue
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.serialization import pack, storable, unpack

from .errors import AlreadyDecided, NotPermitted
from .model import EXECUTING, MOVES, Approval, Begun, Move, State, canonical
from .state_machine import beginning, how_decided, recovering, why_not

approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("round", Integer, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("tool", String, nullable=False),
    Column("call_id", String, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("digest", String, nullable=False),
    Column("approver", String, nullable=False),
    Column("idempotent", Boolean, nullable=False),
    Column("state", String, nullable=False),
    Column("proposed_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("decided_by", String),
    Column("decided_ns", BigInteger),
    Column("note", Text),
    Column("executing_until_ns", BigInteger),
    Column("result", LargeBinary),
    Index("ix_approvals_run_id", "run_id"),
    Index("ix_approvals_state_proposed_ns", "state", "proposed_ns"),
)


def propose(proposed: Sequence[Approval]) -> Callable[[Connection], None]:
    """An op that adds pending approvals, each with the job that lets it expire."""
    rows = [_row(each) for each in proposed]
    expiries = [
        enqueue("expire_approval", f"expire:{each.approval_id}", {"approval_id": each.approval_id}, each.expires_at)
        for each in proposed
    ]

    def op(conn: Connection) -> None:
        for row, let_expire in zip(rows, expiries, strict=True):
            conn.execute(approvals.insert(), row)
            let_expire(conn)

    return op


def decide(
    approval_id: str,
    verdict: Literal["approved", "denied"],
    person: str,
    roles: Mapping[str, Collection[str]],
    note: str | None,
    now: datetime,
) -> Callable[[Connection], Approval]:
    """An op that takes a person's decision and gives the approval as decided.

    The last decision of a round enqueues the job that resumes the run. The op raises NotFound, NotPermitted, and
    AlreadyDecided, which includes what is past its expiry.
    """
    move: Move = "approve" if verdict == "approved" else "deny"
    decision: dict[str, Any] = {"decided_by": person, "decided_ns": unix_ns(now), "note": note and storable(note)}

    def op(conn: Connection) -> Approval:
        found, others = _round(conn, approval_id)
        if reason := why_not(found, person, roles):
            raise NotPermitted(f"approval {approval_id}: {person} may not decide it; {reason}")
        if what := how_decided(found, now):
            raise AlreadyDecided(f"approval {approval_id} is not open any more: {what}")
        _move(conn, approval_id, move, **decision)
        _resume_when_settled(conn, found, others, now)
        return replace(found, state=verdict, decided_by=person, decided_at=now, note=decision["note"])

    return op


def expire(approval_id: str, now: datetime) -> Callable[[Connection], bool]:
    """An op that ends the wait for a decision which is overdue, and says whether it did; raises NotFound.

    It counts as a decision of its round.
    """

    def op(conn: Connection) -> bool:
        found, others = _round(conn, approval_id)
        if found.state != "pending" or now < found.expires_at:
            return False
        _move(conn, approval_id, "expire")
        _resume_when_settled(conn, found, others, now)
        return True

    return op


def withdraw(run_id: str) -> Callable[[Connection], int]:
    """An op that asks people for nothing more in this run, and says how many approvals that ended."""

    def op(conn: Connection) -> int:
        return sum(_move(conn, each.approval_id, "withdraw") for each in _locked(conn, approvals.c.run_id == run_id))

    return op


def forget_approvals(run_ids: Sequence[str]) -> Callable[[Connection], int]:
    """An op that takes out of runs' approvals what was to be done and what came of it, and says how many there were.

    Who decided what, and when, stays. What waits for a decision is withdrawn.
    """
    emptied = {"arguments": canonical({}), "note": None, "result": None}

    def op(conn: Connection) -> int:
        found = _locked(conn, approvals.c.run_id.in_(run_ids))
        for each in found:
            _move(conn, each.approval_id, "withdraw")
        conn.execute(update(approvals).where(approvals.c.run_id.in_(run_ids)).values(emptied))
        return len(found)

    return op


def begin(approval_id: str, digest: str, now: datetime) -> Callable[[Connection], Begun]:
    """An op that says whether the call with this digest may be executed now, which it may for one caller only.

    The execution counts as under way for EXECUTING. The op raises NotFound, and StillExecuting while another's is.
    """
    until_ns = unix_ns(now + EXECUTING)

    def op(conn: Connection) -> Begun:
        found = _locked(conn, approvals.c.approval_id == approval_id)
        if not found:
            raise _missing(approval_id)
        move, begun = beginning(found[0], digest, now)
        if move is not None:
            _move(conn, approval_id, move, executing_until_ns=until_ns)
        return begun

    return op


def renew_executing(approval_id: str, until: datetime) -> Callable[[Connection], bool]:
    """An op that lets an execution count as under way until then, and says whether it is one still."""
    renewed = (
        update(approvals)
        .where(approvals.c.approval_id == approval_id, approvals.c.state == "executing")
        .values(executing_until_ns=unix_ns(until))
    )
    return lambda conn: conn.execute(renewed).rowcount == 1


def complete(approval_id: str, result: Any) -> Callable[[Connection], bool]:
    """An op that keeps what the executed action returned, and says whether it was under way still."""
    body = pack(result)
    return lambda conn: _move(conn, approval_id, "complete", result=body)


def fail(approval_id: str, error: str) -> Callable[[Connection], bool]:
    """An op that notes that the tool raised, and says whether the action was under way still.

    It is not executed again, and may have happened: a refund that timed out may have been paid.
    """
    body = pack(error)
    return lambda conn: _move(conn, approval_id, "fail", result=body)


def recover(run_id: str, now: datetime) -> Callable[[Connection], list[Approval]]:
    """An op for who has taken over a run from a process that is gone: what was executing ends now. Gives the run's
    approvals as they then stand.

    Idempotent actions may begin again, others are `unknown_after_crash`.
    """

    def op(conn: Connection) -> list[Approval]:
        return [_recover(conn, each, now) for each in _locked(conn, approvals.c.run_id == run_id)]

    return op


def list_approvals(
    conn: Connection,
    *,
    state: State | None,
    tenant: str | None,
    limit: int,
    before: str | None,
    hidden: Collection[str] = (),
) -> list[Approval]:
    """The approvals that wait, or have waited, longest come first; those of the tenants in `hidden` are left out.

    `before` is the id of the last approval of the page before. Raises NotFound.
    """
    query = select(approvals).order_by(approvals.c.proposed_ns, approvals.c.approval_id).limit(limit)
    if state is not None:
        query = query.where(approvals.c.state == state)
    if tenant is not None:
        query = query.where(approvals.c.tenant == tenant)
    if hidden:
        query = query.where(approvals.c.tenant.not_in(sorted(hidden)))
    if before is not None:
        last = load_approval(conn, before)
        position = tuple_(unix_ns(last.proposed_at), last.approval_id)
        query = query.where(tuple_(approvals.c.proposed_ns, approvals.c.approval_id) > position)
    return [_approval(row) for row in conn.execute(query)]


def load_approval(conn: Connection, approval_id: str, tenant: str | None = None) -> Approval:
    """Raises NotFound. A prefix that only one approval has is enough."""
    query = select(approvals).where(approvals.c.approval_id.startswith(approval_id, autoescape=True)).limit(2)
    if tenant is not None:
        query = query.where(approvals.c.tenant == tenant)
    found = conn.execute(query).all()
    if len(found) != 1:
        what = "several approvals begin" if found else "no approval is called or begins"
        raise NotFound(f"{what} with {approval_id!r}; `handrail approvals list` shows those that wait")
    return _approval(found[0])


def approvals_of(conn: Connection, run_id: str) -> list[Approval]:
    """A run's approvals, in the order they were proposed."""
    query = select(approvals).where(approvals.c.run_id == run_id)
    query = query.order_by(approvals.c.round, approvals.c.approval_id)
    return [_approval(row) for row in conn.execute(query)]


def _round(conn: Connection, approval_id: str) -> tuple[Approval, list[Approval]]:
    """An approval and the others of its run's round, all locked, so that of two last decisions one sees the other."""
    key = select(approvals.c.run_id, approvals.c.round).where(approvals.c.approval_id == approval_id)
    place = conn.execute(key).one_or_none()
    if place is None:
        raise _missing(approval_id)
    rows = _locked(conn, approvals.c.run_id == place.run_id, approvals.c.round == place.round)
    [found] = [each for each in rows if each.approval_id == approval_id]
    return found, [each for each in rows if each.approval_id != approval_id]


def _resume_when_settled(conn: Connection, found: Approval, others: Sequence[Approval], now: datetime) -> None:
    if all(each.state != "pending" for each in others):
        enqueue("resume_run", f"resume:{found.run_id}:{found.round}", {"run_id": found.run_id}, now)(conn)


def _recover(conn: Connection, found: Approval, now: datetime) -> Approval:
    move = recovering(found)
    if move is None:
        return found
    _move(conn, found.approval_id, move, executing_until_ns=unix_ns(now))
    return replace(found, state=MOVES[move][1], executing_until=now)


def _locked(conn: Connection, *which: ColumnElement[bool]) -> list[Approval]:
    query = select(approvals).where(*which).order_by(approvals.c.approval_id).with_for_update()
    return [_approval(row) for row in conn.execute(query)]


def _move(conn: Connection, approval_id: str, move: Move, **values: Any) -> bool:
    before, after = MOVES[move]
    standing = (approvals.c.approval_id == approval_id, approvals.c.state == before)
    return conn.execute(update(approvals).where(*standing).values(state=after, **values)).rowcount == 1


def _missing(approval_id: str) -> NotFound:
    return NotFound(f"no approval {approval_id}; `handrail approvals list` shows those that wait")


def _row(approval: Approval) -> dict[str, Any]:
    return {
        "approval_id": approval.approval_id,
        "run_id": approval.run_id,
        "round": approval.round,
        "tenant": approval.tenant,
        "user_id": approval.user,
        "agent": approval.agent,
        "tool": approval.tool,
        "call_id": storable(approval.call_id),
        "arguments": canonical(dict(approval.arguments)),
        "digest": approval.digest,
        "approver": approval.approver,
        "idempotent": approval.idempotent,
        "state": "pending",
        "proposed_ns": unix_ns(approval.proposed_at),
        "expires_ns": unix_ns(approval.expires_at),
    }


def _approval(row: Row[Any]) -> Approval:
    return Approval(
        approval_id=row.approval_id,
        run_id=row.run_id,
        round=row.round,
        tenant=row.tenant,
        user=row.user_id,
        agent=row.agent,
        tool=row.tool,
        call_id=row.call_id,
        arguments=json.loads(row.arguments),
        digest=row.digest,
        approver=row.approver,
        idempotent=row.idempotent,
        state=row.state,
        proposed_at=from_unix_ns(row.proposed_ns),
        expires_at=from_unix_ns(row.expires_ns),
        decided_by=row.decided_by,
        decided_at=None if row.decided_ns is None else from_unix_ns(row.decided_ns),
        note=row.note,
        executing_until=None if row.executing_until_ns is None else from_unix_ns(row.executing_until_ns),
        result=None if row.result is None else unpack(row.result),
    )
