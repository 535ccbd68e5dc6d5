"""The store of dashboard users, sessions and API keys, on every engine."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from handrail.access.api_keys import ApiKey, new_key
from handrail.access.errors import TooManyLoginAttempts, WrongCredentials
from handrail.access.login import log_in, new_user
from handrail.access.login_throttle import FREE_ATTEMPTS
from handrail.access.store import (
    add_key,
    api_keys,
    close_session,
    dashboard_users,
    failed_logins,
    has_credentials,
    list_keys,
    list_users,
    load_key,
    load_session,
    record_login_attempt,
    remove_user,
    revoke_key,
    sessions,
    touch_key,
)
from handrail.access.users import SESSION_LIFETIME
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput, NotFound
from handrail.testing import VirtualClock

PASSWORD = "correct horse battery staple"
ADDRESS = "192.0.2.7"


@pytest.fixture
def now() -> datetime:
    return VirtualClock().now()


@pytest.fixture
def key(now: datetime) -> ApiKey:
    return new_key("acme", "shop backend", ["run", "read"], now)[1]


async def test_a_user_logs_in_and_out(database: Database, now: datetime) -> None:
    """The right password opens a session, which ends at logout, when it expires, and when its user is removed."""
    await database.write(new_user("ann", PASSWORD, "acme", now))
    tokens = [await log_in(database, "ann", PASSWORD, ADDRESS, None, now) for _ in range(2)]

    async def open_sessions(at: datetime = now) -> list[bool]:
        return await database.read(lambda conn: [load_session(token, at)(conn) is not None for token in tokens])

    session = await database.read(load_session(tokens[0], now))
    assert session is not None
    assert (session.user.name, session.user.tenant) == ("ann", "acme")
    assert await open_sessions(now + SESSION_LIFETIME - timedelta(seconds=1)) == [True, True]
    assert await open_sessions(now + SESSION_LIFETIME) == [False, False]
    await database.write(close_session(tokens[0]))
    assert await open_sessions() == [False, True]
    await database.write(remove_user("ann"))
    assert await open_sessions() == [False, False]
    with pytest.raises(NotFound):
        await database.write(remove_user("ann"))


async def test_a_login_replaces_the_previous_session(database: Database, now: datetime) -> None:
    """A browser's previous token is invalid after a login, and expired sessions are removed."""
    await database.write(new_user("ann", PASSWORD, None, now))
    before = await log_in(database, "ann", PASSWORD, ADDRESS, None, now)
    after = await log_in(database, "ann", PASSWORD, ADDRESS, before, now)
    assert before != after
    assert await database.read(load_session(before, now)) is None
    assert await database.read(load_session(after, now)) is not None
    await log_in(database, "ann", PASSWORD, ADDRESS, None, now + SESSION_LIFETIME)
    assert len(await database.read(lambda conn: conn.execute(select(sessions)).all())) == 1


async def test_a_name_is_unique(database: Database, now: datetime) -> None:
    """A second user with the same name is refused, and the first keeps their password."""
    await database.write(new_user("ann", PASSWORD, None, now))
    with pytest.raises(BadInput, match="already"):
        await database.write(new_user("ann", PASSWORD + "!", None, now))
    assert [user.name for user in await database.read(list_users())] == ["ann"]
    await log_in(database, "ann", PASSWORD, ADDRESS, None, now)


async def test_wrong_names_and_passwords_get_the_same_error(database: Database, now: datetime) -> None:
    """The error is the same for a wrong password, an unknown name and an invalid one."""
    await database.write(new_user("ann", PASSWORD, None, now))
    for name in ("ann", "nobody", "a\0b", "\ud83d", "", "x" * 300):
        with pytest.raises(WrongCredentials) as caught:
            await log_in(database, name, "wrong " + PASSWORD, ADDRESS, None, now)
        assert str(caught.value) == "wrong name or password"


async def test_concurrent_guesses_all_count(database: Database, now: datetime) -> None:
    """Of many concurrent wrong passwords for one name, only the free attempts are checked."""
    await database.write(new_user("ann", PASSWORD, None, now))
    guesses = [log_in(database, "ann", f"wrong {PASSWORD} {n}", f"192.0.2.{n}", None, now) for n in range(12)]
    results = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(isinstance(result, WrongCredentials) for result in results) == FREE_ATTEMPTS["name"]
    assert sum(isinstance(result, TooManyLoginAttempts) for result in results) == 12 - FREE_ATTEMPTS["name"]


async def test_a_throttled_name_can_log_in_after_its_wait(database: Database, now: datetime) -> None:
    """After too many failures even the right password has to wait; once it is accepted, the count starts again."""
    await database.write(new_user("ann", PASSWORD, None, now))
    for _ in range(FREE_ATTEMPTS["name"]):
        with pytest.raises(WrongCredentials):
            await log_in(database, "ann", "wrong", ADDRESS, None, now)
    with pytest.raises(TooManyLoginAttempts) as caught:
        await log_in(database, "ann", PASSWORD, ADDRESS, None, now)
    later = caught.value.retry_at
    assert later == now + timedelta(seconds=1)
    await log_in(database, "ann", PASSWORD, ADDRESS, None, later)
    with pytest.raises(WrongCredentials):
        await log_in(database, "ann", "wrong", ADDRESS, None, later)


async def test_an_address_is_throttled_over_all_names(database: Database, now: datetime) -> None:
    """Guessing one password for many names reaches the limit of the address; successful logins do not count."""
    await database.write(new_user("ann", PASSWORD, None, now))
    for n in range(FREE_ATTEMPTS["address"] - 1):
        await database.write(record_login_attempt(f"name-{n}", ADDRESS, now))
    for _ in range(3):
        await log_in(database, "ann", PASSWORD, ADDRESS, None, now)
    await database.write(record_login_attempt("one-more", ADDRESS, now))
    with pytest.raises(TooManyLoginAttempts):
        await log_in(database, "ann", PASSWORD, ADDRESS, None, now)
    await log_in(database, "ann", PASSWORD, "192.0.2.8", None, now)


async def test_keys_are_stored_and_revoked(database: Database, now: datetime, key: ApiKey) -> None:
    """A key is loaded as it was created, is listed for its tenant, and can be revoked once."""
    other = new_key(None, "collector", ["ingest"], now + timedelta(seconds=1))[1]
    assert not await database.read(has_credentials())
    await database.write(add_key(key), add_key(other))
    assert await database.read(has_credentials())
    assert await database.read(load_key(key.key_id)) == key
    assert await database.read(list_keys(None)) == [other, key]
    assert await database.read(list_keys("acme")) == [key]
    await database.write(revoke_key(key.key_id, now), revoke_key(other.key_id, now))
    loaded_key = await database.read(load_key(key.key_id))
    assert loaded_key is not None
    assert loaded_key.revoked_at == now
    assert not await database.read(has_credentials())
    with pytest.raises(NotFound):
        await database.write(revoke_key(key.key_id, now))


async def test_the_last_use_never_goes_back(database: Database, now: datetime, key: ApiKey) -> None:
    """An earlier use that is recorded later does not change the last use."""
    await database.write(add_key(key))
    await database.write(touch_key(key.key_id, now + timedelta(hours=1)), touch_key(key.key_id, now))
    loaded_key = await database.read(load_key(key.key_id))
    assert loaded_key is not None
    assert loaded_key.last_used_at == now + timedelta(hours=1)


async def test_no_secret_is_in_the_store(database: Database, now: datetime) -> None:
    """Neither a password, nor a session's token, nor a key's text is in any row."""
    text, key = new_key("acme", "label", ["read"], now)
    await database.write(new_user("ann", PASSWORD, None, now), add_key(key))
    token = await log_in(database, "ann", PASSWORD, ADDRESS, None, now)
    with pytest.raises(WrongCredentials):
        await log_in(database, "ann", "a wrong password", ADDRESS, None, now)
    tables = (dashboard_users, sessions, api_keys, failed_logins)
    rows = await database.read(lambda conn: [repr(conn.execute(select(table)).all()) for table in tables])
    stored = "\n".join(rows)
    assert "ann" in stored
    secrets = (PASSWORD, token, text, text.rpartition("_")[2], "a wrong password")
    assert [secret for secret in secrets if secret in stored] == []
