"""`create_app`: the API and the pages put together, around one runtime."""

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

from handrail.kernel.errors import HandrailError
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime

from .api import otlp, runs, traces
from .bind_policy import Door
from .charts import Charts
from .errors import LoginNeeded
from .middleware import Envelope
from .openapi import document_problems
from .pages import PAGES
from .problems import Problem, problem_of
from .rate_limit import Buckets
from .state import Site, site_of
from .templating import Renderer

log = logging.getLogger("handrail.web")

Background = Callable[[], Awaitable[None]]


def create_app(
    runtime: Runtime,
    find_agent: Callable[[str], GovernedAgent[Any, Any]],
    door: Door,
    background: Sequence[Background] = (),
) -> FastAPI:
    """The HTTP application over `runtime`, which it does not close; `door` says who may come in.

    `find_agent` gives a governed agent by its name. `background` runs beside it until it is shut down: the worker, say.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(each()) for each in background]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="Handrail",
        description="Runs agents under ceilings and approvals, and answers questions about what they did.",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.site = Site(
        runtime=runtime,
        find_agent=find_agent,
        door=door,
        buckets=Buckets(runtime.clock),
        renderer=Renderer(),
        charts=Charts(runtime.clock),
    )
    app.include_router(runs.router)
    app.include_router(otlp.router)
    app.include_router(traces.router)
    for router in PAGES:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=str(files(__package__ or "") / "static")), name="static")
    app.add_middleware(Envelope, door=door, show=partial(_shown, app.state.site.renderer))
    app.add_exception_handler(HandrailError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    document_problems(app)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, LoginNeeded) and request.method == "GET":
        asked = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe="/")
        return RedirectResponse(f"/login?to={asked}" if asked != "/" else "/login", 303)
    problem = problem_of(error, request.state.request_id)
    if problem.status >= 500:
        log.error("request %s: %s: %s", problem.request_id, problem.code, error)
    return _answer(request, problem)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # What was sent is not repeated: it may be a secret, and need not be text.
    faults = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    detail = "; ".join(faults).encode("utf-8", "replace").decode()
    return _answer(request, Problem(status=422, code="invalid", detail=detail, request_id=request.state.request_id))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    problem = Problem(
        status=error.status_code,
        code=codes.get(error.status_code, "bad_input"),
        detail="there is nothing at this address" if error.status_code == 404 else str(error.detail),
        request_id=request.state.request_id,
        headers=error.headers or {},
    )
    return _answer(request, problem)


def _answer(request: Request, problem: Problem) -> Response:
    return _shown(site_of(request).renderer, problem, request.url.path)


def _shown(renderer: Renderer, problem: Problem, path: str) -> Response:
    """For programs a problem body, for people a page."""
    if path.startswith("/v1/"):
        return JSONResponse(problem.body(), problem.status, problem.headers, problem.media_type)
    answer = renderer.page("problem.html", problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer
