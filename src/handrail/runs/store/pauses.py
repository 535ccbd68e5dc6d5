"""The table of runs that stopped to wait for people: what carries them on, in this process or another."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from sqlalchemy import Column, Connection, Integer, LargeBinary, String, Table, select, update

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.schema import metadata
from handrail.kernel.serialization import as_json, pack, unpack
from handrail.runs.errors import NotResumable

from .runs import LEASE, Claim, RunView, load_run, runs

pauses = Table(
    "pauses",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A run as it stopped for the `round`-th time: all its messages, those from `new_from` on being its own."""

    round: int
    messages: Sequence[ModelMessage]
    new_from: int
    root_span_id: str
    tools: Sequence[str]
    retries_used: int
    deps_handed_over: bool
    """Whether its deps were the caller's, and not made by the agent's factory."""


def keep_pause(run_id: str, pause: Pause) -> Callable[[Connection], None]:
    """An op that keeps what carries the run on."""
    found = {**asdict(pause), "messages": list(pause.messages)}
    row = {"run_id": run_id, "round": pause.round, "body": pack(found)}

    def op(conn: Connection) -> None:
        conn.execute(pauses.insert(), row)

    return op


def take(run_id: str, now: datetime) -> Callable[[Connection], tuple[RunView, Pause, Claim]]:
    """An op that takes a paused run for this process, which keeps its lease from then on.

    A run that another process had taken, and whose lease is over, is taken from it: nothing that process writes of the
    run counts any more. The op raises NotFound and NotResumable.
    """
    lease_ns = unix_ns(now + LEASE)

    def op(conn: Connection) -> tuple[RunView, Pause, Claim]:
        claims = conn.execute(select(runs.c.claims).where(runs.c.run_id == run_id).with_for_update()).scalar() or 0
        view = load_run(conn, run_id, now)
        pause = last_pause(conn, run_id)
        if pause is None or view.status not in ("awaiting_approval", "interrupted"):
            raise NotResumable(f"run {run_id} is {view.status} and waits for nobody; see `handrail runs show {run_id}`")
        taken = {"outcome": None, "path": None, "fault": None, "ended_ns": None, "lease_until_ns": lease_ns}
        conn.execute(update(runs).where(runs.c.run_id == run_id).values(claims=claims + 1, **taken))
        return view, pause, Claim(run_id, claims + 1)

    return op


def last_pause(conn: Connection, run_id: str) -> Pause | None:
    """What carries the run on from where it last stopped; None where it never did."""
    query = select(pauses).where(pauses.c.run_id == run_id).order_by(pauses.c.round.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    if row is None:
        return None
    found = unpack(row.body)
    messages = ModelMessagesTypeAdapter.validate_json(as_json(found.pop("messages")))
    return Pause(messages=messages, **found)
