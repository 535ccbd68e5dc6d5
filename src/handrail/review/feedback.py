"""What people say of a run afterwards: right or wrong, and what it should have been. Verdicts are appended, so that a
person may change their mind: a run's newest counts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    delete,
    select,
    tuple_,
    update,
)

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.serialization import pack, storable, unpack

verdicts = Table(
    "verdicts",
    metadata,
    Column("verdict_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("is_right", Boolean, nullable=False),
    Column("should", LargeBinary),
    Column("note", Text),
    Column("given_by", String, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("case_id", String),
    Index("ix_verdicts_run_id", "run_id"),
    Index("ix_verdicts_tenant_at_ns", "tenant", "at_ns"),
)
_NEWEST_FIRST = select(verdicts).order_by(verdicts.c.at_ns.desc(), verdicts.c.verdict_id.desc())


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a person says of a run's outcome. `should` holds the fields it should have had, as JSON; `case_id` names the
    case of an eval set that the verdict went into."""

    verdict_id: str
    run_id: str
    tenant: str
    right: bool
    should: Mapping[str, Any] | None
    note: str | None
    by: str
    at: datetime
    case_id: str | None = None


def give_verdict(verdict: Verdict) -> Callable[[Connection], None]:
    """An op that appends a verdict."""
    row = {
        "verdict_id": verdict.verdict_id,
        "run_id": verdict.run_id,
        "tenant": verdict.tenant,
        "is_right": verdict.right,
        "should": None if verdict.should is None else pack(verdict.should),
        "note": verdict.note and storable(verdict.note),
        "given_by": verdict.by,
        "at_ns": unix_ns(verdict.at),
        "case_id": verdict.case_id,
    }

    def op(conn: Connection) -> None:
        conn.execute(verdicts.insert(), row)

    return op


def used_in_case(verdict_id: str, case_id: str) -> Callable[[Connection], None]:
    """An op that notes the case which a verdict went into. It raises NotFound."""

    def op(conn: Connection) -> None:
        changed = conn.execute(update(verdicts).where(verdicts.c.verdict_id == verdict_id).values(case_id=case_id))
        if changed.rowcount == 0:
            raise _no_verdict(verdict_id)

    return op


def forget_verdicts(run_ids: Sequence[str]) -> Callable[[Connection], int]:
    """An op that removes the verdicts on some runs, and says how many there were."""
    return lambda conn: conn.execute(delete(verdicts).where(verdicts.c.run_id.in_(run_ids))).rowcount


def verdicts_of(conn: Connection, run_id: str) -> list[Verdict]:
    """A run's verdicts, the newest first: that one counts."""
    return [_verdict(row) for row in conn.execute(_NEWEST_FIRST.where(verdicts.c.run_id == run_id))]


def list_verdicts(conn: Connection, *, tenant: str | None, limit: int, before: str | None) -> list[Verdict]:
    """The newest verdicts first; `before` is the id of the last verdict of the page before. Raises NotFound."""
    query = _NEWEST_FIRST.limit(limit)
    if tenant is not None:
        query = query.where(verdicts.c.tenant == tenant)
    if before is not None:
        at_ns = conn.execute(select(verdicts.c.at_ns).where(verdicts.c.verdict_id == before)).scalar()
        if at_ns is None:
            raise _no_verdict(before)
        query = query.where(tuple_(verdicts.c.at_ns, verdicts.c.verdict_id) < tuple_(at_ns, before))
    return [_verdict(row) for row in conn.execute(query)]


def _no_verdict(verdict_id: str) -> NotFound:
    return NotFound(f"no verdict {verdict_id}; `list_verdicts` gives those there are")


def _verdict(row: Row[Any]) -> Verdict:
    return Verdict(
        verdict_id=row.verdict_id,
        run_id=row.run_id,
        tenant=row.tenant,
        right=row.is_right,
        should=None if row.should is None else unpack(row.should),
        note=row.note,
        by=row.given_by,
        at=from_unix_ns(row.at_ns),
        case_id=row.case_id,
    )
