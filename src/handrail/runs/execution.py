"""One attempt at a run: its deps, the route, the model, and the way out where one of them stops it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import TypeAdapter
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage
from pydantic_ai.run import AgentRunResult

from handrail.fallback.routing import Confidence, Decision, decide_route
from handrail.kernel.db.group_writer import Op
from handrail.review.approvals.store import propose
from handrail.runs.store.pauses import Pause, keep_pause

from . import user_messages
from .approvals import proposals
from .capability import RunGovernance
from .errors import ActionUncertain, CeilingReached
from .faults import ToolFault, fault_of, is_bug
from .outcome import (
    Answered,
    AwaitingApproval,
    Escalated,
    Failed,
    Fault,
    FellBack,
    Outcome,
    Proposal,
    Refused,
    proposed,
)
from .output import deferring, validated
from .record import Record
from .request import RunRequest

OutputT = TypeVar("OutputT")
DepsT = TypeVar("DepsT")

Fallback: TypeAlias = Callable[[RunRequest], Awaitable[OutputT | None]]
"""The deterministic handler: gets the request, with its deps, and gives an output, or None where it has none."""
MakeDeps: TypeAlias = Callable[[RunRequest], DepsT | Awaitable[DepsT]]
"""Makes a run's dependencies from its request."""
Route: TypeAlias = Callable[[RunRequest], Confidence | Awaitable[Confidence]]
"""How likely it is that the agent will get this request right."""


@dataclass(frozen=True, kw_only=True)
class Unit(Generic[DepsT, OutputT]):
    """What `govern` was given: the agent, and what stands beside it."""

    agent: Agent[DepsT, OutputT]
    name: str
    deps: MakeDeps[DepsT] | None
    fallback: Fallback[OutputT] | None
    route: Route | None
    threshold: float
    message: Callable[[OutputT], str]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One call of `run` or `resume`: its record, and what of the caller's it goes by."""

    record: Record
    history: Sequence[ModelMessage] | None
    make_deps: MakeDeps[Any] | None
    passed: Mapping[str, Any]
    adapter: TypeAdapter[Any]
    message: Callable[[Any], str]
    said_before: Sequence[ModelMessage] = ()
    """What a run that is carried on had said of its own until it stopped."""


@dataclass(frozen=True, kw_only=True)
class Ending(Generic[OutputT]):
    """An outcome, the agent's own messages where they are what was said, and what is committed with it."""

    outcome: Outcome[OutputT]
    said: Sequence[ModelMessage] | None = None
    ops: Sequence[Op] = field(default=())


async def attempt(unit: Unit[DepsT, OutputT], asked: Asked) -> Ending[OutputT]:
    """How the run ends. Programming errors, cancellation and a failing store pass through."""
    record, request = asked.record, asked.record.request
    try:
        request = await _with_deps(request, asked.make_deps)
        elsewhere = None if record.round else await _routed_elsewhere(unit, record, request)
        if elsewhere is not None:
            return Ending(outcome=await _handled(unit, asked, request, elsewhere))
        result = await _run(unit, asked, request)
    except CeilingReached as stop:
        return Ending(outcome=refused(record, stop))
    except ActionUncertain as stop:
        return Ending(outcome=uncertain(record, stop))
    except Exception as error:
        fault = fault_of(error)
        if fault is None:
            raise
        return Ending(outcome=await _fall_back(unit, asked, request, fault))
    return _ended(asked, result)


def refused(record: Record, stop: CeilingReached) -> Refused:
    """Stopped by a ceiling; the user reads when it resets, in the ceilings' own time zone."""
    resets = stop.refusal.resets_at
    local = None if resets is None else resets.astimezone(record.runtime.limits.time_zone)
    return Refused(refusal=stop.refusal, message=user_messages.refused(stop.refusal.scope, local), facts=record.facts())


def uncertain(record: Record, stop: ActionUncertain) -> Escalated:
    """Handed to a person, who has to look whether the action took place."""
    found = stop.approval
    action = Proposal(tool=found.tool, arguments=found.arguments, call_id=found.call_id)
    with record.recorder.span("escalate", {"handrail.reason": str(stop)}) as live:
        live.fail("action_uncertain")
    return Escalated(
        reason="action_uncertain",
        message=user_messages.UNCERTAIN,
        facts=record.facts(),
        proposals=(action,),
        detail=str(stop),
    )


async def _run(unit: Unit[DepsT, OutputT], asked: Asked, request: RunRequest) -> AgentRunResult[Any]:
    record, passed = asked.record, asked.passed
    if passed.get("model") is None and unit.agent.model is None:
        passed = {**passed, "model": await asyncio.to_thread(record.runtime.model)}
    result: AgentRunResult[Any] = await deferring(unit.agent).run(
        # A run that is carried on has its input among its messages.
        None if record.round else request.input,
        deps=request.deps,
        message_history=asked.history,
        conversation_id=request.conversation_id,
        **{**passed, "capabilities": [RunGovernance(record), *(passed.get("capabilities") or ())]},
    )
    return result


def _ended(asked: Asked, result: AgentRunResult[Any]) -> Ending[Any]:
    record, output, own = asked.record, result.output, [*asked.said_before, *result.new_messages()]
    if not isinstance(output, DeferredToolRequests):
        outcome = Answered(output=output, message=asked.message(output), facts=record.facts(), retried=record.retried)
        return Ending(outcome=outcome, said=own)
    if output.calls or not output.approvals:
        # Calls that somebody outside is to make: nobody here can carry the run on.
        return Ending(
            outcome=Escalated(
                reason="external_call", message=user_messages.PROPOSED, facts=record.facts(), proposals=proposed(output)
            )
        )
    asked_for = proposals(record, output)
    everything = result.all_messages()
    pause = Pause(
        round=record.round + 1,
        messages=everything,
        new_from=len(everything) - len(own),
        root_span_id=record.root_span_id,
        tools=record.tools,
        retries_used=record.retry.used,
        deps_handed_over=record.request.deps is not None,
    )
    return Ending(
        outcome=AwaitingApproval(approvals=asked_for, message=user_messages.PROPOSED, facts=record.facts()),
        ops=(propose(asked_for), keep_pause(record.request.run_id, pause)),
    )


async def _routed_elsewhere(unit: Unit[DepsT, OutputT], record: Record, request: RunRequest) -> Decision | None:
    """The decision where it leads past the model; None where the run goes to the model or has no route."""
    if unit.route is None:
        return None
    with record.recorder.span("route", {"handrail.route.threshold": unit.threshold}) as live:
        try:
            found = unit.route(request)
            confidence = await found if inspect.isawaitable(found) else found
        except Exception as error:
            if is_bug(error):
                raise
            raise ToolFault("route", error) from error
        decision = decide_route(confidence, unit.threshold)
        live.set(
            {
                "handrail.route.to": decision.to,
                "handrail.route.reason": decision.reason,
                "handrail.route.confidence": confidence.value,
            }
        )
    return None if decision.to == "model" else decision


async def _handled(
    unit: Unit[DepsT, OutputT], asked: Asked, request: RunRequest, decision: Decision
) -> Outcome[OutputT]:
    """The handler's answer to what was routed past the model; a person, where it has none."""
    outcome = await _fall_back(unit, asked, request, Fault(code=decision.reason, detail=decision.detail))
    if not isinstance(outcome, Failed):
        return outcome
    detail = outcome.fault.detail
    return Escalated(reason=decision.reason, message=user_messages.ESCALATED, facts=outcome.facts, detail=detail)


async def _fall_back(
    unit: Unit[DepsT, OutputT], asked: Asked, request: RunRequest, fault: Fault
) -> FellBack[OutputT] | Failed:
    """The handler's answer in place of the model's, held to the same type; `Failed` where it has none."""
    record, output = asked.record, None
    if unit.fallback is not None:
        with record.recorder.span("fallback", {"handrail.fault": fault.code}) as live:
            try:
                output = await unit.fallback(request)
                if output is not None:
                    output = validated(asked.adapter, output)
            except Exception as error:
                if is_bug(error):
                    raise
                live.fail("fallback_failed")
                fault = Fault(code=fault.code, detail=f"{fault.detail}; the fallback failed too: {error}")
                output = None
            live.payload["output"] = output
    if output is None:
        return Failed(fault=fault, message=user_messages.failed(fault.code), facts=record.facts())
    return FellBack(output=output, fault=fault, message=asked.message(output), facts=record.facts())


async def _with_deps(request: RunRequest, make: MakeDeps[Any] | None) -> RunRequest:
    if request.deps is not None or make is None:
        return request
    try:
        made = make(request)
        return replace(request, deps=await made if inspect.isawaitable(made) else made)
    except Exception as error:
        if is_bug(error):
            raise
        raise ToolFault("deps", error) from error
