"""Approvals: proposed irreversible actions that wait for a person, and the states they go through.

    pending ──┬─> denied
              ├─> expired                  nobody decided in time
              ├─> withdrawn                the run does not wait for it any more
              └─> approved ──┬─> withdrawn    it may not be executed as it was approved: `reason` says why
                     ^       v
                     ├── executing ──┬─> executed
                     │               ├─> withdrawn              the tool said that it did not act
                     │               ├─> failed                 the tool raised
                     │               └─> unknown_after_crash    its process is gone
                     │
                     └── from executing            its process is gone, and the tool is idempotent
                         from failed or unknown    a person, or the tool's `reconcile`, says that it did not happen

    failed, unknown_after_crash ──┬─> executed     a person or `reconcile` says that it happened
                                  └─> withdrawn    the user's data was erased

Only the process that moved an approval from `approved` to `executing` may execute the action. If that process dies, or
the tool raises, the action may or may not have happened: it is *uncertain*. It is executed again only if the tool is
idempotent, that is, if it uses the approval's id as its idempotency key. Otherwise the tool's `reconcile` says whether
it happened. If the tool has none, or it cannot tell, a person settles it.
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
UNCERTAIN: frozenset[State] = frozenset({"failed", "unknown_after_crash"})
"""The states of an action that may have happened, until it is settled."""
StateFilter = Literal[State, "uncertain", "open"]
"""What a list of approvals may be limited to: one state, the states in UNCERTAIN, or these and `pending`."""
Transition = Literal[
    "approve",
    "deny",
    "expire",
    "withdraw",
    "abandon",
    "begin",
    "begin_again",
    "complete",
    "fail",
    "decline",
    "return",
    "lose_track",
    "confirm",
    "retry",
]

DECISION_PERIOD = timedelta(hours=72)
"""How long people have to decide, unless the agent sets another period."""
EXECUTION_LEASE = timedelta(minutes=15)
"""How long an execution counts as under way without being renewed."""

TRANSITIONS: Mapping[Transition, tuple[frozenset[State], State]] = {
    "approve": (frozenset({"pending"}), "approved"),
    "deny": (frozenset({"pending"}), "denied"),
    "expire": (frozenset({"pending"}), "expired"),
    "withdraw": (frozenset({"pending", "approved"}), "withdrawn"),
    "abandon": (UNCERTAIN, "withdrawn"),
    "begin": (frozenset({"approved"}), "executing"),
    "begin_again": (frozenset({"executing"}), "executing"),
    "complete": (frozenset({"executing"}), "executed"),
    "fail": (frozenset({"executing"}), "failed"),
    "decline": (frozenset({"executing"}), "withdrawn"),
    "return": (frozenset({"executing"}), "approved"),
    "lose_track": (frozenset({"executing", "approved"}), "unknown_after_crash"),
    "confirm": (UNCERTAIN, "executed"),
    "retry": (UNCERTAIN, "approved"),
}
"""Every transition: the states it may start from and the state it leads to."""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A proposed call of a tool, bound to its arguments by `digest`, and its state.

    Attributes:
        round: How many times its run has stopped to wait; the run goes on once all approvals of a round are decided.
        arguments: As they were validated, with their defaults: JSON.
        schema_hash: The SHA-256 of the JSON schema of the tool's parameters when the call was proposed, in hexadecimal.
        digest: Of the tool, its schema and the arguments; see `digest`.
        approver: Who decides: `requester` (the user who started the run) or `role:NAME`.
        idempotent: Whether the tool does the work only once for one approval id, however often it is called.
        executing_until: When the execution counts as abandoned, unless it is renewed. An approved action that has it
            was begun before, by a process that is gone, and may have happened.
        attempts: How many times its execution was begun.
        result: What the tool returned if the action was executed, and the error's text if it failed. A failed action of
            a tool that is not idempotent may have happened nevertheless.
        reason: Why an approved action was not executed, or what `reconcile` or a person found out about an uncertain
            one.
        happened: What the last settlement of an uncertain action said; None if there was none.
        settled_by: Who said whether an uncertain action happened; None if it was the tool's `reconcile`.
        settled_at: When an uncertain action was last settled.
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
    schema_hash: str
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
    attempts: int = 0
    result: Any = None
    reason: str | None = None
    happened: bool | None = None
    settled_by: str | None = None
    settled_at: datetime | None = None


@dataclass(frozen=True)
class Execute:
    """This caller, and no other, may execute the action now."""


@dataclass(frozen=True)
class AlreadyExecuted:
    """The action was executed, once, with this result."""

    result: Any
    is_known: bool = True
    """False if it was found out later that the action happened, so that nobody knows what it returned."""


@dataclass(frozen=True)
class NotApproved:
    """The action may not be executed: its state forbids it, or the call differs from the one that was proposed."""

    state: State
    reason: str | None = None
    """Why it ended unexecuted, if it was approved."""


@dataclass(frozen=True)
class CallDiffers:
    """The call is not the one that was approved: people have to be asked again."""


@dataclass(frozen=True)
class UnknownEffect:
    """The action was begun before, and may or may not have happened; it is not executed again."""

    detail: str
    """What is known about it."""


BeginResult: TypeAlias = Execute | AlreadyExecuted | NotApproved | CallDiffers | UnknownEffect


def digest(tool: str, arguments: Mapping[str, Any], schema_hash: str) -> str:
    """The identity of a call: the SHA-256, in hexadecimal, of its canonical JSON.

    The order of keys does not matter, at any depth; a value's type does: 1, 1.0, "1" and True have four digests.

    Args:
        tool: The tool's name.
        arguments: JSON.
        schema_hash: Identifies the schema that the arguments were validated with.
    """
    return hashlib.sha256(canonical_json([tool, schema_hash, dict(arguments)]).encode()).hexdigest()
