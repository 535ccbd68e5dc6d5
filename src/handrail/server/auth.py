"""Who asks: the operator on this machine, a person with a session, or a program with a key."""

import getpass
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from handrail.access.api_keys import SCOPES, Scope, check_key, check_scope, key_id_of
from handrail.access.errors import WrongCredentials
from handrail.access.store import load_key, load_session, touch_is_due, touch_key
from handrail.kernel.errors import BadInput

from .bind_policy import Door
from .errors import LoginNeeded, StaleForm
from .rate_limit import Rate
from .state import Site, site_of

RATES: dict[Scope, Rate] = {
    "ingest": Rate(per_second=100, burst=400),
    "run": Rate(per_second=20, burst=100),
    "read": Rate(per_second=20, burst=100),
    "decide": Rate(per_second=5, burst=50),
}
"""How fast one key may ask, in each process."""

MAX_FIELDS = 200


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who asks. `tenant` is the only one whose data they see; None is the operator, who sees all.

    `owner` is whose Idempotency-Keys theirs are. `person` decides and judges in their own name; None is a program,
    which names the person. `secret` is what the token in their forms is made of.
    """

    owner: str
    tenant: str | None
    person: str | None
    secret: str = ""
    logged_in: bool = False

    @property
    def form_token(self) -> str:
        """What a form has to bring back: only a page of this visitor's has it."""
        return hmac.new(self.secret.encode(), b"form", hashlib.sha256).hexdigest()


def session_cookie(door: Door) -> str:
    """The cookie's name. Its prefix makes browsers take it from nobody but this host, over TLS only."""
    return "__Host-handrail" if door.secure else "handrail"


def form_cookie(door: Door) -> str:
    """The name of the cookie that forms are bound to where there is no session."""
    return "__Host-handrail-form" if door.secure else "handrail-form"


_bearer = HTTPBearer(auto_error=False, description="An API key: `handrail keys create`")


def program(scope: Scope) -> Callable[..., Awaitable[Visitor]]:
    """A dependency: the caller of the API, allowed to do what `scope` names.

    It raises WrongCredentials, NotAllowed and RateLimited.
    """

    async def caller(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> Visitor:
        site = site_of(request)
        if bearer is None and site.door.is_open and "authorization" not in request.headers:
            return Visitor(owner="operator", tenant=None, person=None)
        return await _with_key(site, bearer.credentials if bearer else "", scope)

    return caller


async def person(request: Request) -> Visitor:
    """A dependency: who looks at a page. Raises LoginNeeded."""
    site = site_of(request)
    token = request.cookies.get(session_cookie(site.door))
    if site.door.is_open:
        return Visitor(owner="operator", tenant=None, person=system_user(), secret=form_secret(request))
    now = site.runtime.clock.now()
    session = await site.runtime.database.read(lambda conn: load_session(conn, token, now)) if token else None
    if token is None or session is None:
        raise LoginNeeded("log in first")
    who = session.person
    return Visitor(owner=f"person:{who.name}", tenant=who.tenant, person=who.name, secret=token, logged_in=True)


def form_secret(request: Request) -> str:
    """What the forms of somebody without a session are bound to: their cookie's value, a new one where they have none.

    `Renderer.page` gives the cookie to the browser.
    """
    found = request.cookies.get(form_cookie(site_of(request).door))
    return found if found and len(found) >= 32 else secrets.token_urlsafe(32)


async def checked_form(request: Request, visitor: Visitor) -> dict[str, str]:
    """The fields of a form that this visitor sent from a page of theirs. Raises StaleForm and BadInput."""
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadInput("the form cannot be read; send it from a page of this server") from None
    fields = dict(pairs)
    if not hmac.compare_digest(fields.pop("form_token", "").encode(), visitor.form_token.encode()):
        raise StaleForm("this page was open for too long, or its login is over; load it again and repeat what you did")
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def system_user() -> str:
    """Who the operator on this machine is, where the system says."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return "operator"


async def _with_key(site: Site, text: str, scope: Scope) -> Visitor:
    runtime, now = site.runtime, site.runtime.clock.now()
    key_id = key_id_of(text)
    if key_id is None:
        raise WrongCredentials("send an API key as `Authorization: Bearer hr_...`; `handrail keys create` makes one")
    key = check_key(text, await runtime.database.read(lambda conn: load_key(conn, key_id)))
    check_scope(key.scopes, scope)
    site.buckets.check(f"{key.key_id}:{scope}", RATES[scope])
    if touch_is_due(key, now):
        await runtime.database.write(touch_key(key.key_id, now))
    return Visitor(owner=key.key_id, tenant=key.tenant, person=None)


assert RATES.keys() == set(SCOPES)

Person = Annotated[Visitor, Depends(person)]
