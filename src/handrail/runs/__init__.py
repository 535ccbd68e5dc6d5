"""One governed run, from question to outcome."""

from .approving import idempotency_key
from .attempt import Fallback, Route
from .capability import Governance
from .ending import OutcomeNotStored
from .fingerprint import Fingerprint
from .governed import GovernedAgent, Trials, govern
from .marking import feedback
from .outcome import (
    PATHS,
    Answered,
    AwaitingApproval,
    Escalated,
    Facts,
    Failed,
    Fault,
    FellBack,
    Outcome,
    Path,
    Proposal,
    Refused,
)
from .request import RunInput, RunRequest
from .runtime import Runtime, current_runtime, use_runtime
from .stops import ActionUncertain, CeilingReached, NotResumable
from .store import (
    OutcomeView,
    RunView,
    TakenOver,
    list_runs,
    load_input,
    load_outcomes,
    load_prompt,
    load_run,
    path_counts,
)
from .streaming import Ended, Retracted, StreamEvent, TextDelta, ToolCalled, ToolReturned
from .tools import Effect, effect_of, tool

__all__ = [
    "PATHS",
    "ActionUncertain",
    "Answered",
    "AwaitingApproval",
    "CeilingReached",
    "Effect",
    "Ended",
    "Escalated",
    "Facts",
    "Failed",
    "Fallback",
    "Fault",
    "FellBack",
    "Fingerprint",
    "Governance",
    "GovernedAgent",
    "NotResumable",
    "Outcome",
    "OutcomeNotStored",
    "OutcomeView",
    "Path",
    "Proposal",
    "Refused",
    "Retracted",
    "Route",
    "RunInput",
    "RunRequest",
    "RunView",
    "Runtime",
    "StreamEvent",
    "TakenOver",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "Trials",
    "current_runtime",
    "effect_of",
    "feedback",
    "govern",
    "idempotency_key",
    "list_runs",
    "load_input",
    "load_outcomes",
    "load_prompt",
    "load_run",
    "path_counts",
    "tool",
    "use_runtime",
]
