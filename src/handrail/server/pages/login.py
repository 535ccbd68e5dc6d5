"""Logging in and out."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from handrail.access.errors import TooManyTries, WrongCredentials
from handrail.access.login import log_in
from handrail.access.store import close_session
from handrail.access.users import SESSION
from handrail.server.auth import Visitor, checked_form, form_secret, session_cookie
from handrail.server.state import site_of

from .context import keep_form_secret

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def ask(request: Request, to: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """The form; where nobody needs to log in, on to the first page."""
    if site_of(request).door.is_open:
        return RedirectResponse("/", 303)
    return _page(request, _nobody(request), to=to, name="", problem=None, status=200)


@router.post("/login")
async def enter(request: Request) -> Response:
    """A fresh session, in place of whatever the browser had."""
    site, nobody = site_of(request), _nobody(request)
    fields = await checked_form(request, nobody)
    name, to = fields.get("name", ""), fields.get("to", "/")
    address = request.client.host if request.client else ""
    old, runtime = request.cookies.get(session_cookie(site.door)), site.runtime
    try:
        token = await log_in(runtime.database, name, fields.get("password", ""), address, old, runtime.clock.now())
    except WrongCredentials as error:
        return _page(request, nobody, to=to, name=name, problem=str(error), status=401)
    except TooManyTries as error:
        return _page(request, nobody, to=to, name=name, problem=str(error), status=429)
    answer = RedirectResponse(own_path(to), 303)
    answer.set_cookie(
        session_cookie(site.door),
        token,
        max_age=int(SESSION.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=site.door.secure,
        path="/",
    )
    return answer


@router.post("/logout")
async def leave(request: Request) -> Response:
    """Ends the session, here and in the store."""
    site = site_of(request)
    token = request.cookies.get(session_cookie(site.door), "")
    await checked_form(request, Visitor(owner="", tenant=None, person=None, secret=token))
    await site.runtime.database.write(close_session(token))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(session_cookie(site.door), path="/", secure=site.door.secure, httponly=True, samesite="lax")
    return answer


def own_path(to: str) -> str:
    """`to` where it is a path of this site, else the first page: a login sends nobody elsewhere."""
    try:
        parts = urlsplit(to)
    except ValueError:
        return "/"
    own = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return to if own and to.isprintable() and to.isascii() else "/"


def _nobody(request: Request) -> Visitor:
    return Visitor(owner="", tenant=None, person=None, secret=form_secret(request))


def _page(request: Request, nobody: Visitor, *, to: str, name: str, problem: str | None, status: int) -> Response:
    site = site_of(request)
    answer = site.renderer.page("login.html", status, visitor=nobody, to=to, name=name, problem=problem)
    keep_form_secret(answer, site, nobody.secret)
    return answer
