"""The tables of who may come in: people, sessions, keys, failed logins. No secret is in them, hashes only."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, Row, String, Table, Text, delete, select, update

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import BadInput, NotFound

from .api_keys import ApiKey
from .errors import TooManyTries
from .login_throttle import FORGOTTEN, Subject, counted, retry_at
from .users import SESSION, Person, Session, token_hash

people = Table(
    "people",
    metadata,
    Column("name", String, primary_key=True),
    Column("tenant", String),
    Column("password", String, nullable=False),
    Column("added_ns", BigInteger, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String, primary_key=True),
    Column("person", String, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Index("ix_sessions_person", "person"),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("tenant", String),
    Column("label", String, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("hash", String, nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("last_used_ns", BigInteger),
    Column("revoked_ns", BigInteger),
)
failed_logins = Table(
    "failed_logins",
    metadata,
    Column("subject", String, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
)

_TOUCH_NS = 60 * 10**9
"""A key's last use is kept to the minute, so that a busy key does not mean a write a request."""


def add_person(person: Person, password_hash: str) -> Callable[[Connection], None]:
    """An op that lets a person in from now on. It raises BadInput for a name that is taken."""
    row = {
        "name": person.name,
        "tenant": person.tenant,
        "password": password_hash,
        "added_ns": unix_ns(person.added_at),
    }

    def op(conn: Connection) -> None:
        if not insert_new(conn, people, row):
            raise BadInput(f"there is a person {person.name!r} already; remove them first to give a new password")

    return op


def remove_person(name: str) -> Callable[[Connection], None]:
    """An op that lets a person in no longer; their sessions end with it. It raises NotFound."""

    def op(conn: Connection) -> None:
        if conn.execute(delete(people).where(people.c.name == name)).rowcount == 0:
            raise NotFound(f"there is no person {name!r}; `handrail people list` shows who there is")
        conn.execute(delete(sessions).where(sessions.c.person == name))

    return op


def list_people(conn: Connection) -> list[Person]:
    """Everybody with a password, by name."""
    return [_person(row) for row in conn.execute(select(people).order_by(people.c.name))]


def load_person(conn: Connection, name: str) -> tuple[Person, str] | None:
    """A person and the hash of their password; None where there is nobody of that name."""
    row = conn.execute(select(people).where(people.c.name == name)).one_or_none()
    return None if row is None else (_person(row), row.password)


def try_login(name: str, address: str, now: datetime) -> Callable[[Connection], None]:
    """An op that counts a login as failed before its password is looked at, so that guesses sent at once all count.

    It raises TooManyTries, and then counts nothing. `end_tries` takes back what was counted for a login that succeeds.
    """
    subjects: list[tuple[Subject, str]] = [("address", f"address:{address}"), ("name", f"name:{name}")]

    def op(conn: Connection) -> None:
        waits = [_count_failure(conn, subject, key, now) for subject, key in subjects]
        if (wait := max(waits)) > now:
            raise TooManyTries(wait)

    return op


def end_tries(name: str, address: str, now: datetime) -> Callable[[Connection], None]:
    """An op that forgets the failed logins of a name, takes one back from an address, and drops what is long past."""
    long_past = unix_ns(now - FORGOTTEN)
    of_address = (failed_logins.c.subject == f"address:{address}", failed_logins.c.failures > 0)

    def op(conn: Connection) -> None:
        conn.execute(update(failed_logins).where(*of_address).values(failures=failed_logins.c.failures - 1))
        conn.execute(delete(failed_logins).where(failed_logins.c.subject == f"name:{name}"))
        conn.execute(delete(failed_logins).where(failed_logins.c.last_ns < long_past))

    return op


def open_session(person: str, token: str, now: datetime) -> Callable[[Connection], None]:
    """An op that logs a person in, and drops the sessions that are over."""
    row = {"token_hash": token_hash(token), "person": person, "expires_ns": unix_ns(now + SESSION)}

    def op(conn: Connection) -> None:
        conn.execute(delete(sessions).where(sessions.c.expires_ns <= unix_ns(now)))
        conn.execute(sessions.insert(), row)

    return op


def close_session(token: str) -> Callable[[Connection], None]:
    """An op that ends a session; one that is not there is none."""

    def op(conn: Connection) -> None:
        conn.execute(delete(sessions).where(sessions.c.token_hash == token_hash(token)))

    return op


def load_session(conn: Connection, token: str, now: datetime) -> Session | None:
    """The session of a token, unless it is over."""
    query = select(people, sessions.c.expires_ns).join(sessions, sessions.c.person == people.c.name)
    query = query.where(sessions.c.token_hash == token_hash(token), sessions.c.expires_ns > unix_ns(now))
    row = conn.execute(query).one_or_none()
    return None if row is None else Session(person=_person(row), expires_at=from_unix_ns(row.expires_ns))


def add_key(key: ApiKey) -> Callable[[Connection], None]:
    """An op that puts a key in force."""
    row = {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "label": key.label,
        "scopes": json.dumps(sorted(key.scopes)),
        "hash": key.hash,
        "made_ns": unix_ns(key.made_at),
    }

    def op(conn: Connection) -> None:
        conn.execute(api_keys.insert(), row)

    return op


def revoke_key(key_id: str, now: datetime) -> Callable[[Connection], None]:
    """An op after which a key opens nothing, at once and in every process. It raises NotFound."""

    def op(conn: Connection) -> None:
        in_force = (api_keys.c.key_id == key_id, api_keys.c.revoked_ns.is_(None))
        if conn.execute(update(api_keys).where(*in_force).values(revoked_ns=unix_ns(now))).rowcount == 0:
            raise NotFound(f"no key {key_id!r} is in force; `handrail keys list` shows those that are")

    return op


def touch_key(key_id: str, now: datetime) -> Callable[[Connection], None]:
    """An op that notes when a key was used last, to the minute."""
    unless_later = api_keys.c.last_used_ns.is_(None) | (api_keys.c.last_used_ns < unix_ns(now))
    touched = update(api_keys).where(api_keys.c.key_id == key_id, unless_later).values(last_used_ns=unix_ns(now))

    def op(conn: Connection) -> None:
        conn.execute(touched)

    return op


def touch_is_due(key: ApiKey, now: datetime) -> bool:
    """Whether a key's last use, as it is kept, is a minute old."""
    return key.last_used_at is None or unix_ns(now) - unix_ns(key.last_used_at) >= _TOUCH_NS


def load_key(conn: Connection, key_id: str) -> ApiKey | None:
    """A key by its public id, revoked ones too."""
    row = conn.execute(select(api_keys).where(api_keys.c.key_id == key_id)).one_or_none()
    return None if row is None else _key(row)


def list_keys(conn: Connection, tenant: str | None) -> list[ApiKey]:
    """The newest first; of one tenant, or of all where it is None. Revoked ones are among them."""
    query = select(api_keys).order_by(api_keys.c.made_ns.desc(), api_keys.c.key_id)
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    return [_key(row) for row in conn.execute(query)]


def anybody(conn: Connection) -> bool:
    """Whether a person or a key in force is there: else nobody could come in."""
    in_force = select(api_keys.c.key_id).where(api_keys.c.revoked_ns.is_(None)).limit(1)
    return bool(conn.execute(select(people.c.name).limit(1)).all() or conn.execute(in_force).all())


def _count_failure(conn: Connection, subject: Subject, key: str, now: datetime) -> datetime:
    """Counts one more failure, unless it is too early for a try; when a try is heard, now at the earliest."""
    if insert_new(conn, failed_logins, {"subject": key, "failures": 1, "last_ns": unix_ns(now)}):
        return now
    locked = select(failed_logins).where(failed_logins.c.subject == key).with_for_update()
    row = conn.execute(locked).one()
    last = from_unix_ns(row.last_ns)
    wait = retry_at(subject, row.failures, last)
    if wait > now:
        return wait
    changed = {"failures": counted(row.failures, last, now), "last_ns": unix_ns(now)}
    conn.execute(update(failed_logins).where(failed_logins.c.subject == key).values(changed))
    return now


def _person(row: Row[Any]) -> Person:
    return Person(name=row.name, tenant=row.tenant, added_at=from_unix_ns(row.added_ns))


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        tenant=row.tenant,
        label=row.label,
        scopes=frozenset(json.loads(row.scopes)),
        hash=row.hash,
        made_at=from_unix_ns(row.made_ns),
        last_used_at=None if row.last_used_ns is None else from_unix_ns(row.last_used_ns),
        revoked_at=None if row.revoked_ns is None else from_unix_ns(row.revoked_ns),
    )
