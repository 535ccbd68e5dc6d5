"""What the store of people, sessions and keys promises, whatever the engine."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from handrail.access.api_keys import ApiKey, new_key
from handrail.access.errors import TooManyTries, WrongCredentials
from handrail.access.login import log_in, new_person
from handrail.access.login_throttle import FREE
from handrail.access.store import (
    add_key,
    anybody,
    api_keys,
    close_session,
    failed_logins,
    list_keys,
    list_people,
    load_key,
    load_session,
    people,
    remove_person,
    revoke_key,
    sessions,
    touch_key,
    try_login,
)
from handrail.access.users import SESSION
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput, NotFound
from handrail.testing import VirtualClock

PASSWORD = "correct horse battery staple"
HERE = "192.0.2.7"


@pytest.fixture
def now() -> datetime:
    return VirtualClock().now()


@pytest.fixture
def key(now: datetime) -> ApiKey:
    return new_key("acme", "shop backend", ["run", "read"], now)[1]


async def test_a_person_logs_in_and_out(database: Database, now: datetime) -> None:
    """The right password opens a session that ends when it is closed, when it is over, and with its person."""
    await database.write(new_person("ann", PASSWORD, "acme", now))
    tokens = [await log_in(database, "ann", PASSWORD, HERE, None, now) for _ in range(2)]

    async def open_now(moment: datetime = now) -> list[bool]:
        return await database.read(lambda conn: [load_session(conn, token, moment) is not None for token in tokens])

    session = await database.read(lambda conn: load_session(conn, tokens[0], now))
    assert session is not None
    assert (session.person.name, session.person.tenant) == ("ann", "acme")
    assert await open_now(now + SESSION - timedelta(seconds=1)) == [True, True]
    assert await open_now(now + SESSION) == [False, False]
    await database.write(close_session(tokens[0]))
    assert await open_now() == [False, True]
    await database.write(remove_person("ann"))
    assert await open_now() == [False, False]
    with pytest.raises(NotFound):
        await database.write(remove_person("ann"))


async def test_a_login_takes_the_place_of_the_session_before(database: Database, now: datetime) -> None:
    """The token that a browser had before a login opens nothing after it, and sessions that are over are dropped."""
    await database.write(new_person("ann", PASSWORD, None, now))
    before = await log_in(database, "ann", PASSWORD, HERE, None, now)
    after = await log_in(database, "ann", PASSWORD, HERE, before, now)
    assert before != after
    assert await database.read(lambda conn: load_session(conn, before, now)) is None
    assert await database.read(lambda conn: load_session(conn, after, now)) is not None
    await log_in(database, "ann", PASSWORD, HERE, None, now + SESSION)
    assert len(await database.read(lambda conn: conn.execute(select(sessions)).all())) == 1


async def test_a_name_is_taken_once(database: Database, now: datetime) -> None:
    """A second person of a name is refused, and the first keeps their password."""
    await database.write(new_person("ann", PASSWORD, None, now))
    with pytest.raises(BadInput, match="already"):
        await database.write(new_person("ann", PASSWORD + "!", None, now))
    assert [each.name for each in await database.read(list_people)] == ["ann"]
    await log_in(database, "ann", PASSWORD, HERE, None, now)


async def test_wrong_names_and_wrong_passwords_look_alike(database: Database, now: datetime) -> None:
    """Whoever is not let in hears the same, whether the name is known, unknown or none at all."""
    await database.write(new_person("ann", PASSWORD, None, now))
    for name in ("ann", "nobody", "a\0b", "\ud83d", "", "x" * 300):
        with pytest.raises(WrongCredentials) as caught:
            await log_in(database, name, "wrong " + PASSWORD, HERE, None, now)
        assert str(caught.value) == "this name and password do not go together"


async def test_guesses_that_arrive_together_all_count(database: Database, now: datetime) -> None:
    """Of many wrong passwords sent at once for one name, no more are looked at than are free."""
    await database.write(new_person("ann", PASSWORD, None, now))
    guesses = [log_in(database, "ann", f"wrong {PASSWORD} {n}", f"192.0.2.{n}", None, now) for n in range(12)]
    found = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(isinstance(each, WrongCredentials) for each in found) == FREE["name"]
    assert sum(isinstance(each, TooManyTries) for each in found) == 12 - FREE["name"]


async def test_a_throttled_name_gets_in_after_its_wait(database: Database, now: datetime) -> None:
    """After too many failures even the right password waits; then it is taken, and the count begins anew."""
    await database.write(new_person("ann", PASSWORD, None, now))
    for _ in range(FREE["name"]):
        with pytest.raises(WrongCredentials):
            await log_in(database, "ann", "wrong", HERE, None, now)
    with pytest.raises(TooManyTries) as caught:
        await log_in(database, "ann", PASSWORD, HERE, None, now)
    later = caught.value.retry_at
    assert later == now + timedelta(seconds=1)
    await log_in(database, "ann", PASSWORD, HERE, None, later)
    with pytest.raises(WrongCredentials):
        await log_in(database, "ann", "wrong", HERE, None, later)


async def test_an_address_is_throttled_over_all_names(database: Database, now: datetime) -> None:
    """Guessing one password for many names runs into the address's limit; logins that succeed do not count."""
    await database.write(new_person("ann", PASSWORD, None, now))
    for n in range(FREE["address"] - 1):
        await database.write(try_login(f"name-{n}", HERE, now))
    for _ in range(3):
        await log_in(database, "ann", PASSWORD, HERE, None, now)
    await database.write(try_login("one-more", HERE, now))
    with pytest.raises(TooManyTries):
        await log_in(database, "ann", PASSWORD, HERE, None, now)
    await log_in(database, "ann", PASSWORD, "192.0.2.8", None, now)


async def test_keys_are_kept_and_revoked(database: Database, now: datetime, key: ApiKey) -> None:
    """A key comes back as it was made, is listed for its tenant, and is revoked once."""
    other = new_key(None, "collector", ["ingest"], now + timedelta(seconds=1))[1]
    assert not await database.read(anybody)
    await database.write(add_key(key), add_key(other))
    assert await database.read(anybody)
    assert await database.read(lambda conn: load_key(conn, key.key_id)) == key
    assert await database.read(lambda conn: list_keys(conn, None)) == [other, key]
    assert await database.read(lambda conn: list_keys(conn, "acme")) == [key]
    await database.write(revoke_key(key.key_id, now), revoke_key(other.key_id, now))
    found = await database.read(lambda conn: load_key(conn, key.key_id))
    assert found is not None
    assert found.revoked_at == now
    assert not await database.read(anybody)
    with pytest.raises(NotFound):
        await database.write(revoke_key(key.key_id, now))


async def test_the_last_use_only_goes_on(database: Database, now: datetime, key: ApiKey) -> None:
    """A use that is noted late does not set the last use back."""
    await database.write(add_key(key))
    await database.write(touch_key(key.key_id, now + timedelta(hours=1)), touch_key(key.key_id, now))
    found = await database.read(lambda conn: load_key(conn, key.key_id))
    assert found is not None
    assert found.last_used_at == now + timedelta(hours=1)


async def test_no_secret_is_in_the_store(database: Database, now: datetime) -> None:
    """Neither a password, nor a session's token, nor a key's text stands in any row."""
    text, key = new_key("acme", "label", ["read"], now)
    await database.write(new_person("ann", PASSWORD, None, now), add_key(key))
    token = await log_in(database, "ann", PASSWORD, HERE, None, now)
    with pytest.raises(WrongCredentials):
        await log_in(database, "ann", "a wrong password", HERE, None, now)
    tables = (people, sessions, api_keys, failed_logins)
    rows = await database.read(lambda conn: [repr(conn.execute(select(table)).all()) for table in tables])
    kept = "\n".join(rows)
    assert "ann" in kept
    secrets = (PASSWORD, token, text, text.rpartition("_")[2], "a wrong password")
    assert [secret for secret in secrets if secret in kept] == []
