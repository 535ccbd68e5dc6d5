"""Logging in: a try is counted, the password looked at, a fresh session opened in place of the old one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import Op
from handrail.kernel.errors import BadInput

from .api_keys import checked
from .errors import WrongCredentials
from .passwords import hash_password, is_password
from .store import add_person, close_session, end_tries, load_person, open_session, try_login
from .users import Person, new_token

_hashing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="handrail-passwords")
"""A hash takes 64 MiB: two at once is what a small machine bears, however many knock."""


def new_person(name: str, password: str, tenant: str | None, now: datetime) -> Op:
    """An op that adds a person; takes some 50 ms for the password's hash. Raises BadInput, and so does the op."""
    checked("name", name)
    person = Person(name=name, tenant=None if tenant is None else checked("tenant", tenant), added_at=now)
    return add_person(person, hash_password(password, name))


async def log_in(database: Database, name: str, password: str, address: str, old: str | None, now: datetime) -> str:
    """The token of a new session; the session of `old`, the token that the browser had, is over.

    Raises WrongCredentials, and TooManyTries after too many of them by this name or from this address.
    """
    try:
        checked("name", name)
    except BadInput:
        raise _wrong() from None
    await database.write(try_login(name, address, now))
    found = await database.read(lambda conn: load_person(conn, name))
    kept = found[1] if found else None
    right = await asyncio.get_running_loop().run_in_executor(_hashing, is_password, password, kept)
    if not right or found is None:
        raise _wrong()
    token = new_token()
    closing = [close_session(old)] if old else []
    await database.write(*closing, open_session(found[0].name, token, now), end_tries(name, address, now))
    return token


def _wrong() -> WrongCredentials:
    return WrongCredentials("this name and password do not go together")
