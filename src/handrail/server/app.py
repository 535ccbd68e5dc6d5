"""`create_app`: the API and the pages over one runtime."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from handrail.evals.spec import EvalSpec
from handrail.kernel.errors import HandrailError
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime
from handrail.worker import StopSignal

from .api import approvals, feedback, otlp, runs, traces
from .bind_policy import BindPolicy
from .charts import ChartRenderer
from .errors import LoginRequired
from .middleware import RequestGuard
from .openapi import add_problem_responses
from .pages import cost, evals, inbox, jobs, login, overview, spending, steps
from .pages import runs as run_pages
from .pages import traces as trace_pages
from .problems import Problem, problem_for
from .rate_limit import RateLimiter
from .state import AppState, app_state
from .templating import Renderer

_logger = logging.getLogger(__name__)

BackgroundTask = Callable[[StopSignal], Awaitable[None]]
"""Runs beside the application, and ends soon after it is asked to stop."""

_API = (runs, feedback, approvals, otlp, traces)
_PAGES = (login, overview, run_pages, inbox, trace_pages, steps, cost, spending, evals, jobs)


def create_app(
    runtime: Runtime,
    find_agent: Callable[[str], GovernedAgent[Any, Any]],
    find_eval_spec: Callable[[str], EvalSpec[Any, Any]],
    bind_policy: BindPolicy,
    background: Sequence[BackgroundTask] = (),
) -> FastAPI:
    """Creates the HTTP application.

    Args:
        runtime: What it runs on; the application does not close it.
        find_agent: Returns a governed agent by its name.
        find_eval_spec: Returns the eval spec of an agent by the agent's name.
        bind_policy: Who may reach the server.
        background: Tasks that run until the application shuts down, such as the worker.
    """
    stop = StopSignal()
    app = FastAPI(
        title="Handrail",
        description="Run governed agents, decide approvals, send OpenTelemetry spans; read runs, traces and costs.",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _app: _run_alongside(background, stop),
    )
    app.state.stop = stop
    app.state.handrail = AppState(
        runtime=runtime,
        find_agent=find_agent,
        find_eval_spec=find_eval_spec,
        bind_policy=bind_policy,
        rate_limiter=RateLimiter(runtime.clock),
        renderer=Renderer(),
        charts=ChartRenderer(runtime.clock),
    )
    for module in (*_API, *_PAGES):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=str(files(__package__ or "") / "static")), name="static")
    app.add_middleware(
        RequestGuard, policy=bind_policy, render_problem=partial(_render_problem, app.state.handrail.renderer)
    )
    for error, handler in _HANDLERS.items():
        app.add_exception_handler(error, handler)
    add_problem_responses(app)
    return app


@asynccontextmanager
async def _run_alongside(background: Sequence[BackgroundTask], stop: StopSignal) -> AsyncIterator[None]:
    stop.listen()
    tasks = [asyncio.ensure_future(start(stop)) for start in background]
    yield
    if not stop.draining.is_set():
        stop.request()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, LoginRequired) and request.method == "GET":
        target = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe="/")
        return RedirectResponse(f"/login?to={target}" if target != "/" else "/login", 303)
    problem = problem_for(error, request.state.request_id)
    if problem.status >= 500:
        # The client gets less than this: see `problems`.
        _logger.error("request failed: %s: %s", problem.code, error, extra={"request_id": problem.request_id})
    return _respond(request, problem)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The values that were sent are not repeated: they may be secrets, and need not be text.
    reasons = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    detail = "; ".join(reasons).encode("utf-8", "replace").decode()
    return _respond(request, Problem(status=422, code="invalid", detail=detail, request_id=request.state.request_id))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    problem = Problem(
        status=error.status_code,
        code=codes.get(error.status_code, "bad_input"),
        detail="there is nothing at this address" if error.status_code == 404 else str(error.detail),
        request_id=request.state.request_id,
        headers=error.headers or {},
    )
    return _respond(request, problem)


def _respond(request: Request, problem: Problem) -> Response:
    return _render_problem(app_state(request).renderer, problem, request.url.path)


def _render_problem(renderer: Renderer, problem: Problem, path: str) -> Response:
    """A problem body under the API's path, a page elsewhere."""
    if path.startswith("/v1/"):
        return JSONResponse(problem.body(), problem.status, problem.headers, problem.media_type)
    response = renderer.render("problem.html", problem.status, problem=problem)
    response.headers.update(problem.headers)
    return response


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    HandrailError: _on_error,
    RequestValidationError: _on_validation_error,
    HTTPException: _on_http_exception,
}
