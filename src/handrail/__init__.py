"""Handrail: what your agent holds on to in production.

from handrail import Answered, govern, tool

support = govern(Agent(..., tools=[tool(find_order, effect="reads")]), name="support", fallback=rules)
outcome = await support.run("I was charged twice", user="u-17", tenant="acme")
"""

from .config.settings import Settings, load_settings
from .fallback.routing import Calibration, Confidence
from .kernel.errors import BadInput, BadSettings, HandrailError, MissingExtra, NotFound, StoreError
from .kernel.money import NanoUsd, show_usd
from .runs.agent import GovernedAgent, govern
from .runs.approvals import idempotency_key
from .runs.completion import OutcomeNotStored
from .runs.errors import ActionUncertain, CeilingReached, NotResumable
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
from .traces.recorder.steps import parallel, step

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
    "Settings",
    "StoreError",
    "StreamEvent",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "feedback",
    "govern",
    "idempotency_key",
    "load_settings",
    "parallel",
    "show_usd",
    "step",
    "tool",
    "use_runtime",
]
