"""The table of approvals, the authority on what may be executed.

Every operation changes a state only if it is the one that the transition starts from, in the UPDATE itself: of two that
race one wins, and the other changes nothing. Where an operation decides by several rows, it first locks them in the
order of their ids, since Postgres runs many transactions at the same time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    String,
    Table,
    Text,
    select,
    update,
)

from handrail.kernel.db.columns import Json, Packed, Timestamp
from handrail.kernel.db.jobs import enqueue
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.serialization import escape_unstorable, pack

from .errors import AlreadyDecided, NotPermitted
from .model import EXECUTION_LEASE, TRANSITIONS, UNCERTAIN, Approval, BeginResult, Transition
from .state_machine import begin_execution, recovery_transition, why_not_open, why_not_permitted

approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("round", Integer, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False, key="user"),
    Column("agent", String, nullable=False),
    Column("tool", String, nullable=False),
    Column("call_id", String, nullable=False),
    Column("arguments", Json, nullable=False),
    Column("schema_hash", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("approver", String, nullable=False),
    Column("idempotent", Boolean, nullable=False),
    Column("state", String, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("decided_by", String),
    Column("decided_at", Timestamp),
    Column("note", Text),
    Column("executing_until", Timestamp),
    Column("attempts", Integer, nullable=False),
    Column("result", Packed),
    Column("reason", Text),
    Column("happened", Boolean),
    Column("settlement_open", Boolean),
    Column("settled_by", String),
    Column("settled_at", Timestamp),
    Index("ix_approvals_run_id", "run_id"),
    Index("ix_approvals_state_proposed_at", "state", "proposed_at"),
)
LIST_HINT = "`handrail approvals list` shows those that wait"


def propose(proposed: Sequence[Approval]) -> Operation[None]:
    """Adds pending approvals, each with the job that lets it expire."""
    rows = [to_row(approval, approvals, call_id=escape_unstorable(approval.call_id)) for approval in proposed]
    expiry_jobs = [
        enqueue(
            "expire_approval",
            f"expire:{approval.approval_id}",
            {"approval_id": approval.approval_id},
            approval.expires_at,
        )
        for approval in proposed
    ]
    return _propose(rows, expiry_jobs)


@operation
def _propose(conn: Connection, rows: Sequence[Mapping[str, Any]], expiry_jobs: Sequence[Operation[bool]]) -> None:
    for row, enqueue_expiry in zip(rows, expiry_jobs, strict=True):
        conn.execute(approvals.insert(), row)
        enqueue_expiry(conn)


@operation
def decide(
    conn: Connection,
    approval_id: str,
    decision: Literal["approved", "denied"],
    person: str,
    roles: Mapping[str, Collection[str]],
    note: str | None,
    now: datetime,
) -> Approval:
    """Records a person's decision. The last decision of a round enqueues the job that resumes the run.

    Args:
        conn: The connection, within a transaction.
        approval_id: The whole id.
        decision: What they decided.
        person: Who decided.
        roles: The members of each role.
        note: Their reason, if they gave one.
        now: The time.

    Returns:
        The approval as decided.

    Raises:
        NotFound: If there is no such approval.
        NotPermitted: If this person may not decide it.
        AlreadyDecided: If it is not open any more, also because it expired.
    """
    approval, others = _load_round(conn, approval_id)
    if reason := why_not_permitted(approval, person, roles):
        raise NotPermitted(f"approval {approval_id}: {person} may not decide it; {reason}")
    if reason := why_not_open(approval, now):
        raise AlreadyDecided(f"approval {approval_id} is not open any more: {reason}")
    decided: dict[str, Any] = {"decided_by": person, "decided_at": now, "note": note and escape_unstorable(note)}
    _transition(conn, approval_id, "approve" if decision == "approved" else "deny", **decided)
    _resume_when_settled(conn, approval, others, now)
    return replace(approval, state=decision, **decided)


@operation
def expire(conn: Connection, approval_id: str, now: datetime) -> bool:
    """Ends the wait for an overdue decision, which counts as a decision of its round; returns whether it did.

    Raises:
        NotFound: If there is no such approval.
    """
    approval, others = _load_round(conn, approval_id)
    if approval.state != "pending" or now < approval.expires_at:
        return False
    _transition(conn, approval_id, "expire")
    _resume_when_settled(conn, approval, others, now)
    return True


@operation
def settle_uncertain(
    conn: Connection,
    approval_id: str,
    happened: bool,
    person: str,
    roles: Mapping[str, Collection[str]],
    note: str | None,
    now: datetime,
) -> Approval:
    """Records what a person found out about an uncertain action. The run's last settlement enqueues its resumption.

    Args:
        conn: The connection, within a transaction.
        approval_id: The whole id.
        happened: Whether the action took place. If not, it is executed again, which counts as one more attempt.
        person: Who found out; the same people as for a decision may.
        roles: The members of each role.
        note: What they found out, if they say.
        now: The time.

    Returns:
        The approval as settled: `executed`, with no result, or `approved`.

    Raises:
        NotFound: If there is no such approval.
        NotPermitted: If this person may not settle it.
        AlreadyDecided: If the action is not uncertain, or not any more.
    """
    approval, others = _load_round(conn, approval_id)
    if reason := why_not_permitted(approval, person, roles):
        raise NotPermitted(f"approval {approval_id}: {person} may not settle it; {reason}")
    if approval.state not in UNCERTAIN:
        raise AlreadyDecided(f"approval {approval_id} is {approval.state}: whether it happened is not in doubt")
    settled = _settle(conn, approval, happened, now, note and escape_unstorable(note), person)
    if all(other.state not in UNCERTAIN for other in others):
        # Each settlement follows an attempt of its own, so the key is new each time.
        key = f"resume:{approval.run_id}:{approval.round}:{approval_id}:{approval.attempts}"
        enqueue("resume_run", key, {"run_id": approval.run_id}, now)(conn)
    return settled


@operation
def take_settlements(conn: Connection, run_id: str, round_: int) -> bool:
    """Takes what people have settled since the run last went on, so that it goes on once for each settlement.

    Args:
        conn: The connection, within a transaction.
        run_id: The run.
        round_: The round that it last stopped for.

    Returns:
        Whether there is a settlement that the run has not gone on with, and no uncertain action left.
    """
    of_round = (approvals.c.run_id == run_id, approvals.c.round == round_)
    locked = _load_locked(conn, *of_round)
    if any(approval.state in UNCERTAIN for approval in locked):
        return False
    taken = update(approvals).where(*of_round, approvals.c.settlement_open).values(settlement_open=False)
    return conn.execute(taken).rowcount > 0


@operation
def reconcile_uncertain(conn: Connection, approval_id: str, happened: bool, now: datetime) -> None:
    """Records what a tool's `reconcile` says about an uncertain action; changes nothing if it is not uncertain.

    Args:
        conn: The connection, within a transaction.
        approval_id: The whole id.
        happened: Whether the action took place. If not, it may be executed again.
        now: The time.
    """
    [approval] = _load_locked(conn, approvals.c.approval_id == approval_id)
    if approval.state in UNCERTAIN:
        _settle(conn, approval, happened, now, f"reconcile: it {'happened' if happened else 'did not happen'}", None)


def _settle(
    conn: Connection, approval: Approval, happened: bool, now: datetime, reason: str | None, person: str | None
) -> Approval:
    settled: dict[str, Any] = {
        "executing_until": None,
        "result": None,
        "reason": reason,
        "happened": happened,
        "settled_by": person,
        "settled_at": now,
    }
    transition: Transition = "confirm" if happened else "retry"
    _transition(conn, approval.approval_id, transition, settlement_open=person is not None, **settled)
    return replace(approval, state="executed" if happened else "approved", **settled)


@operation
def withdraw(conn: Connection, run_id: str) -> int:
    """Withdraws a run's approvals that are pending, or approved and not begun; returns how many there were."""
    locked = _load_locked(conn, approvals.c.run_id == run_id)
    return sum(_transition(conn, approval.approval_id, "withdraw") for approval in locked)


@operation
def withdraw_unexecuted(conn: Connection, approval_id: str, reason: str) -> bool:
    """Withdraws one approval whose action may not be executed as it was approved; returns whether it was open.

    Args:
        conn: The connection, within a transaction.
        approval_id: The whole id.
        reason: Why it is not executed, for people.
    """
    return _transition(conn, approval_id, "withdraw", reason=escape_unstorable(reason))


@operation
def erase_approvals(conn: Connection, run_ids: Sequence[str]) -> int:
    """Erases from runs' approvals what was to be done and what came of it, and returns how many there were.

    Who decided what, and when, is kept. Approvals that are open or uncertain are withdrawn.
    """
    locked = _load_locked(conn, approvals.c.run_id.in_(run_ids))
    for approval in locked:
        _transition(conn, approval.approval_id, "withdraw")
        _transition(conn, approval.approval_id, "abandon")
    erased: dict[str, Any] = {"arguments": {}, "note": None, "result": None, "reason": None}
    conn.execute(update(approvals).where(approvals.c.run_id.in_(run_ids)).values(erased))
    return len(locked)


@operation
def begin(conn: Connection, approval_id: str, digest: str, now: datetime) -> BeginResult:
    """Begins the execution of an approved call, which one caller only may do.

    Args:
        conn: The connection, within a transaction.
        approval_id: The whole id.
        digest: The digest of the call to be executed.
        now: The time; the execution counts as under way for EXECUTION_LEASE from then on.

    Returns:
        Whether this caller may execute it now, and if not, why.

    Raises:
        NotFound: If there is no such approval.
        StillExecuting: While another execution is under way.
    """
    locked = _load_locked(conn, approvals.c.approval_id == approval_id)
    if not locked:
        raise _not_found(approval_id)
    transition, result = begin_execution(locked[0], digest, now)
    if transition is not None:
        attempts = locked[0].attempts + (transition in ("begin", "begin_again"))
        _transition(conn, approval_id, transition, executing_until=now + EXECUTION_LEASE, attempts=attempts)
    return result


@operation
def renew_execution(conn: Connection, approval_id: str, until: datetime) -> bool:
    """Lets an execution count as under way until then; returns whether it still was."""
    executing = (approvals.c.approval_id == approval_id, approvals.c.state == "executing")
    return conn.execute(update(approvals).where(*executing).values(executing_until=until)).rowcount == 1


def complete(approval_id: str, result: Any) -> Operation[bool]:
    """Stores what the executed action returned; the operation returns whether it was still under way."""
    return _end_execution(approval_id, "complete", pack(result))


def fail(approval_id: str, error: str) -> Operation[bool]:
    """Records that the tool raised; the operation returns whether the action was still under way.

    It is not executed again, and may have happened: a refund that timed out may have been paid.
    """
    return _end_execution(approval_id, "fail", pack(error))


@operation
def decline(conn: Connection, approval_id: str, reason: str) -> bool:
    """Records that the tool did not act, and why; the operation returns whether it was still under way."""
    return _transition(conn, approval_id, "decline", reason=escape_unstorable(reason))


@operation
def _end_execution(conn: Connection, approval_id: str, transition: Transition, result: Any) -> bool:
    return _transition(conn, approval_id, transition, result=result)


@operation
def recover(conn: Connection, run_id: str, now: datetime) -> list[Approval]:
    """Ends the executions of a run that was taken over from a process that is gone; returns the run's approvals.

    Idempotent actions may begin again, others are `unknown_after_crash`.
    """
    return [_recover(conn, approval, now) for approval in _load_locked(conn, approvals.c.run_id == run_id)]


def _load_round(conn: Connection, approval_id: str) -> tuple[Approval, list[Approval]]:
    """An approval and the others of its round, all locked, so that of two last decisions one knows of the other."""
    query = select(approvals.c.run_id, approvals.c.round).where(approvals.c.approval_id == approval_id)
    row = conn.execute(query).one_or_none()
    if row is None:
        raise _not_found(approval_id)
    locked = _load_locked(conn, approvals.c.run_id == row.run_id, approvals.c.round == row.round)
    [approval] = [member for member in locked if member.approval_id == approval_id]
    return approval, [member for member in locked if member.approval_id != approval_id]


def _resume_when_settled(conn: Connection, approval: Approval, others: Sequence[Approval], now: datetime) -> None:
    if all(other.state != "pending" for other in others):
        key = f"resume:{approval.run_id}:{approval.round}"
        enqueue("resume_run", key, {"run_id": approval.run_id}, now)(conn)


def _recover(conn: Connection, approval: Approval, now: datetime) -> Approval:
    transition = recovery_transition(approval)
    if transition is None:
        return approval
    # A process that only lost its run may still execute: when its lease on the action ends is kept for `reconcile`.
    until = approval.executing_until if transition == "lose_track" else now
    _transition(conn, approval.approval_id, transition, executing_until=until)
    return replace(approval, state=TRANSITIONS[transition][1], executing_until=until)


def _load_locked(conn: Connection, *conditions: ColumnElement[bool]) -> list[Approval]:
    query = select(approvals).where(*conditions).order_by(approvals.c.approval_id).with_for_update()
    return [from_row(Approval, row) for row in conn.execute(query)]


def _transition(conn: Connection, approval_id: str, transition: Transition, **values: Any) -> bool:
    """Changes an approval's state; returns False, and changes nothing, if it was not in the starting state."""
    before, after = TRANSITIONS[transition]
    starting = (approvals.c.approval_id == approval_id, approvals.c.state.in_(sorted(before)))
    return conn.execute(update(approvals).where(*starting).values(state=after, **values)).rowcount == 1


def _not_found(approval_id: str) -> NotFound:
    return NotFound(f"no approval {approval_id}; {LIST_HINT}")
