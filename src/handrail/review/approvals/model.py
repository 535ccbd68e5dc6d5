"""Approvals: proposed irreversible actions that wait for a person, and the states they go through.

    pending ──┬─> denied
              ├─> expired                  nobody decided in time
              ├─> withdrawn                the run does not wait for it any more
              └─> approved <──┐
                     │        │ its process is gone, and the tool is idempotent
                     v        │
                  executing ──┼─> executed
                              ├─> failed                  the tool raised
                              └─> unknown_after_crash     its process is gone, and the tool is not idempotent

Only the process that moved an approval from `approved` to `executing` may execute the action. If that process dies, the
action may or may not have happened. It is executed again only if the tool is idempotent, that is, if it uses the
approval's id as its idempotency key; otherwise a person has to find out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from handrail.kernel.serialization import canonical_json

State = Literal[
    "pending",
    "approved",
    "denied",
    "expired",
    "withdrawn",
    "executing",
    "executed",
    "failed",
    "unknown_after_crash",
]
Transition = Literal[
    "approve", "deny", "expire", "withdraw", "begin", "begin_again", "complete", "fail", "return", "lose_track"
]

DECISION_PERIOD = timedelta(hours=72)
"""How long people have to decide, unless the agent sets another period."""
EXECUTION_LEASE = timedelta(minutes=15)
"""How long an execution counts as under way without being renewed."""

TRANSITIONS: Mapping[Transition, tuple[State, State]] = {
    "approve": ("pending", "approved"),
    "deny": ("pending", "denied"),
    "expire": ("pending", "expired"),
    "withdraw": ("pending", "withdrawn"),
    "begin": ("approved", "executing"),
    "begin_again": ("executing", "executing"),
    "complete": ("executing", "executed"),
    "fail": ("executing", "failed"),
    "return": ("executing", "approved"),
    "lose_track": ("executing", "unknown_after_crash"),
}
"""Every transition: the state it starts from and the state it leads to."""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A proposed call of a tool, bound to its arguments by `digest`, and its state.

    Attributes:
        round: How many times its run has stopped to wait; the run goes on once all approvals of a round are decided.
        arguments: JSON.
        digest: Of the tool and the arguments; see `digest`.
        approver: Who decides: `requester` (the user who started the run) or `role:NAME`.
        idempotent: Whether the tool does the work only once for one approval id, however often it is called.
        executing_until: When the execution counts as abandoned, unless it is renewed.
        result: What the tool returned if the action was executed, and the error's text if it failed. A failed action of
            a tool that is not idempotent may have happened nevertheless.
    """

    approval_id: str
    run_id: str
    round: int
    tenant: str
    user: str
    agent: str
    tool: str
    call_id: str
    arguments: Mapping[str, Any]
    digest: str
    approver: str
    idempotent: bool
    state: State
    proposed_at: datetime
    expires_at: datetime
    decided_by: str | None = None
    decided_at: datetime | None = None
    note: str | None = None
    executing_until: datetime | None = None
    result: Any = None


@dataclass(frozen=True)
class Execute:
    """This caller, and no other, may execute the action now."""


@dataclass(frozen=True)
class AlreadyExecuted:
    """The action was executed, once, with this result."""

    result: Any


@dataclass(frozen=True)
class NotApproved:
    """The action may not be executed: its state forbids it, or the call differs from the one that was proposed."""

    state: State


@dataclass(frozen=True)
class UnknownEffect:
    """The process that executed the action is gone; it may or may not have happened, and is not executed again."""


BeginResult: TypeAlias = Execute | AlreadyExecuted | NotApproved | UnknownEffect


def digest(tool: str, arguments: Mapping[str, Any]) -> str:
    """The identity of a call: the SHA-256, in hexadecimal, of its canonical JSON.

    The order of keys does not matter, at any depth; a value's type does: 1, 1.0, "1" and True have four digests.

    Args:
        tool: The tool's name.
        arguments: JSON.
    """
    return hashlib.sha256(canonical_json([tool, dict(arguments)]).encode()).hexdigest()
