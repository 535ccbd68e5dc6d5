"""A run returns one of six outcomes; answers have the agent's output type."""

from datetime import datetime
from typing import assert_never, assert_type

from handrail import (
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
from tests.typing.support import Desk, Triage, support


async def outcomes() -> None:
    """Every way of running an agent returns the same type."""
    assert_type(await support.run("Where is my parcel?", user="u-17"), Outcome[Triage])
    assert_type(await support.resume("run_1"), Outcome[Triage])
    assert_type(support.run_sync("Where is my parcel?", user="u-17"), Outcome[Triage])


def match_all(outcome: Outcome[Triage]) -> None:
    """Matching a class narrows to its fields, and matching all six is exhaustive."""
    match outcome:
        case Answered(output=output, retried=retried):
            assert_type(outcome, Answered[Triage])
            assert_type(output, Triage)
            assert_type(retried, bool)
        case FellBack(output=output, fault=fault):
            assert_type(outcome, FellBack[Triage])
            assert_type(output, Triage)
            assert_type(fault, Fault)
        case Escalated(reason=reason, proposals=proposals):
            assert_type(reason, str)
            assert_type(proposals, tuple[Proposal, ...])
        case AwaitingApproval(approvals=approvals):
            assert_type(approvals[0].approval_id, str)
        case Refused(scope=scope, resets_at=resets_at):
            assert_type(scope, str)
            assert_type(resets_at, datetime | None)
        case Failed(fault=fault):
            assert_type(fault, Fault)
        case _:
            assert_never(outcome)


def match_some(outcome: Outcome[Triage]) -> None:
    """A match that misses an outcome is an error at `assert_never`."""
    match outcome:
        case Answered() | FellBack() | Escalated() | AwaitingApproval() | Refused():
            pass
        case _:
            assert_never(outcome)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def common_fields(outcome: Outcome[Triage]) -> None:
    """Every outcome has a message, its facts and the name of its type; only an answer has an output."""
    assert_type(outcome.message, str)
    assert_type(outcome.facts, Facts)
    assert_type(outcome.type, str)
    outcome.output  # type: ignore[union-attr]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]


def narrow(outcome: Outcome[Triage]) -> None:
    """`isinstance` keeps the output type too."""
    if isinstance(outcome, Answered | FellBack):
        assert_type(outcome.output, Triage)
    if isinstance(outcome, Answered):
        assert_type(outcome.output.category, str)
        outcome.output.title  # type: ignore[attr-defined]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]


def immutable(outcome: Answered[Triage]) -> None:
    """An outcome is frozen and invariant in its output type."""
    outcome.message = "changed"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    text: Answered[str] = outcome  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del text


async def call(desk: Desk) -> None:
    """A run takes the agent's own dependencies, and always a user."""
    await support.run("Hello", user="u-17", tenant="acme", deps=desk)
    await support.run("Hello", user="u-17", make_deps=lambda request: Desk(request.tenant))
    await support.run("Hello")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await support.run("Hello", user=17)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await support.run("Hello", user="u-17", deps="desk")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await support.run(b"Hello", user="u-17")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await support.resume("run_1", deps="desk")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    support.run_sync("Hello")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
