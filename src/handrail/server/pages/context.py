"""What every page has: who looks at it, the tenant in view, and the frame around its own part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import RedirectResponse, Response

from handrail.access.errors import NotAllowed
from handrail.server.auth import Person, Visitor, checked_form, form_cookie
from handrail.server.eval_queries import EvalReads
from handrail.server.params import Word
from handrail.server.queries import Reads
from handrail.server.state import Site, site_of

MENU = (
    ("Overview", ""),
    ("Runs", "runs"),
    ("Inbox", "inbox"),
    ("Traces", "traces"),
    ("Steps", "steps"),
    ("Cost", "cost"),
    ("Spending", "spending"),
    ("Evals", "evals"),
)
PAGE = 50
"""Rows of a page."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A visitor looking at a page. `reads` is bound to the tenant in view: the visitor's own, or, for an operator, the
    one they chose, or all."""

    request: Request
    site: Site
    visitor: Visitor
    reads: Reads

    @property
    def evals(self) -> EvalReads:
        """What is known of evals, which are about agents. Raises NotAllowed for who is not the operator."""
        if self.visitor.tenant is not None:
            raise NotAllowed("evals are about agents, not about one tenant; only an operator sees them")
        return EvalReads(self.site.runtime)

    @property
    def chosen(self) -> str | None:
        """The tenant that an operator chose; links keep it."""
        return self.reads.tenant if self.visitor.tenant is None else None

    def page(self, template: str, status: int = 200, **context: Any) -> Response:
        """The page that a template makes of `context`, in the frame that all pages have."""
        menu = [each for each in MENU if each[1] != "evals" or self.visitor.tenant is None]
        answer = self.site.renderer.page(
            template, status, visitor=self.visitor, chosen=self.chosen, menu=menu, here=self.request.url.path, **context
        )
        if not self.visitor.logged_in:
            keep_form_secret(answer, self.site, self.visitor.secret)
        return answer

    def path(self, *parts: str, **query: Any) -> str:
        """A path of this site that keeps the tenant in view."""
        return self.site.renderer.path(*parts, tenant=self.chosen, **query)

    def back(self, *parts: str) -> Response:
        """The answer to a form that did its work: on to a page."""
        return RedirectResponse(self.path(*parts), 303)

    async def form(self) -> Mapping[str, str]:
        """The fields of the form that was sent. Raises StaleForm and BadInput."""
        return await checked_form(self.request, self.visitor)


def keep_form_secret(answer: Response, site: Site, secret: str) -> None:
    """Gives the browser the cookie that forms are bound to where there is no session."""
    name, secure = form_cookie(site.door), site.door.secure
    answer.set_cookie(name, secret, httponly=True, samesite="lax", secure=secure, path="/")


def _look(request: Request, visitor: Person, tenant: Word = "") -> Look:
    site = site_of(request)
    seen = visitor.tenant if visitor.tenant is not None else (tenant or None)
    return Look(request=request, site=site, visitor=visitor, reads=Reads(site.runtime, seen))


Looking = Annotated[Look, Depends(_look)]
