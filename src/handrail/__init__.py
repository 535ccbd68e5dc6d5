"""Takes LLM agents from demo to production: evals with a gate, ceilings, fallbacks, traces and approvals.

Example::

    from handrail import Answered, govern, tool

    support = govern(Agent(..., tools=[tool(find_order, effect="reads")]), name="support", fallback=rules)
    outcome = await support.run("I was charged twice", user="u-17", tenant="acme")

The names of this module, `handrail.evals`, `handrail.testing` and `handrail.pytest_plugin` are the public API.
"""

from importlib.metadata import version

from .ceilings.decision import LongConversation, Refusal
from .config.settings import AgentCeilings, Ceilings, ExportSettings, PriceOverride, Settings, WorkerSettings
from .config.sources import load_settings
from .exceptions import (
    ActionUncertain,
    BadInput,
    BadSettings,
    CeilingReached,
    HandrailError,
    InnerActionBlocked,
    MissingExtra,
    ModelUnavailable,
    NotFound,
    NotResumable,
    OutcomeNotStored,
    ResumeFailed,
    RunEnded,
    StillExecuting,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNewer,
    StoreOlder,
    StoreReadOnly,
    StoreUnreachable,
    TakenOver,
    WeightsUnavailable,
    WrongWeights,
)
from .fallback.routing import Calibration, Confidence
from .kernel.clock import Clock
from .kernel.money import NanoUsd, format_usd
from .review.approvals.model import Approval
from .review.feedback import Feedback
from .runs.agent import GovernedAgent, govern
from .runs.approvals import idempotency_key
from .runs.feedback import feedback
from .runs.fingerprint import Fingerprint
from .runs.governance import Governance
from .runs.outcome import (
    Answered,
    AwaitingApproval,
    Escalated,
    Facts,
    Failed,
    Fault,
    FellBack,
    Outcome,
    Proposal,
    Refused,
)
from .runs.request import RunRequest
from .runs.runtime import Runtime, use_runtime
from .runs.streaming import Ended, Retracted, StreamEvent, TextDelta, ToolCalled, ToolReturned
from .runs.tools import tool
from .traces.recorder.recorder import LiveSpan
from .traces.recorder.steps import StepSpan, parallel, step

__version__ = version("handrail")

__all__ = [
    "ActionUncertain",
    "AgentCeilings",
    "Answered",
    "Approval",
    "AwaitingApproval",
    "BadInput",
    "BadSettings",
    "Calibration",
    "CeilingReached",
    "Ceilings",
    "Clock",
    "Confidence",
    "Ended",
    "Escalated",
    "ExportSettings",
    "Facts",
    "Failed",
    "Fault",
    "Feedback",
    "FellBack",
    "Fingerprint",
    "Governance",
    "GovernedAgent",
    "HandrailError",
    "InnerActionBlocked",
    "LiveSpan",
    "LongConversation",
    "MissingExtra",
    "ModelUnavailable",
    "NanoUsd",
    "NotFound",
    "NotResumable",
    "Outcome",
    "OutcomeNotStored",
    "PriceOverride",
    "Proposal",
    "Refusal",
    "Refused",
    "ResumeFailed",
    "Retracted",
    "RunEnded",
    "RunRequest",
    "Runtime",
    "Settings",
    "StepSpan",
    "StillExecuting",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreNewer",
    "StoreOlder",
    "StoreReadOnly",
    "StoreUnreachable",
    "StreamEvent",
    "TakenOver",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "WeightsUnavailable",
    "WorkerSettings",
    "WrongWeights",
    "feedback",
    "format_usd",
    "govern",
    "idempotency_key",
    "load_settings",
    "parallel",
    "step",
    "tool",
    "use_runtime",
]
