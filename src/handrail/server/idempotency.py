"""Answers kept for who asks again: the same Idempotency-Key and request get the same answer, and one run.

A request that is under way keeps a lease. Where its process dies the lease runs out, and the next request with the
key begins anew: the run before counts as interrupted, and did nothing irreversible without an approval of its own.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    delete,
    select,
    update,
)

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import BadInput
from handrail.kernel.serialization import pack, unpack

from .errors import KeyReused, StillRunning

replays = Table(
    "replays",
    metadata,
    Column("owner", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("request_hash", String, nullable=False),
    Column("begun_ns", BigInteger, nullable=False),
    Column("lease_until_ns", BigInteger, nullable=False),
    Column("status", Integer),
    Column("body", LargeBinary),
    Index("ix_replays_begun_ns", "begun_ns"),
)

KEPT = timedelta(hours=24)
LEASE = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was answered: a status and a JSON document."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that may come again; `owner` is whose key it is: an API key's id, or the operator."""

    owner: str
    key: str
    request_hash: str


def asked(owner: str, key: str, request: dict[str, Any]) -> Asked:
    """A request as it is told from others. Raises BadInput for a key that is none."""
    if not key.isprintable() or not 1 <= len(key) <= 255:
        raise BadInput("Idempotency-Key: expected 1 to 255 printable characters, such as a UUID")
    text = json.dumps(request, sort_keys=True)
    return Asked(owner=owner, key=key, request_hash=hashlib.sha256(text.encode()).hexdigest())


def begin(request: Asked, now: datetime) -> Callable[[Connection], Answer | None]:
    """An op that takes the key for this request, or gives the answer that it got before.

    It raises KeyReused for another request's key, and StillRunning while the first is under way.
    """
    place = (replays.c.owner == request.owner, replays.c.key == request.key)
    row = {
        "owner": request.owner,
        "key": request.key,
        "request_hash": request.request_hash,
        "begun_ns": unix_ns(now),
        "lease_until_ns": unix_ns(now + LEASE),
    }

    def op(conn: Connection) -> Answer | None:
        conn.execute(delete(replays).where(replays.c.begun_ns < unix_ns(now - KEPT)))
        if insert_new(conn, replays, row):
            return None
        found = conn.execute(select(replays).where(*place).with_for_update()).one_or_none()
        if found is None:
            # The first request gave the key back between these two statements.
            raise StillRunning(f"the first request with Idempotency-Key {request.key!r} has just failed; ask again")
        if found.request_hash != request.request_hash:
            raise KeyReused(f"Idempotency-Key {request.key!r} came with another request before; take a new one")
        if found.status is not None:
            return Answer(status=found.status, body=unpack(found.body))
        if found.lease_until_ns > unix_ns(now):
            raise StillRunning(f"the first request with Idempotency-Key {request.key!r} is under way; ask again")
        conn.execute(update(replays).where(*place).values(row))
        return None

    return op


def renew(request: Asked, now: datetime) -> Callable[[Connection], None]:
    """An op that keeps the request under way."""
    return _change(request, lease_until_ns=unix_ns(now + LEASE))


def finish(request: Asked, answer: Answer) -> Callable[[Connection], None]:
    """An op that keeps the answer."""
    return _change(request, status=answer.status, body=pack(answer.body))


def forget(request: Asked) -> Callable[[Connection], None]:
    """An op that gives the key back: the request was not answered, and may be tried again at once."""

    def op(conn: Connection) -> None:
        conn.execute(delete(replays).where(replays.c.owner == request.owner, replays.c.key == request.key))

    return op


def _change(request: Asked, **values: Any) -> Callable[[Connection], None]:
    changed = update(replays).where(replays.c.owner == request.owner, replays.c.key == request.key).values(**values)

    def op(conn: Connection) -> None:
        conn.execute(changed)

    return op
