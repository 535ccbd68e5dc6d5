"""The application's state: what every request handler has access to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from handrail.evals.spec import EvalSpec
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime

from .bind_policy import BindPolicy
from .charts import ChartRenderer
from .rate_limit import RateLimiter
from .templating import Renderer


@dataclass(frozen=True, kw_only=True)
class AppState:
    """What `create_app` creates once for all requests.

    Attributes:
        find_agent: Returns a governed agent by its name; it raises NotFound and BadSettings.
        find_eval_spec: Returns the eval spec of an agent by the agent's name; it raises the same.
    """

    runtime: Runtime
    find_agent: Callable[[str], GovernedAgent[Any, Any]]
    find_eval_spec: Callable[[str], EvalSpec[Any, Any]]
    bind_policy: BindPolicy
    rate_limiter: RateLimiter
    renderer: Renderer
    charts: ChartRenderer


def app_state(request: Request) -> AppState:
    """The state of the application that received a request."""
    state: AppState = request.app.state.handrail
    return state
