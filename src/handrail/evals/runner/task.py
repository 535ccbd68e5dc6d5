"""What is put to the test: a governed agent as it is in production, or any callable."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from pydantic_ai.models import Model

from handrail.evals.eval_set.model import Case
from handrail.evals.tenant import TENANT
from handrail.kernel.errors import HandrailError, MissingExtra
from handrail.kernel.money import ZERO, NanoUsd
from handrail.models.factory import unasked_model
from handrail.models.local.weights import ModelUnavailable
from handrail.runs.agent import GovernedAgent, Trials
from handrail.runs.outcome import Facts, Failed, FellBack, Outcome, Refused
from handrail.runs.request import RunRequest
from handrail.runs.runtime import Runtime, use_runtime

from .response_cache import CachedResponses, Recorded, Responses

INFRASTRUCTURE = frozenset(
    {"model_unavailable", "model_timeout", "model_rate_limited", "model_quota", "model_auth", "model_unknown"}
)
"""Faults that say nothing about the agent: its model could not be asked."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of trying a case once.

    `error` is the infrastructure's fault where that was to blame. `world` are the deps of the trial, `result` is the
    outcome itself, or what a callable returned.
    """

    outcome: str
    path: str | None
    observed: Mapping[str, Any]
    run_id: str = ""
    cost: NanoUsd = ZERO
    model: str | None = None
    agent_hash: str | None = None
    error: str | None = None
    world: Any = None
    result: Any = None


class Task(Protocol):
    """Something that can be tried on cases."""

    name: str
    trials: Trials[Any, Any] | None

    async def attempt(self, runtime: Runtime, case: Case, trial: int, eval_run_id: str) -> Tried:
        """Tries a case. Raises SpendingLimit where the eval run's money is used up."""
        ...


class SpendingLimit(HandrailError):
    """The eval run has reached its spending limit: raise the limit and go on with it, since what it has is kept."""

    code: ClassVar[str] = "spending_limit"

    def __init__(self, eval_run_id: str, refused: Refused) -> None:
        super().__init__(
            f"eval run {eval_run_id} has reached its spending limit ({refused.refusal}); what it has is kept: raise "
            f"--max-cost and go on with --resume {eval_run_id}"
        )


class AgentTask:
    """A governed agent, run as it is; `responses` answer for its model where they know the request."""

    def __init__(self, agent: GovernedAgent[Any, Any], responses: Responses | None = None) -> None:
        self.name = agent.name
        self.trials = agent.trials
        self._agent = agent
        self._responses = responses
        self._unasked: Model | None = None

    async def attempt(self, runtime: Runtime, case: Case, trial: int, eval_run_id: str) -> Tried:
        assert self.trials is not None
        world = _World(self.trials.deps)
        cached = [] if self._responses is None else [CachedResponses(self._responses, trial)]
        with use_runtime(runtime):
            outcome = await self._agent.run(
                case.input,
                user=eval_run_id,
                tenant=TENANT,
                make_deps=None if world.factory is None else world.make,
                capabilities=cached,
                model=await self._stand_in(runtime),
            )
        if isinstance(outcome, Refused) and outcome.scope == "user":
            # Every eval run is a user of its own, so this ceiling is its spending limit.
            raise SpendingLimit(eval_run_id, outcome)
        facts: Facts = outcome.facts
        return Tried(
            outcome=outcome.type,
            path=outcome.path,
            observed=self.trials.observe(outcome),
            run_id=facts.run_id,
            cost=facts.cost,
            model=facts.model,
            agent_hash=facts.agent_hash,
            error=_infrastructure(outcome),
            world=world.made,
            result=outcome,
        )

    async def _stand_in(self, runtime: Runtime) -> Model | None:
        """What recorded answers are known by where the agent names no model and there is none to be had here."""
        if self._unasked is None and isinstance(self._responses, Recorded) and self._agent.agent.model is None:
            try:
                await asyncio.to_thread(runtime.model)
            except (ModelUnavailable, MissingExtra):
                self._unasked = unasked_model(runtime.settings)
        return self._unasked


Function: TypeAlias = Callable[[str], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Takes a case's input and gives what is to be compared with its expectations."""


class CallableTask:
    """Any callable, plain or asynchronous; what it raises is its own failure."""

    def __init__(self, function: Function, *, name: str, cases: Path, scorers: Sequence[Any] = ()) -> None:
        self.name = name
        self.trials: Trials[Any, Any] | None = Trials(cases=cases, observe=lambda _outcome: {}, scorers=tuple(scorers))
        self._function = function

    async def attempt(self, runtime: Runtime, case: Case, trial: int, eval_run_id: str) -> Tried:  # noqa: ARG002
        try:
            found = self._function(case.input)
            observed = await found if inspect.isawaitable(found) else found
        except Exception as error:  # noqa: BLE001 - a failed trial, told by its name
            return Tried(outcome="failed", path="failed", observed={}, result=error)
        return Tried(outcome="answered", path="happy", observed=observed, result=observed)


def task_of(subject: "GovernedAgent[Any, Any] | Task", responses: Responses | None = None) -> Task:
    """`subject` as a task."""
    return AgentTask(subject, responses) if isinstance(subject, GovernedAgent) else subject


class _World:
    """Keeps the deps that a trial was given, for scorers that look at what became of them."""

    def __init__(self, factory: Callable[[RunRequest], Any] | None) -> None:
        self.factory = factory
        self.made: Any = None

    async def make(self, request: RunRequest) -> Any:
        """The deps for this request, remembered."""
        assert self.factory is not None
        made = self.factory(request)
        self.made = await made if inspect.isawaitable(made) else made
        return self.made


def _infrastructure(outcome: Outcome[Any]) -> str | None:
    if isinstance(outcome, Failed | FellBack) and outcome.fault.code in INFRASTRUCTURE:
        return outcome.fault.code
    return None
