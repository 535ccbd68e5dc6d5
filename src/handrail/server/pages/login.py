"""Logging in and out."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from handrail.access.errors import TooManyLoginAttempts, WrongCredentials
from handrail.access.login import log_in
from handrail.access.store import close_session
from handrail.access.users import SESSION_LIFETIME
from handrail.server.auth import Principal, form_secret_of, read_form, session_cookie_name
from handrail.server.state import app_state

from .context import set_form_cookie

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def show_login(request: Request, to: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """The login form, or the overview if no login is needed."""
    if not app_state(request).bind_policy.requires_auth:
        return RedirectResponse("/", 303)
    return _render_login(request, _anonymous(request), to=to, name="", problem=None, status=200)


@router.post("/login")
async def submit_login(request: Request) -> Response:
    """Opens a session, in place of the one that the browser may have had."""
    state, anonymous = app_state(request), _anonymous(request)
    # The login form has a token, too: otherwise another site could log the browser in as somebody else (login CSRF).
    fields = await read_form(request, anonymous)
    name, to = fields.get("name", ""), fields.get("to", "/")
    address = request.client.host if request.client else ""
    cookie, runtime = session_cookie_name(state.bind_policy), state.runtime
    old_token = request.cookies.get(cookie)
    try:
        token = await log_in(
            runtime.database, name, fields.get("password", ""), address, old_token, runtime.clock.now()
        )
    except WrongCredentials as error:
        return _render_login(request, anonymous, to=to, name=name, problem=str(error), status=401)
    except TooManyLoginAttempts as error:
        return _render_login(request, anonymous, to=to, name=name, problem=str(error), status=429)
    response = RedirectResponse(safe_redirect_path(to), 303)
    response.set_cookie(
        cookie,
        token,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=state.bind_policy.secure,
        path="/",
    )
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Ends the session in the browser and in the store."""
    state = app_state(request)
    cookie, secure = session_cookie_name(state.bind_policy), state.bind_policy.secure
    token = request.cookies.get(cookie, "")
    await read_form(request, Principal(owner="", tenant=None, name=None, form_secret=token))
    await state.runtime.database.write(close_session(token))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie, path="/", secure=secure, httponly=True, samesite="lax")
    return response


def safe_redirect_path(to: str) -> str:
    """`to` if it is a path of this server, else the root: a login must not redirect to another site."""
    try:
        parts = urlsplit(to)
    except ValueError:
        return "/"
    # Browsers read "//host" and "/\host" as another host.
    is_local = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return to if is_local and to.isprintable() and to.isascii() else "/"


def _anonymous(request: Request) -> Principal:
    return Principal(owner="", tenant=None, name=None, form_secret=form_secret_of(request))


def _render_login(
    request: Request, anonymous: Principal, *, to: str, name: str, problem: str | None, status: int
) -> Response:
    state = app_state(request)
    response = state.renderer.render("login.html", status, principal=anonymous, to=to, name=name, problem=problem)
    set_form_cookie(response, state, anonymous.form_secret)
    return response
