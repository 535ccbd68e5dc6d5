"""Executes a case once: with a governed agent, run as in production, or with any function."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_ai.models import Model

from handrail.evals.errors import SpendingLimit
from handrail.evals.eval_set.model import Case
from handrail.evals.spec import EVALS_TENANT, AgentFunction, EvalSpec
from handrail.kernel.errors import MissingExtra
from handrail.kernel.money import ZERO, NanoUsd
from handrail.models.errors import ModelUnavailable
from handrail.models.factory import replay_model
from handrail.runs.agent import GovernedAgent
from handrail.runs.outcome import Facts, Failed, FellBack, Outcome, Refused
from handrail.runs.request import RunRequest
from handrail.runs.runtime import Runtime, use_runtime

from .response_cache import RecordedResponses, ResponseCache, ResponseCaching

INFRASTRUCTURE_FAULTS = frozenset(
    {"model_unavailable", "model_timeout", "model_rate_limited", "model_quota", "model_auth", "model_unknown"}
)
"""Faults that say nothing about the agent: its model could not be reached, or sent nothing that can be read."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """How one execution of a case ended.

    `outcome` is the outcome's name, `result` the outcome itself, or what a function returned or raised. `deps` are the
    dependencies that the trial was given. `error` is the infrastructure fault that ended it, if one did.
    """

    outcome: str
    path: str | None
    observed: Mapping[str, Any]
    run_id: str = ""
    cost: NanoUsd = ZERO
    model: str | None = None
    agent_hash: str | None = None
    error: str | None = None
    deps: Any = None
    result: Any = None


class Task(Protocol):
    """What executes the cases of one spec."""

    async def execute(self, runtime: Runtime, case: Case, trial: int, eval_run_id: str) -> TaskResult:
        """Executes a case once. Raises SpendingLimit if the eval run may spend no more."""
        ...


def make_task(spec: EvalSpec[Any, Any], responses: ResponseCache | None = None) -> Task:
    """What executes the cases of `spec`; `responses` are used in place of its model where they have the request."""
    if isinstance(spec.agent, GovernedAgent):
        return AgentTask(spec, spec.agent, responses)
    return FunctionTask(spec.agent)


class AgentTask:
    """Runs the governed agent of a spec, each trial with dependencies of its own."""

    def __init__(
        self, spec: EvalSpec[Any, Any], agent: GovernedAgent[Any, Any], responses: ResponseCache | None = None
    ) -> None:
        self._spec = spec
        self._agent = agent
        self._responses = responses
        self._replay_model: Model | None = None

    async def execute(self, runtime: Runtime, case: Case, trial: int, eval_run_id: str) -> TaskResult:
        """Runs the agent on the case. Raises SpendingLimit if the eval run may spend no more."""
        deps = None if self._spec.deps is None else _DepsFactory(self._spec.deps)
        caching = [] if self._responses is None else [ResponseCaching(self._responses, trial)]
        with use_runtime(runtime):
            outcome = await self._agent.run(
                case.input,
                user=eval_run_id,
                tenant=EVALS_TENANT,
                make_deps=deps,
                capabilities=caching,
                model=await self._model_for_replay(runtime),
            )
        if isinstance(outcome, Refused) and outcome.scope == "user":
            # Every eval run is a user of its own, so the user's ceiling is the eval run's spending limit.
            raise SpendingLimit(eval_run_id, outcome)
        facts: Facts = outcome.facts
        return TaskResult(
            outcome=outcome.type,
            path=outcome.path,
            observed=self._spec.observe(outcome),
            run_id=facts.run_id,
            cost=facts.cost,
            model=facts.model,
            agent_hash=facts.agent_hash,
            error=_infrastructure_fault(outcome),
            deps=None if deps is None else deps.last,
            result=outcome,
        )

    async def _model_for_replay(self, runtime: Runtime) -> Model | None:
        """A model that is never called, for recorded responses and an agent without a model of its own.

        The key of a response contains the model's name. If the configured model cannot be opened here, such as the
        built-in one without its weights in CI, this one takes its name.
        """
        replays = isinstance(self._responses, RecordedResponses) and self._agent.agent.model is None
        if replays and self._replay_model is None:
            try:
                await asyncio.to_thread(runtime.model)
            except (ModelUnavailable, MissingExtra):
                self._replay_model = replay_model(runtime.settings)
        return self._replay_model


class FunctionTask:
    """Calls a function, plain or asynchronous. An exception that it raises is a failed trial."""

    def __init__(self, function: AgentFunction) -> None:
        self._function = function

    async def execute(self, runtime: Runtime, case: Case, trial: int, eval_run_id: str) -> TaskResult:  # noqa: ARG002
        """Calls the function with the case's input."""
        try:
            returned = self._function(case.input)
            observed = await returned if inspect.isawaitable(returned) else returned
        except Exception as error:  # noqa: BLE001 - whatever a function raises fails its trial
            return TaskResult(outcome="failed", path="failed", observed={}, result=error)
        return TaskResult(outcome="answered", path="happy", observed=observed, result=observed)


@dataclass
class _DepsFactory:
    """Makes the dependencies of one trial and keeps them for the scorers, which see their state after the run."""

    factory: Callable[[RunRequest], Any]
    last: Any = field(default=None, init=False)

    async def __call__(self, request: RunRequest) -> Any:
        deps = self.factory(request)
        self.last = await deps if inspect.isawaitable(deps) else deps
        return self.last


def _infrastructure_fault(outcome: Outcome[Any]) -> str | None:
    if isinstance(outcome, Failed | FellBack) and outcome.fault.code in INFRASTRUCTURE_FAULTS:
        return outcome.fault.code
    return None
