"""What every page has in common: its principal, the tenant that it shows, and the layout around its content."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import RedirectResponse, Response

from handrail.server.auth import LoggedIn, Principal, form_cookie_name, read_form
from handrail.server.eval_queries import EvalQueries
from handrail.server.job_queries import JobQueries
from handrail.server.params import TextQuery
from handrail.server.queries import Queries
from handrail.server.state import AppState, app_state
from handrail.server.tenancy import check_sees_evals, check_sees_jobs, visible_tenant

MENU = (
    ("Overview", ""),
    ("Runs", "runs"),
    ("Inbox", "inbox"),
    ("Traces", "traces"),
    ("Steps", "steps"),
    ("Cost", "cost"),
    ("Spending", "spending"),
    ("Evals", "evals"),
    ("Jobs", "jobs"),
)
FOR_OPERATORS = ("evals", "jobs")
"""The menu's pages that only operators see."""
PAGE_SIZE = 50
"""Rows of a table on one page."""


@dataclass(frozen=True, kw_only=True)
class PageContext:
    """One request for a page.

    Attributes:
        queries: The store, limited to the principal's tenant or, for an operator, to the tenant they chose, if any.
    """

    request: Request
    state: AppState
    principal: Principal
    queries: Queries

    @property
    def evals(self) -> EvalQueries:
        """The eval runs. Raises NotAllowed for anybody but an operator."""
        check_sees_evals(self.principal.tenant)
        return EvalQueries(self.state.runtime)

    @property
    def jobs(self) -> JobQueries:
        """The background jobs. Raises NotAllowed for anybody but an operator."""
        check_sees_jobs(self.principal.tenant)
        return JobQueries(self.state.runtime)

    @property
    def tenant_filter(self) -> str | None:
        """The tenant that an operator chose; links keep it."""
        return self.queries.tenant if self.principal.tenant is None else None

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """The page that a template makes of `context`, in the common layout."""
        response = self.state.renderer.render(
            template,
            status,
            principal=self.principal,
            tenant=self.tenant_filter,
            menu=[entry for entry in MENU if entry[1] not in FOR_OPERATORS or self.principal.tenant is None],
            current_path=self.request.url.path,
            **context,
        )
        if not self.principal.logged_in:
            set_form_cookie(response, self.state, self.principal.form_secret)
        return response

    def redirect(self, *segments: str) -> Response:
        """The response to a form that was processed: a redirect to a page, which keeps the chosen tenant."""
        return RedirectResponse(self.state.renderer.url(*segments, tenant=self.tenant_filter), 303)

    async def form_fields(self) -> Mapping[str, str]:
        """The fields of the submitted form. Raises StaleForm and BadInput."""
        return await read_form(self.request, self.principal)


def set_form_cookie(response: Response, state: AppState, secret: str) -> None:
    """Sends the browser the cookie that forms are bound to without a session."""
    name, secure = form_cookie_name(state.bind_policy), state.bind_policy.secure
    response.set_cookie(name, secret, httponly=True, samesite="lax", secure=secure, path="/")


def _page_context(request: Request, principal: LoggedIn, tenant: TextQuery = "") -> PageContext:
    state = app_state(request)
    queries = Queries(state.runtime, visible_tenant(principal.tenant, tenant))
    return PageContext(request=request, state=state, principal=principal, queries=queries)


Page = Annotated[PageContext, Depends(_page_context)]
