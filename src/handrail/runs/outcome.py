"""How a run ended: one closed type, and the path that each outcome counts as.

Every outcome has a `message` fit for the user, and a `path`; the shares of the paths are a service level.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from pydantic_ai import DeferredToolRequests

from handrail.ceilings.decision import Refusal
from handrail.kernel.money import ZERO, NanoUsd
from handrail.review.approvals.model import Approval

OutputT = TypeVar("OutputT")

Path = Literal["happy", "fallback", "human", "refused", "failed"]
"""What a run counts as."""
PATHS: tuple[Path, ...] = ("happy", "fallback", "human", "refused", "failed")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An expected failure of a model, a tool or a provider."""

    code: str
    """Stable, for programs: `model_timeout`, `tool_failed`, `output_malformed`, `looping` and so on."""
    detail: str
    """What happened, for engineers; not fit for users."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A tool call that the run did not make, and leaves to a person."""

    tool: str
    arguments: Mapping[str, Any]
    """The arguments that the model chose, by parameter."""
    call_id: str
    """The id that the model gave the call."""


def proposals_of(deferred: DeferredToolRequests) -> tuple[Proposal, ...]:
    """The calls that a run stopped before, as proposals to a person."""
    calls = [*deferred.approvals, *deferred.calls]
    return tuple(
        Proposal(tool=call.tool_name, arguments=call.args_as_dict(), call_id=call.tool_call_id) for call in calls
    )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run cost, and where to look it up."""

    run_id: str
    """For `handrail runs show`."""
    trace_id: str
    """For `handrail traces show`."""
    duration: timedelta
    """From the call of `run` or `resume` to its outcome, without the time that people took to decide."""
    cost: NanoUsd = ZERO
    """In nano-dollars, over all the run's model requests."""
    requests: int = 0
    """Model requests that were sent."""
    tools: tuple[str, ...] = ()
    """The tools that were executed, in order."""
    model: str | None = None
    """The first model that was called, as `provider:name`; None if none was."""
    agent_hash: str | None = None
    """The fingerprint of the whole agent; None if no model was called."""


@dataclass(frozen=True, kw_only=True)
class Answered(Generic[OutputT]):
    """The agent's own answer."""

    type: ClassVar[str] = "answered"
    output: OutputT
    """Validated against the agent's output type, and complete."""
    message: str
    """What the user reads."""
    facts: Facts
    retried: bool = False
    """Whether the run used its one stricter retry after malformed output."""

    @property
    def path(self) -> Path:
        """`fallback` after a retry, else `happy`."""
        return "fallback" if self.retried else "happy"


@dataclass(frozen=True, kw_only=True)
class FellBack(Generic[OutputT]):
    """The deterministic handler's answer, in place of the agent's."""

    type: ClassVar[str] = "fell_back"
    path: ClassVar[Path] = "fallback"
    output: OutputT
    """Validated against the agent's output type."""
    fault: Fault
    """Why the fallback was needed: a fault, or a route that bypassed the model (`low_confidence`, `out_of_scope`)."""
    message: str
    """What the user reads."""
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Escalated:
    """Handed to a person."""

    type: ClassVar[str] = "escalated"
    path: ClassVar[Path] = "human"
    reason: str
    """Stable, for programs: `approval_expired`, `action_uncertain`, `low_confidence` and so on."""
    message: str
    """What the user reads."""
    facts: Facts
    proposals: tuple[Proposal, ...] = ()
    """Tool calls that the run did not make, or whose effect has to be checked."""
    detail: str = ""
    """What the person who takes over should know."""


@dataclass(frozen=True, kw_only=True)
class AwaitingApproval:
    """Stopped before irreversible actions until people decide. The run goes on later, so it has no path yet."""

    type: ClassVar[str] = "awaiting_approval"
    path: ClassVar[None] = None
    approvals: tuple[Approval, ...]
    """One for each action; the run can be resumed once all of them are decided."""
    message: str
    """What the user reads."""
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A ceiling refused a model request before it was sent."""

    type: ClassVar[str] = "refused"
    path: ClassVar[Path] = "refused"
    refusal: Refusal
    """The arithmetic: what was requested, spent and held, and what would fit."""
    message: str
    """What the user reads."""
    facts: Facts

    @property
    def scope(self) -> str:
        """Whose ceiling it is: `run`, `user` or `tenant`. It is `price` if the model's price is not known, and
        `unbounded` if the cost of the request has no bound."""
        return self.refusal.scope

    @property
    def resets_at(self) -> datetime | None:
        """When to try again, in UTC; None if waiting does not help."""
        return self.refusal.resets_at


@dataclass(frozen=True, kw_only=True)
class Failed:
    """No answer from the agent, and none from a fallback."""

    type: ClassVar[str] = "failed"
    path: ClassVar[Path] = "failed"
    fault: Fault
    """What went wrong."""
    message: str
    """What the user reads."""
    facts: Facts = field(repr=False)


Outcome: TypeAlias = Answered[OutputT] | FellBack[OutputT] | Escalated | AwaitingApproval | Refused | Failed
"""How a run ended; `match` on it."""
