"""The types that `govern` infers from the agent, and the factories, fallbacks and messages that it accepts."""

from typing import assert_type

from pydantic_ai import Agent

from handrail import Confidence, GovernedAgent, RunRequest, govern
from tests.typing.support import Desk, Triage, open_desk, triage_agent, triage_by_rules

# The types of the dependencies and the output are the agent's own.
assert_type(govern(triage_agent, name="support", deps=open_desk), GovernedAgent[Desk, Triage])
assert_type(govern(Agent("test"), name="chat"), GovernedAgent[object, str])
assert_type(govern(triage_agent, name="support").agent, Agent[Desk, Triage])
assert_type(govern(triage_agent, name="support").name, str)


async def open_desk_async(request: RunRequest) -> Desk:
    return Desk(request.tenant)


def route(_request: RunRequest) -> Confidence:
    raise NotImplementedError


async def route_async(_request: RunRequest) -> Confidence:
    raise NotImplementedError


# Factories and routes may be asynchronous.
govern(triage_agent, name="support", deps=open_desk_async, route=route_async)
govern(triage_agent, name="support", deps=open_desk, route=route, threshold=0.9)


def open_shop(request: RunRequest) -> str:
    return request.tenant


async def answer_with_text(request: RunRequest) -> str | None:
    return request.text


def triage_sync(_request: RunRequest) -> Triage | None:
    return None


async def route_by_number(_request: RunRequest) -> float:
    return 0.9


def length_of(triage: Triage) -> int:
    return len(triage.category)


# Dependencies of another type, a fallback with another output or that is not asynchronous, a route without a calibrated
# confidence, a message that is not text, and a missing name are errors.
govern(triage_agent, name="support", deps=open_shop)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mixed: GovernedAgent[Desk, Triage] = govern(triage_agent, name="support", fallback=answer_with_text)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
govern(triage_agent, name="support", fallback=triage_sync)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
govern(triage_agent, name="support", route=route_by_number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
govern(triage_agent, name="support", message=length_of)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
govern(triage_agent, name="support", fallback=triage_by_rules, message=lambda triage: triage.title)  # type: ignore[attr-defined]  # pyright: ignore[reportUnknownMemberType, reportUnknownLambdaType, reportAttributeAccessIssue]
govern(triage_agent)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
govern(triage_agent, "support")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
