"""Authentication: the operator on this machine, a dashboard user with a session, or a program with an API key."""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from handrail.access.api_keys import SCOPES, KeyScope, check_key, check_scope, parse_key_id
from handrail.access.current_user import system_user
from handrail.access.errors import NotAllowed, WrongCredentials
from handrail.access.store import load_key, load_session, touch_is_due, touch_key
from handrail.kernel.errors import BadInput

from .bind_policy import BindPolicy
from .errors import LoginRequired, RateLimited, StaleForm
from .rate_limit import RateLimit
from .state import AppState, app_state

_logger = logging.getLogger(__name__)

RATE_LIMITS: dict[KeyScope, RateLimit] = {
    "ingest": RateLimit(per_second=100, burst=400),
    "run": RateLimit(per_second=20, burst=100),
    "read": RateLimit(per_second=20, burst=100),
    "decide": RateLimit(per_second=5, burst=50),
}
"""How many requests one key may make, in each process."""

MAX_FORM_FIELDS = 200


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who a request comes from.

    Attributes:
        owner: Who their Idempotency-Keys belong to: an API key's id, a dashboard user, or the operator.
        tenant: The only tenant whose data they see; None for an operator, who sees every tenant.
        name: The name that their decisions and feedback are recorded under; None for a program, which names a person.
        form_secret: What the token in their forms is derived from.
        logged_in: Whether they have a session.
    """

    owner: str
    tenant: str | None
    name: str | None
    form_secret: str = ""
    logged_in: bool = False

    @property
    def form_token(self) -> str:
        """What a form has to send back (CSRF): only a page that was rendered for this principal contains it.

        It is derived from a cookie that scripts cannot read and other sites cannot set, and does not reveal it.
        """
        return hmac.new(self.form_secret.encode(), b"form", hashlib.sha256).hexdigest()


def session_cookie_name(policy: BindPolicy) -> str:
    """The session cookie's name. With the prefix `__Host-`, browsers accept it from this host over TLS only."""
    return "__Host-handrail" if policy.secure else "handrail"


def form_cookie_name(policy: BindPolicy) -> str:
    """The name of the cookie that forms are bound to without a session."""
    return "__Host-handrail-form" if policy.secure else "handrail-form"


_bearer = HTTPBearer(auto_error=False, description="An API key, made by `handrail keys create`.")


def require_scope(scope: KeyScope) -> Callable[..., Awaitable[Principal]]:
    """A dependency for API routes: the caller, whose key has `scope`. Each use counts against the key's rate limit.

    The dependency raises WrongCredentials, NotAllowed and RateLimited.
    """

    async def caller(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> Principal:
        state = app_state(request)
        # Credentials that are sent are always checked, even if none are needed: a wrong key must not go unnoticed.
        if bearer is None and not state.bind_policy.requires_auth and "authorization" not in request.headers:
            return Principal(owner="operator", tenant=None, name=None)
        try:
            return await _authenticate_key(state, bearer.credentials if bearer else "", scope)
        except (WrongCredentials, NotAllowed, RateLimited) as error:
            _logger.warning(
                "api request rejected",
                extra={"request_id": request.state.request_id, "code": error.code, "scope": scope},
            )
            raise

    return caller


async def require_login(request: Request) -> Principal:
    """A dependency for pages: the dashboard user, or the operator if no login is needed. Raises LoginRequired."""
    state = app_state(request)
    if not state.bind_policy.requires_auth:
        name = system_user() or "operator"
        return Principal(owner="operator", tenant=None, name=name, form_secret=form_secret_of(request))
    token = request.cookies.get(session_cookie_name(state.bind_policy))
    now = state.runtime.clock.now()
    session = await state.runtime.database.read(load_session(token, now)) if token else None
    if token is None or session is None:
        raise LoginRequired("log in first")
    user = session.user
    return Principal(owner=f"user:{user.name}", tenant=user.tenant, name=user.name, form_secret=token, logged_in=True)


def form_secret_of(request: Request) -> str:
    """What the forms of a browser without a session are bound to: the value of its form cookie, or a new one.

    A new value has to be sent to the browser with the page: see `pages.context.set_form_cookie`.
    """
    value = request.cookies.get(form_cookie_name(app_state(request).bind_policy))
    return value if value and len(value) >= 32 else secrets.token_urlsafe(32)


async def read_form(request: Request, principal: Principal) -> dict[str, str]:
    """The fields of a submitted form, without its token.

    Args:
        request: The request with the form in its body.
        principal: Who it comes from.

    Raises:
        StaleForm: The form was not rendered for this principal.
        BadInput: The body is not a form.
    """
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise BadInput("the form cannot be read; send it from a page of this server") from None
    fields = dict(pairs)
    if not hmac.compare_digest(fields.pop("form_token", "").encode(), principal.form_token.encode()):
        raise StaleForm("this page was open for too long, or you logged out; reload it and try again")
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


async def _authenticate_key(state: AppState, text: str, scope: KeyScope) -> Principal:
    runtime, now = state.runtime, state.runtime.clock.now()
    key_id = parse_key_id(text)
    if key_id is None:
        raise WrongCredentials("send an API key as `Authorization: Bearer hr_...`; `handrail keys create` makes one")
    key = check_key(text, await runtime.database.read(load_key(key_id)))
    check_scope(key.scopes, scope)
    state.rate_limiter.check(f"{key.key_id}:{scope}", RATE_LIMITS[scope])
    # The last use is kept to the minute only: otherwise every read would cost a write.
    if touch_is_due(key, now):
        await runtime.database.write(touch_key(key.key_id, now))
    return Principal(owner=key.key_id, tenant=key.tenant, name=None)


assert RATE_LIMITS.keys() == set(SCOPES)

LoggedIn = Annotated[Principal, Depends(require_login)]
