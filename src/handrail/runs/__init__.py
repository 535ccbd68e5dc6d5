"""One governed run, from question to outcome."""

from .capability import Governance
from .ending import OutcomeNotStored
from .fingerprint import Fingerprint
from .governed import Fallback, GovernedAgent, Trials, govern
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
from .store import (
    OutcomeView,
    RunView,
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
    "Answered",
    "AwaitingApproval",
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
    "Outcome",
    "OutcomeNotStored",
    "OutcomeView",
    "Path",
    "Proposal",
    "Refused",
    "Retracted",
    "RunInput",
    "RunRequest",
    "RunView",
    "Runtime",
    "StreamEvent",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "Trials",
    "current_runtime",
    "effect_of",
    "govern",
    "list_runs",
    "load_input",
    "load_outcomes",
    "load_prompt",
    "load_run",
    "path_counts",
    "tool",
    "use_runtime",
]
