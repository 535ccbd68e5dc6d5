"""Erases a user's runs, with all that users, models and tools wrote in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from handrail.kernel.db.operation import operation

from .tables import messages, outcomes, pauses, prompts, run_inputs, runs


@dataclass(frozen=True)
class UserRuns:
    """A user's runs: the ids of those that may be erased, oldest first, and how many are still under way."""

    ended: Sequence[str]
    under_way: int


@operation
def runs_of_user(conn: Connection, tenant: str, user: str, now: datetime) -> UserRuns:
    """Every run of a user; one that waits for people counts as ended, and so does one whose process is gone."""
    theirs = (runs.c.tenant == tenant, runs.c.user == user)
    ended = conn.execute(select(runs.c.run_id).where(*theirs, ~_under_way(now)).order_by(runs.c.run_id)).scalars().all()
    count = conn.execute(select(func.count()).select_from(runs).where(*theirs, _under_way(now))).scalar_one()
    return UserRuns(ended, count)


@operation
def erase_runs(conn: Connection, run_ids: Sequence[str], now: datetime) -> Mapping[str, int]:
    """Deletes runs, their inputs, outcomes and messages, and the prompts that were rendered for them only.

    Args:
        conn: The connection, within a transaction.
        run_ids: The runs; one that is under way by now is left as it is.
        now: The time.

    Returns:
        How many rows were deleted, by table.
    """
    query = select(runs.c.run_id, runs.c.rendered_hash).where(runs.c.run_id.in_(run_ids), ~_under_way(now))
    rows = conn.execute(query.order_by(runs.c.run_id).with_for_update()).all()
    ids, rendered = [row.run_id for row in rows], sorted({row.rendered_hash for row in rows} - {None})
    tables = (run_inputs, outcomes, messages, pauses, runs)
    deleted = {table.name: conn.execute(delete(table).where(table.c.run_id.in_(ids))).rowcount for table in tables}
    return {**deleted, "prompts": _erase_prompts(conn, rendered)}


def _under_way(now: datetime) -> ColumnElement[bool]:
    return and_(runs.c.outcome.is_(None), runs.c.lease_until > now)


def _erase_prompts(conn: Connection, hashes: Sequence[str]) -> int:
    """Deletes the texts that no run refers to any more; a rendered prompt may name the user in its instructions."""
    rendered = select(runs.c.rendered_hash).where(runs.c.rendered_hash.in_(hashes))
    used = rendered.union(select(runs.c.template_hash).where(runs.c.template_hash.in_(hashes)))
    return conn.execute(delete(prompts).where(prompts.c.hash.in_(hashes), prompts.c.hash.not_in(used))).rowcount
