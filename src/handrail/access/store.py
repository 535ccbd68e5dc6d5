"""The tables behind authentication: dashboard users, their sessions, API keys, failed logins.

Secrets are stored as hashes only.
"""

from datetime import datetime, timedelta

from sqlalchemy import Column, Connection, Index, Integer, String, Table, delete, select, update

from handrail.kernel.db.columns import Json, Timestamp
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.operation import operation
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import BadInput, NotFound

from .api_keys import ApiKey
from .errors import TooManyLoginAttempts
from .login_throttle import FORGET_AFTER, Subject, count_failure, next_attempt_at
from .users import SESSION_LIFETIME, DashboardUser, Session, hash_token

dashboard_users = Table(
    "dashboard_users",
    metadata,
    Column("name", String, primary_key=True),
    Column("tenant", String),
    Column("password_hash", String, nullable=False),
    Column("added_at", Timestamp, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String, primary_key=True),
    Column("user_name", String, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Index("ix_sessions_user_name", "user_name"),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("tenant", String),
    Column("label", String, nullable=False),
    Column("scopes", Json, nullable=False),
    Column("hash", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("last_used_at", Timestamp),
    Column("revoked_at", Timestamp),
)
failed_logins = Table(
    "failed_logins",
    metadata,
    Column("subject", String, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Timestamp, nullable=False),
)

_TOUCH_INTERVAL = timedelta(minutes=1)
"""A key's last use is kept to the minute, so that a busy key does not cost a write for each request."""


@operation
def add_user(conn: Connection, user: DashboardUser, password_hash: str) -> None:
    """Adds a dashboard user.

    Raises:
        BadInput: If the name is taken.
    """
    if not insert_new(conn, dashboard_users, to_row(user, dashboard_users, password_hash=password_hash)):
        raise BadInput(f"there is already a user {user.name!r}; remove the user first to set a new password")


@operation
def remove_user(conn: Connection, name: str) -> None:
    """Removes a dashboard user and ends their sessions.

    Raises:
        NotFound: If there is no such user.
    """
    if conn.execute(delete(dashboard_users).where(dashboard_users.c.name == name)).rowcount == 0:
        raise NotFound(f"there is no user {name!r}; `handrail users list` lists the users")
    conn.execute(delete(sessions).where(sessions.c.user_name == name))


@operation
def list_users(conn: Connection) -> list[DashboardUser]:
    """Every dashboard user, by name."""
    return [from_row(DashboardUser, row) for row in conn.execute(select(dashboard_users).order_by("name"))]


@operation
def load_user(conn: Connection, name: str) -> tuple[DashboardUser, str] | None:
    """A user and the hash of their password; None if there is no user of that name."""
    row = conn.execute(select(dashboard_users).where(dashboard_users.c.name == name)).one_or_none()
    return None if row is None else (from_row(DashboardUser, row), row.password_hash)


@operation
def record_login_attempt(conn: Connection, name: str, address: str, now: datetime) -> None:
    """Counts a login as failed before its password is checked, so that guesses sent in parallel all count.

    `clear_login_attempts` takes back what was counted for a login that succeeds.

    Args:
        conn: The connection, within a transaction.
        name: The name that was entered.
        address: Where the attempt came from.
        now: The current time.

    Raises:
        TooManyLoginAttempts: If it is too early for another attempt. This attempt is not counted.
    """
    subjects: list[tuple[Subject, str]] = [("address", f"address:{address}"), ("name", f"name:{name}")]
    allowed_at = max([_count_failure(conn, subject, key, now) for subject, key in subjects])
    if allowed_at > now:
        raise TooManyLoginAttempts(allowed_at)


@operation
def clear_login_attempts(conn: Connection, name: str, address: str, now: datetime) -> None:
    """Deletes a name's failed logins, subtracts one from its address's, and deletes all older than FORGET_AFTER.

    Args:
        conn: The connection, within a transaction.
        name: The name of the user who has logged in.
        address: Where the login came from.
        now: The current time.
    """
    counted_for_address = (failed_logins.c.subject == f"address:{address}", failed_logins.c.failures > 0)
    conn.execute(update(failed_logins).where(*counted_for_address).values(failures=failed_logins.c.failures - 1))
    conn.execute(delete(failed_logins).where(failed_logins.c.subject == f"name:{name}"))
    conn.execute(delete(failed_logins).where(failed_logins.c.last_at < now - FORGET_AFTER))


@operation
def open_session(conn: Connection, user_name: str, token: str, now: datetime) -> None:
    """Opens a session for a user, and deletes the sessions that have expired."""
    conn.execute(delete(sessions).where(sessions.c.expires_at <= now))
    row = {"token_hash": hash_token(token), "user_name": user_name, "expires_at": now + SESSION_LIFETIME}
    conn.execute(sessions.insert(), row)


@operation
def close_session(conn: Connection, token: str) -> None:
    """Ends a session, if there is one."""
    conn.execute(delete(sessions).where(sessions.c.token_hash == hash_token(token)))


@operation
def load_session(conn: Connection, token: str, now: datetime) -> Session | None:
    """The session with this token; None if there is none, or if it has expired."""
    query = (
        select(dashboard_users, sessions.c.expires_at)
        .join(sessions, sessions.c.user_name == dashboard_users.c.name)
        .where(sessions.c.token_hash == hash_token(token), sessions.c.expires_at > now)
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else Session(user=from_row(DashboardUser, row), expires_at=row.expires_at)


@operation
def add_key(conn: Connection, key: ApiKey) -> None:
    """Stores an API key, which is active from now on."""
    conn.execute(api_keys.insert(), to_row(key, api_keys))


@operation
def revoke_key(conn: Connection, key_id: str, now: datetime) -> None:
    """Revokes an API key, at once and in every process.

    Raises:
        NotFound: If there is no active key with this id.
    """
    is_active = (api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
    if conn.execute(update(api_keys).where(*is_active).values(revoked_at=now)).rowcount == 0:
        raise NotFound(f"there is no active key {key_id!r}; `handrail keys list` lists the keys")


@operation
def touch_key(conn: Connection, key_id: str, now: datetime) -> None:
    """Records when an API key was last used; see `touch_is_due`."""
    earlier = api_keys.c.last_used_at.is_(None) | (api_keys.c.last_used_at < now)
    conn.execute(update(api_keys).where(api_keys.c.key_id == key_id, earlier).values(last_used_at=now))


def touch_is_due(key: ApiKey, now: datetime) -> bool:
    """Whether the last use recorded for a key is at least a minute old."""
    return key.last_used_at is None or now - key.last_used_at >= _TOUCH_INTERVAL


@operation
def load_key(conn: Connection, key_id: str) -> ApiKey | None:
    """An API key by its public id, even if it is revoked; None if there is none."""
    row = conn.execute(select(api_keys).where(api_keys.c.key_id == key_id)).one_or_none()
    return None if row is None else from_row(ApiKey, row)


@operation
def list_keys(conn: Connection, tenant: str | None) -> list[ApiKey]:
    """API keys, including revoked ones, the newest first; of one tenant, or of all tenants if it is None."""
    query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.key_id)
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    return [from_row(ApiKey, row) for row in conn.execute(query)]


@operation
def has_credentials(conn: Connection) -> bool:
    """Whether there is a dashboard user or an active API key: without one, nobody could authenticate."""
    is_active = select(api_keys.c.key_id).where(api_keys.c.revoked_at.is_(None)).limit(1)
    return bool(conn.execute(select(dashboard_users.c.name).limit(1)).all() or conn.execute(is_active).all())


def _count_failure(conn: Connection, subject: Subject, key: str, now: datetime) -> datetime:
    """Counts one more failure unless an attempt is too early; returns when one is allowed, now at the earliest."""
    if insert_new(conn, failed_logins, {"subject": key, "failures": 1, "last_at": now}):
        return now
    row = conn.execute(select(failed_logins).where(failed_logins.c.subject == key).with_for_update()).one()
    allowed_at = next_attempt_at(subject, row.failures, row.last_at)
    if allowed_at > now:
        return allowed_at
    changed = {"failures": count_failure(row.failures, row.last_at, now), "last_at": now}
    conn.execute(update(failed_logins).where(failed_logins.c.subject == key).values(changed))
    return now
