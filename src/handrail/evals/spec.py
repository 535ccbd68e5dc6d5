"""`EvalSpec`: how an agent is evaluated. It is defined beside the agent, which does not depend on it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias

from typing_extensions import TypeVar

from handrail.evals.scorer import Evaluator, Scorer
from handrail.kernel.errors import BadInput
from handrail.runs.agent import GovernedAgent
from handrail.runs.execution import MakeDeps
from handrail.runs.outcome import Outcome

DepsT = TypeVar("DepsT", default=Any)
OutputT = TypeVar("OutputT", default=Any)

EVALS_TENANT = "evals"
"""The tenant of every trial's run, so that trials do not count as production runs."""

AgentFunction: TypeAlias = Callable[[str], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Takes a case's input and returns the fields that are compared with what the case expects."""
Observe: TypeAlias = Callable[[Outcome[OutputT]], Mapping[str, Any]]
"""Extracts from an outcome the fields that are compared with what the case expects."""


def observe_nothing(_outcome: Outcome[Any]) -> Mapping[str, Any]:
    """The `observe` of a spec whose agent is a function, which returns its fields itself."""
    return {}


@dataclass(frozen=True, kw_only=True)
class EvalSpec(Generic[DepsT, OutputT]):
    """How an agent is evaluated: its frozen cases, what of an outcome is compared with them, and what scores a trial.

    An `EvalSpec` is a module-level value. `handrail eval` finds it in the module of its agent, in a module `evals`
    in the same package, or by its entry under `[evals]` in handrail.toml.

    Args:
        agent: What `govern()` returned, or any function that takes a case's input and returns, directly or when
            awaited, the fields to compare. A function that raises an exception fails its trial.
        cases: The eval set, a YAML file; its lock file is in the same folder.
        observe: Extracts from an outcome the fields that cases expect. Required for a governed agent.
        name: The agent's name, if `agent` is a function; a governed agent has its own.
        deps: Makes the dependencies of one trial, in place of those that the agent gets in production.
        scorers: Each of them scores every trial. Without any, every field that a case expects must match exactly.
        seconds: How long a trial may take; one that takes longer is stopped and fails.

    Raises:
        BadInput: The arguments do not fit the kind of agent.
    """

    agent: GovernedAgent[DepsT, OutputT] | AgentFunction
    cases: Path
    observe: Observe[OutputT] = observe_nothing
    name: str = ""
    deps: MakeDeps[DepsT] | None = None
    scorers: Sequence[Scorer | Evaluator] = ()
    seconds: float = 600

    def __post_init__(self) -> None:
        observes = self.observe is not observe_nothing
        if isinstance(self.agent, GovernedAgent):
            if self.name not in ("", self.agent.name):
                raise BadInput(f"EvalSpec: name {self.name!r} of agent {self.agent.name}; leave `name` out")
            if not observes:
                raise BadInput(
                    f"EvalSpec of agent {self.agent.name}: there is no `observe`; pass a function that takes an "
                    "Outcome and returns the fields to compare"
                )
            object.__setattr__(self, "name", self.agent.name)
        elif not self.name:
            raise BadInput("EvalSpec of a function: there is no name; pass `name=`, such as name='triage'")
        elif observes or self.deps is not None:
            raise BadInput(
                f"EvalSpec of function {self.name}: `observe` and `deps` are for governed agents; leave them out and "
                "return the fields to compare from the function"
            )
        if self.seconds <= 0:
            raise BadInput(f"EvalSpec of {self.name}: seconds is {self.seconds}; give a time above 0")
