"""Idempotent requests: the same Idempotency-Key and request get the same response, and start one run.

A request in progress renews a lease. If its process dies, the lease expires, and the next request with the key starts a
new run. The earlier run counts as interrupted, and has executed no irreversible action without an approval of its own.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Index, Integer, String, Table, delete, select, update

from handrail.kernel.db.columns import Packed, Timestamp
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import BadInput
from handrail.kernel.serialization import PackedJson, pack

from .errors import KeyReused, StillRunning

idempotent_requests = Table(
    "idempotent_requests",
    metadata,
    Column("owner", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("request_hash", String, nullable=False),
    Column("begun_at", Timestamp, nullable=False),
    Column("lease_until", Timestamp, nullable=False),
    Column("status", Integer),
    Column("body", Packed),
    Index("ix_idempotent_requests_begun_at", "begun_at"),
)

RETENTION = timedelta(hours=24)
"""How long a key is reserved and its response kept."""
LEASE = timedelta(seconds=30)
"""How long a request counts as in progress without being renewed."""


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """A response: a status and a JSON document."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class IdempotentRequest:
    """A request with a key. `owner` is who the key belongs to: an API key's id, or the operator."""

    owner: str
    key: str
    request_hash: str


def idempotent_request(owner: str, key: str, request: dict[str, Any]) -> IdempotentRequest:
    """The identity of a request.

    Args:
        owner: An API key's id, or the operator.
        key: The value of the header Idempotency-Key.
        request: Everything that distinguishes the request from others, as JSON.

    Raises:
        BadInput: If the key is not 1 to 255 printable characters.
    """
    if not key.isprintable() or not 1 <= len(key) <= 255:
        raise BadInput("Idempotency-Key: expected 1 to 255 printable characters, such as a UUID")
    text = json.dumps(request, sort_keys=True)
    return IdempotentRequest(owner=owner, key=key, request_hash=hashlib.sha256(text.encode()).hexdigest())


@operation
def claim_key(conn: Connection, request: IdempotentRequest, now: datetime) -> StoredResponse | None:
    """Takes the key for this request.

    Returns:
        None if the request has to be handled now, otherwise the response to the first request.

    Raises:
        KeyReused: If the key belongs to a different request.
        StillRunning: While the first request with the key is in progress.
    """
    conn.execute(delete(idempotent_requests).where(idempotent_requests.c.begun_at < now - RETENTION))
    row = to_row(request, idempotent_requests, begun_at=now, lease_until=now + LEASE)
    if insert_new(conn, idempotent_requests, row):
        return None
    query = select(idempotent_requests).where(*_has_key(request)).with_for_update()
    first = conn.execute(query).one_or_none()
    if first is None:
        # The first request released the key between these two statements.
        raise StillRunning(f"the first request with Idempotency-Key {request.key!r} has just failed; send it again")
    if first.request_hash != request.request_hash:
        raise KeyReused(f"Idempotency-Key {request.key!r} was sent with another request before; use a new key")
    if first.status is not None:
        return from_row(StoredResponse, first)
    if first.lease_until > now:
        raise StillRunning(
            f"the first request with Idempotency-Key {request.key!r} is in progress; send it again later"
        )
    conn.execute(update(idempotent_requests).where(*_has_key(request)).values(row))
    return None


@operation
def renew_request_lease(conn: Connection, request: IdempotentRequest, now: datetime) -> None:
    """Renews the lease of a request in progress."""
    conn.execute(update(idempotent_requests).where(*_has_key(request)).values(lease_until=now + LEASE))


def store_response(request: IdempotentRequest, response: StoredResponse) -> Operation[None]:
    """Stores the response, for later requests with the key."""
    return _store_response(request, response.status, pack(response.body))


@operation
def _store_response(conn: Connection, request: IdempotentRequest, status: int, body: PackedJson) -> None:
    conn.execute(update(idempotent_requests).where(*_has_key(request)).values(status=status, body=body))


@operation
def release_key(conn: Connection, request: IdempotentRequest) -> None:
    """Releases the key: the request got no response, and may be sent again at once."""
    conn.execute(delete(idempotent_requests).where(*_has_key(request)))


def _has_key(request: IdempotentRequest) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return idempotent_requests.c.owner == request.owner, idempotent_requests.c.key == request.key
