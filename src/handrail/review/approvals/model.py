"""An irreversible action that waits for a person, and the moves it may make.

    pending ──┬─> denied
              ├─> expired                  nobody decided in time
              ├─> withdrawn                nobody is asked any more
              └─> approved <──┐
                     │        │ its process is gone, and the tool is idempotent
                     v        │
                  executing ──┼─> executed
                              ├─> failed                  the tool raised
                              └─> unknown_after_crash     its process is gone, and the tool is not idempotent

Only the one who moved an approval from `approved` to `executing` may execute the action. What is in `executing` when
its process dies may or may not have happened: it is executed again only where the tool is idempotent, that is, where
it takes the approval's id as its idempotency key; else a person is told.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

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
Move = Literal[
    "approve", "deny", "expire", "withdraw", "begin", "begin_again", "complete", "fail", "return", "lose_track"
]

EXPIRES = timedelta(hours=72)
"""How long people have to decide, unless the agent says otherwise."""
EXECUTING = timedelta(minutes=15)
"""How long an execution counts as under way without being renewed."""

MOVES: Mapping[Move, tuple[State, State]] = {
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
"""Every move there is: the state it starts from and the state it leads to."""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A proposed call of a tool, bound to its arguments by `digest`, and how it stands.

    `round` counts the times its run stopped to ask; the run goes on once all approvals of a round are decided.
    `arguments` are JSON. `approver` is `requester` (the user who started the run) or `role:NAME`. `result` is what the
    tool returned where the action was executed, and the error's text where it failed. A failed action of a tool that is
    not idempotent may have happened all the same.
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
    """The action was executed, once; this is what the tool returned then."""

    result: Any


@dataclass(frozen=True)
class NotApproved:
    """The action may not be executed: its state forbids it, or the call's digest is not the one that was proposed."""

    state: State


@dataclass(frozen=True)
class Unknown:
    """The process that executed the action is gone; it may or may not have happened, and is not executed again."""


Begun: TypeAlias = Execute | AlreadyExecuted | NotApproved | Unknown


def digest(tool: str, arguments: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a call as canonical JSON.

    The order of keys does not matter, at any depth; a value's type does: 1, 1.0, "1" and True are four digests.
    """
    return hashlib.sha256(canonical([tool, dict(arguments)]).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON in ASCII with sorted keys: a text that every store can hold, and that loses nothing of `value`.

    Halves of characters are escaped, and non-finite floats written as Python's json module reads them.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
