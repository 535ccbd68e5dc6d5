"""One governed run, from question to outcome."""

from .approving import idempotency_key
from .asking import CACHED
from .attempt import Fallback, Route
from .capability import Governance
from .ending import OutcomeNotStored
from .fingerprint import Fingerprint
from .forgetting import UserRuns, forget_runs, runs_of_user
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
from .shares import PathPoint, paths_over_time
from .stops import ActionUncertain, CeilingReached, NotResumable
from .store import (
    OutcomeView,
    RunView,
    TakenOver,
    known_runs,
    last_outcomes,
    list_runs,
    load_input,
    load_outcomes,
    load_prompt,
    load_run,
)
from .streaming import Ended, Retracted, StreamEvent, TextDelta, ToolCalled, ToolReturned
from .tools import Effect, effect_of, tool

__all__ = [
    "CACHED",
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
    "PathPoint",
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
    "UserRuns",
    "current_runtime",
    "effect_of",
    "feedback",
    "forget_runs",
    "govern",
    "idempotency_key",
    "known_runs",
    "last_outcomes",
    "list_runs",
    "load_input",
    "load_outcomes",
    "load_prompt",
    "load_run",
    "paths_over_time",
    "runs_of_user",
    "tool",
    "use_runtime",
]
