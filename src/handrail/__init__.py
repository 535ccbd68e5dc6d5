"""Handrail: what your agent holds on to in production.

from handrail import Answered, govern, tool

support = govern(Agent(..., tools=[tool(find_order, effect="reads")]), name="support", fallback=rules)
outcome = await support.run("I was charged twice", user="u-17", tenant="acme")
"""

from typing import TYPE_CHECKING, Any

from .fallback import Calibration, Confidence
from .kernel import (
    BadInput,
    BadSettings,
    HandrailError,
    MissingExtra,
    NanoUsd,
    NotFound,
    Settings,
    StoreError,
    load_settings,
    show_usd,
)
from .runs import (
    ActionUncertain,
    Answered,
    AwaitingApproval,
    CeilingReached,
    Ended,
    Escalated,
    Facts,
    Failed,
    Fault,
    FellBack,
    Fingerprint,
    Governance,
    GovernedAgent,
    NotResumable,
    Outcome,
    OutcomeNotStored,
    Proposal,
    Refused,
    Retracted,
    RunRequest,
    Runtime,
    StreamEvent,
    TextDelta,
    ToolCalled,
    ToolReturned,
    Trials,
    feedback,
    govern,
    idempotency_key,
    tool,
    use_runtime,
)
from .traces import parallel, step

if TYPE_CHECKING:
    from .evals import (
        Scored,
        Seen,
        at_least,
        close,
        contains,
        exact,
        fields,
        graded,
        json_schema,
        lacks,
        matches,
        normalised,
        within,
        world,
    )

__all__ = [
    "ActionUncertain",
    "Answered",
    "AwaitingApproval",
    "BadInput",
    "BadSettings",
    "Calibration",
    "CeilingReached",
    "Confidence",
    "Ended",
    "Escalated",
    "Facts",
    "Failed",
    "Fault",
    "FellBack",
    "Fingerprint",
    "Governance",
    "GovernedAgent",
    "HandrailError",
    "MissingExtra",
    "NanoUsd",
    "NotFound",
    "NotResumable",
    "Outcome",
    "OutcomeNotStored",
    "Proposal",
    "Refused",
    "Retracted",
    "RunRequest",
    "Runtime",
    "Scored",
    "Seen",
    "Settings",
    "StoreError",
    "StreamEvent",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "Trials",
    "at_least",
    "close",
    "contains",
    "exact",
    "feedback",
    "fields",
    "govern",
    "graded",
    "idempotency_key",
    "json_schema",
    "lacks",
    "load_settings",
    "matches",
    "normalised",
    "parallel",
    "show_usd",
    "step",
    "tool",
    "use_runtime",
    "within",
    "world",
]

_SCORERS = frozenset(
    {
        "Scored",
        "Seen",
        "at_least",
        "close",
        "contains",
        "exact",
        "fields",
        "graded",
        "json_schema",
        "lacks",
        "matches",
        "normalised",
        "within",
        "world",
    }
)


def __getattr__(name: str) -> Any:
    # Scorers are for tests and evals: 0.15 s that a program in production need not pay.
    if name in _SCORERS:
        from . import evals

        return getattr(evals, name)
    raise AttributeError(f"module 'handrail' has no attribute {name!r}")
