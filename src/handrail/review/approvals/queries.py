"""Reading approvals, as they stand at a time: one that nobody decided in time is expired."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, case, or_, select, tuple_

from handrail.kernel.db.operation import operation
from handrail.kernel.db.queries import find_by_prefix
from handrail.kernel.db.rows import from_row

from .model import UNCERTAIN, Approval, StateFilter
from .state_machine import as_of
from .store import LIST_HINT, approvals


@operation
def list_approvals(
    conn: Connection,
    now: datetime,
    *,
    state: StateFilter | None,
    tenant: str | None,
    limit: int,
    before: str | None,
    hidden: Collection[str] = (),
) -> list[Approval]:
    """Approvals as they stand now, those that were proposed first first; of `open` ones those that are uncertain.

    Args:
        conn: The connection to read with.
        now: The time, which decides whether an approval has expired.
        state: Only those in this state, or in one of these states; None for all.
        tenant: Whose approvals; None for those of every tenant.
        limit: The most approvals to return.
        before: The id of the last approval of the page before; None for the first page.
        hidden: Tenants whose approvals are left out.

    Raises:
        NotFound: If there is no approval `before`.
    """
    position = [approvals.c.proposed_at, approvals.c.approval_id]
    rank = case((approvals.c.state.in_(sorted(UNCERTAIN)), 0), else_=1)
    query = select(approvals).order_by(*([rank] if state == "open" else []), *position).limit(limit)
    if state is not None:
        query = query.where(_in_state(state, now))
    if tenant is not None:
        query = query.where(approvals.c.tenant == tenant)
    if hidden:
        query = query.where(approvals.c.tenant.not_in(sorted(hidden)))
    if before is not None:
        last = load_approval(before, now)(conn)
        after = tuple_(*position) > (last.proposed_at, last.approval_id)
        if state == "open":
            # One that was settled since the page before was uncertain there: only a pending one was never begun.
            last_rank = 0 if last.attempts else 1
            after = or_(rank > last_rank, and_(rank == last_rank, after))
        query = query.where(after)
    return [as_of(from_row(Approval, row), now) for row in conn.execute(query)]


@operation
def load_approval(conn: Connection, approval_id: str, now: datetime, tenant: str | None = None) -> Approval:
    """One approval.

    Args:
        conn: The connection to read with.
        approval_id: Its id, or the beginning of it if no other approval's id begins with that.
        now: The time, which decides whether it has expired.
        tenant: Only an approval of this tenant is found; None for any.

    Raises:
        NotFound: If there is no such approval, or more than one.
    """
    query = select(approvals)
    if tenant is not None:
        query = query.where(approvals.c.tenant == tenant)
    row = find_by_prefix(conn, query, approvals.c.approval_id, approval_id, what="approval", hint=LIST_HINT)
    return as_of(from_row(Approval, row), now)


@operation
def load_approvals(conn: Connection, run_id: str, now: datetime) -> list[Approval]:
    """A run's approvals as they stand now, in the order they were proposed."""
    query = select(approvals).where(approvals.c.run_id == run_id)
    query = query.order_by(approvals.c.round, approvals.c.approval_id)
    return [as_of(from_row(Approval, row), now) for row in conn.execute(query)]


def _in_state(state: StateFilter, now: datetime) -> ColumnElement[bool]:
    """As `as_of` says, in SQL."""
    match state:
        case "pending":
            return (approvals.c.state == "pending") & (approvals.c.expires_at > now)
        case "expired":
            overdue = (approvals.c.state == "pending") & (approvals.c.expires_at <= now)
            return (approvals.c.state == "expired") | overdue
        case "uncertain":
            return approvals.c.state.in_(sorted(UNCERTAIN))
        case "open":
            return or_(_in_state("uncertain", now), _in_state("pending", now))
        case other:
            return approvals.c.state == other
