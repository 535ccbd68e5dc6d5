"""Handrail: what your agent holds on to in production.

from handrail import Answered, govern, tool

support = govern(Agent(..., tools=[tool(find_order, effect="reads")]), name="support", fallback=rules)
outcome = await support.run("I was charged twice", user="u-17", tenant="acme")
"""

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
    Answered,
    AwaitingApproval,
    Escalated,
    Facts,
    Failed,
    Fault,
    FellBack,
    Fingerprint,
    GovernedAgent,
    Outcome,
    OutcomeNotStored,
    Proposal,
    Refused,
    RunRequest,
    Runtime,
    Trials,
    govern,
    tool,
    use_runtime,
)

__all__ = [
    "Answered",
    "AwaitingApproval",
    "BadInput",
    "BadSettings",
    "Escalated",
    "Facts",
    "Failed",
    "Fault",
    "FellBack",
    "Fingerprint",
    "GovernedAgent",
    "HandrailError",
    "MissingExtra",
    "NanoUsd",
    "NotFound",
    "Outcome",
    "OutcomeNotStored",
    "Proposal",
    "Refused",
    "RunRequest",
    "Runtime",
    "Settings",
    "StoreError",
    "Trials",
    "govern",
    "load_settings",
    "show_usd",
    "tool",
    "use_runtime",
]
