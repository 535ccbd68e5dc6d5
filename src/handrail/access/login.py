"""Adding dashboard users, and logging them in."""

import asyncio
import logging
from datetime import datetime

from handrail.kernel.db.database import Database
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import BadInput
from handrail.kernel.forks import ForkSafePool

from .api_keys import check_name
from .errors import TooManyLoginAttempts, WrongCredentials
from .passwords import hash_password, verify_password
from .store import add_user, clear_login_attempts, close_session, load_user, open_session, record_login_attempt
from .users import DashboardUser, new_session_token

_logger = logging.getLogger(__name__)

# One hash takes 64 MiB: two at a time is what a small machine can afford, however many try to log in.
_hashing = ForkSafePool(max_workers=2, thread_name_prefix="handrail-passwords")


def new_user(name: str, password: str, tenant: str | None, now: datetime) -> Operation[None]:
    """An operation that adds a dashboard user. Hashing the password takes some 50 ms, here and not in the operation.

    Args:
        name: The login name, which is also the name in `[roles]`.
        password: The password in the clear.
        tenant: The only tenant that the user sees; None for an operator.
        now: The current time.

    Raises:
        BadInput: The name, tenant or password is not acceptable; the operation raises it if the name is taken.
    """
    check_name("name", name)
    user = DashboardUser(name=name, tenant=None if tenant is None else check_name("tenant", tenant), added_at=now)
    return add_user(user, hash_password(password, name))


async def log_in(database: Database, name: str, password: str, address: str, old: str | None, now: datetime) -> str:
    """Checks a password and opens a session.

    Args:
        database: The store.
        name: The login name.
        password: The password in the clear.
        address: The client's network address, for throttling.
        old: The session token that the browser had. Its session ends, so that a token planted before the login is
            worthless after it (session fixation).
        now: The current time.

    Returns:
        The new session's token.

    Raises:
        WrongCredentials: The name and the password do not match.
        TooManyLoginAttempts: There were too many failures for this name or from this address.
    """
    try:
        check_name("name", name)
    except BadInput:
        raise _wrong(address) from None
    # Counted as a failure before the password is checked, so that guesses sent in parallel are all counted.
    try:
        await database.write(record_login_attempt(name, address, now))
    except TooManyLoginAttempts:
        _logger.warning("login throttled", extra={"address": address})
        raise
    row = await database.read(load_user(name))
    stored_hash = row[1] if row else None
    matches = await asyncio.get_running_loop().run_in_executor(_hashing, verify_password, password, stored_hash)
    if not matches or row is None:
        raise _wrong(address)
    user, token = row[0], new_session_token()
    close_old_session = [close_session(old)] if old else []
    await database.write(
        *close_old_session, open_session(user.name, token, now), clear_login_attempts(name, address, now)
    )
    _logger.info("user logged in", extra={"dashboard_user": user.name, "tenant": user.tenant, "address": address})
    return token


def _wrong(address: str) -> WrongCredentials:
    # Without the name: it is not checked yet, and people type passwords into the wrong field.
    _logger.warning("login failed", extra={"address": address})
    return WrongCredentials("wrong name or password")
