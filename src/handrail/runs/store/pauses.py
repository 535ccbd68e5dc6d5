"""Runs that stopped to wait for people, stored so that any process can resume them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from sqlalchemy import Connection, select, update

from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.serialization import PackedJson, as_json, pack
from handrail.review.approvals.store import take_settlements
from handrail.runs.errors import NotResumable

from .queries import RunView, load_run
from .runs import LEASE, Claim
from .tables import pauses, runs

_WAITING = ("awaiting_approval", "interrupted")
_STOPPED = ("escalated", "failed")
"""How a run ends whose action is uncertain; `failed` if a bug in the tool is the reason."""


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A run as it stopped to wait.

    Attributes:
        round: How many times it has stopped, this one included.
        messages: All its messages, the conversation before it included.
        new_from: The index of the first message of its own.
        root_span_id: The span that the resumed run's spans belong below.
        tools: The names of the tools that it has called.
        retries_used: How many times malformed output was retried, or has to be once the run goes on.
        retry_instruction: The stricter instruction of the request that it goes on with; empty if that is no retry.
        deps_handed_over: Whether its deps were the caller's, rather than made by the agent's factory.
    """

    round: int
    messages: Sequence[ModelMessage]
    new_from: int
    root_span_id: str
    tools: Sequence[str]
    retries_used: int
    retry_instruction: str
    deps_handed_over: bool


def store_pause(run_id: str, pause: Pause) -> Operation[None]:
    """Stores what resuming the run needs."""
    return _store_pause(run_id, pause.round, pack({field.name: getattr(pause, field.name) for field in fields(pause)}))


@operation
def _store_pause(conn: Connection, run_id: str, round_: int, body: PackedJson) -> None:
    conn.execute(pauses.insert(), {"run_id": run_id, "round": round_, "body": body})


@operation
def claim_paused_run(conn: Connection, run_id: str, now: datetime) -> tuple[RunView, Pause, Claim]:
    """Claims a paused run for this process, which has to renew its lease from then on.

    A run whose process has let its lease expire is taken over: nothing which that process writes of the run counts any
    more. A run that has ended because an action was uncertain is claimed again once people have settled all of them.

    Args:
        conn: The connection, within a transaction.
        run_id: The run.
        now: The time.

    Returns:
        The run as it stood before, where it stopped, and the new claim.

    Raises:
        NotFound: If there is no such run.
        NotResumable: If the run does not wait for people.
    """
    # Locked first, so that of two processes that claim the same run the second sees the first one's claim.
    claims = conn.execute(select(runs.c.claims).where(runs.c.run_id == run_id).with_for_update()).scalar() or 0
    view = load_run(run_id, now)(conn)
    pause = load_pause(run_id)(conn)
    settled = view.status in _STOPPED and pause is not None and take_settlements(run_id, pause.round)(conn)
    if pause is None or not (view.status in _WAITING or settled):
        raise NotResumable(f"run {run_id} is {view.status} and waits for nobody; see `handrail runs show {run_id}`")
    resumed = {"outcome": None, "path": None, "fault": None, "ended_at": None, "lease_until": now + LEASE}
    conn.execute(update(runs).where(runs.c.run_id == run_id).values(claims=claims + 1, **resumed))
    return view, pause, Claim(run_id, claims + 1)


@operation
def load_pause(conn: Connection, run_id: str) -> Pause | None:
    """Where a run last stopped to wait; None if it never did."""
    query = select(pauses.c.body).where(pauses.c.run_id == run_id).order_by(pauses.c.round.desc()).limit(1)
    body = conn.execute(query).scalar()
    if body is None:
        return None
    messages = ModelMessagesTypeAdapter.validate_json(as_json(body.pop("messages")))
    return Pause(messages=messages, **body)
