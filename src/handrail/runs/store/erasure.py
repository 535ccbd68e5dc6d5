"""Takes a user's runs out of the store, with all that was said in them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from handrail.kernel.clock import unix_ns

from .pauses import pauses
from .runs import messages, outcomes, prompts, run_inputs, runs


@dataclass(frozen=True)
class UserRuns:
    """One user's runs: those that may go, oldest first, and how many are under way and may not yet."""

    ended: Sequence[str]
    under_way: int


def runs_of_user(conn: Connection, tenant: str, user: str, now: datetime) -> UserRuns:
    """Every run of a user; one that waits for people counts as ended, one whose process is gone too."""
    mine = (runs.c.tenant == tenant, runs.c.user_id == user)
    ended = conn.execute(select(runs.c.run_id).where(*mine, ~_under_way(now)).order_by(runs.c.run_id)).scalars().all()
    going = conn.execute(select(func.count()).select_from(runs).where(*mine, _under_way(now))).scalar_one()
    return UserRuns(ended, going)


def forget_runs(run_ids: Sequence[str], now: datetime) -> Callable[[Connection], Mapping[str, int]]:
    """An op that removes runs, what they were asked and answered, and the prompts that only they were given.

    It gives how many rows went, by table. A run that is under way by now stays whole.
    """
    still = select(runs.c.run_id, runs.c.rendered_hash).where(runs.c.run_id.in_(run_ids), ~_under_way(now))
    locked = still.order_by(runs.c.run_id).with_for_update()

    def op(conn: Connection) -> Mapping[str, int]:
        found = conn.execute(locked).all()
        ids, rendered = [row.run_id for row in found], sorted({row.rendered_hash for row in found} - {None})
        tables = (run_inputs, outcomes, messages, pauses, runs)
        gone = {table.name: conn.execute(delete(table).where(table.c.run_id.in_(ids))).rowcount for table in tables}
        return {**gone, "prompts": _forget_prompts(conn, rendered)}

    return op


def _under_way(now: datetime) -> ColumnElement[bool]:
    return and_(runs.c.outcome.is_(None), runs.c.lease_until_ns > unix_ns(now))


def _forget_prompts(conn: Connection, hashes: Sequence[str]) -> int:
    """Removes the texts that no run was given any more; one may name the user in its instructions."""
    rendered = select(runs.c.rendered_hash).where(runs.c.rendered_hash.in_(hashes))
    kept = rendered.union(select(runs.c.template_hash).where(runs.c.template_hash.in_(hashes)))
    return conn.execute(delete(prompts).where(prompts.c.hash.in_(hashes), prompts.c.hash.not_in(kept))).rowcount
