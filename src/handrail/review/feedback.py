"""Feedback on runs: whether the outcome was right, and what was expected.

Feedback is appended, so that a person may change their mind: a run's newest counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Index, String, Table, Text, delete, select, tuple_, update

from handrail.kernel.db.columns import Packed, Timestamp
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.queries import insert_row
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.serialization import escape_unstorable

feedback_table = Table(
    "feedback",
    metadata,
    Column("feedback_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("is_right", Boolean, nullable=False, key="right"),
    Column("expected", Packed),
    Column("note", Text),
    Column("given_by", String, nullable=False, key="by"),
    Column("given_at", Timestamp, nullable=False, key="at"),
    Column("case_id", String),
    Index("ix_feedback_run_id", "run_id"),
    Index("ix_feedback_tenant_given_at", "tenant", "at"),
)
_NEWEST_FIRST = select(feedback_table).order_by(feedback_table.c.at.desc(), feedback_table.c.feedback_id.desc())


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What a person thinks of a run's outcome.

    Attributes:
        feedback_id: Unique, and in the order of time.
        run_id: The run.
        tenant: The run's tenant.
        right: Whether the outcome was right.
        expected: The fields that the outcome should have had, as JSON.
        note: A remark.
        by: Who gave it.
        at: When.
        case_id: The case of an eval set that was made of it.
    """

    feedback_id: str
    run_id: str
    tenant: str
    right: bool
    expected: Mapping[str, Any] | None
    note: str | None
    by: str
    at: datetime
    case_id: str | None = None


def add_feedback(feedback: Feedback) -> Operation[None]:
    """Appends feedback."""
    note = feedback.note and escape_unstorable(feedback.note)
    return insert_row(feedback_table, to_row(feedback, feedback_table, note=note))


@operation
def mark_used_in_case(conn: Connection, feedback_id: str, case_id: str) -> None:
    """Records the case that was made of feedback.

    Raises:
        NotFound: If there is no such feedback.
    """
    of_id = feedback_table.c.feedback_id == feedback_id
    if conn.execute(update(feedback_table).where(of_id).values(case_id=case_id)).rowcount == 0:
        raise _not_found(feedback_id)


@operation
def erase_feedback(conn: Connection, run_ids: Sequence[str]) -> int:
    """Deletes the feedback on some runs, and returns how much there was."""
    return conn.execute(delete(feedback_table).where(feedback_table.c.run_id.in_(run_ids))).rowcount


@operation
def load_feedback(conn: Connection, run_id: str) -> list[Feedback]:
    """The feedback on a run, the newest first: that one counts."""
    return [from_row(Feedback, row) for row in conn.execute(_NEWEST_FIRST.where(feedback_table.c.run_id == run_id))]


@operation
def list_feedback(conn: Connection, *, tenant: str | None, limit: int, before: str | None) -> list[Feedback]:
    """Feedback, the newest first.

    Args:
        conn: The connection to read with.
        tenant: On whose runs; None for those of every tenant.
        limit: The most to return.
        before: The id of the last feedback of the page before; None for the first page.

    Raises:
        NotFound: If there is no feedback `before`.
    """
    query = _NEWEST_FIRST.limit(limit)
    if tenant is not None:
        query = query.where(feedback_table.c.tenant == tenant)
    if before is not None:
        at = conn.execute(select(feedback_table.c.at).where(feedback_table.c.feedback_id == before)).scalar()
        if at is None:
            raise _not_found(before)
        query = query.where(tuple_(feedback_table.c.at, feedback_table.c.feedback_id) < (at, before))
    return [from_row(Feedback, row) for row in conn.execute(query)]


def _not_found(feedback_id: str) -> NotFound:
    return NotFound(f"no feedback {feedback_id}; `list_feedback` returns what there is")
