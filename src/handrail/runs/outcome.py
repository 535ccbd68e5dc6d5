"""How a run stands: one closed type, and what each way of ending counts as.

Every outcome has a `message` fit for the user, and a `path`; the shares of the paths are a measured service level.
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
PATHS: tuple[Path, ...] = ("happy", "fallback", "human", "refused", "failed")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An expected failure of a model, a tool or a provider. `code` is stable, `detail` is for engineers."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A call that a run handed over without making it."""

    tool: str
    arguments: Mapping[str, Any]
    call_id: str


def proposed(asked: DeferredToolRequests) -> tuple[Proposal, ...]:
    """What a run that stopped before some calls leaves to others."""
    calls = [*asked.approvals, *asked.calls]
    return tuple(
        Proposal(tool=call.tool_name, arguments=call.args_as_dict(), call_id=call.tool_call_id) for call in calls
    )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run cost and where to look it up."""

    run_id: str
    trace_id: str
    duration: timedelta
    cost: NanoUsd = ZERO
    requests: int = 0
    tools: tuple[str, ...] = ()
    """The tools that were executed, in order."""
    model: str | None = None
    """The first model that was asked, as `provider:name`; None where none was."""
    agent_hash: str | None = None
    """The fingerprint of the whole agent, known once a model was asked."""


@dataclass(frozen=True, kw_only=True)
class Answered(Generic[OutputT]):
    """The agent's own answer; it satisfies the output type. `retried` says malformed work was put right on the way."""

    type: ClassVar[str] = "answered"
    output: OutputT
    message: str
    facts: Facts
    retried: bool = False

    @property
    def path(self) -> Path:
        return "fallback" if self.retried else "happy"


@dataclass(frozen=True, kw_only=True)
class FellBack(Generic[OutputT]):
    """The deterministic handler's answer, validated like the agent's; `fault` says why it was needed."""

    type: ClassVar[str] = "fell_back"
    path: ClassVar[Path] = "fallback"
    output: OutputT
    fault: Fault
    message: str
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Escalated:
    """Handed to a person. `reason` is stable, `detail` is for the person who looks."""

    type: ClassVar[str] = "escalated"
    path: ClassVar[Path] = "human"
    reason: str
    message: str
    facts: Facts
    proposals: tuple[Proposal, ...] = ()
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class AwaitingApproval:
    """Stopped before irreversible actions until people decide. Not an ending: it has no path yet."""

    type: ClassVar[str] = "awaiting_approval"
    path: ClassVar[None] = None
    approvals: tuple[Approval, ...]
    message: str
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Stopped by a ceiling before it could be crossed; `refusal` has the arithmetic."""

    type: ClassVar[str] = "refused"
    path: ClassVar[Path] = "refused"
    refusal: Refusal
    message: str
    facts: Facts

    @property
    def scope(self) -> str:
        """Whose ceiling it is: the run's, the user's, the tenant's; or `price` where nobody knows the model's."""
        return self.refusal.scope

    @property
    def resets_at(self) -> datetime | None:
        """When to try again; None where waiting does not help."""
        return self.refusal.resets_at


@dataclass(frozen=True, kw_only=True)
class Failed:
    """No answer, and no fallback that had one."""

    type: ClassVar[str] = "failed"
    path: ClassVar[Path] = "failed"
    fault: Fault
    message: str
    facts: Facts = field(repr=False)


Outcome: TypeAlias = Answered[OutputT] | FellBack[OutputT] | Escalated | AwaitingApproval | Refused | Failed
