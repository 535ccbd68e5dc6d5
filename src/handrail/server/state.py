"""What the pages and the API stand on: one object, made by `create_app`, found in every request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime

from .bind_policy import Door
from .charts import Charts
from .rate_limit import Buckets
from .templating import Renderer


@dataclass(frozen=True, kw_only=True)
class Site:
    """`find_agent` gives a governed agent by its name; it raises NotFound and BadSettings."""

    runtime: Runtime
    find_agent: Callable[[str], GovernedAgent[Any, Any]]
    door: Door
    buckets: Buckets
    renderer: Renderer
    charts: Charts


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    site: Site = request.app.state.site
    return site
