"""Executes a run: dependencies, route, agent, fallback, and the commit of how it ended.

Every call of `run` and `resume` goes through `execute`, which returns an outcome only once it is committed.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.exceptions import FallbackExceptionGroup
from pydantic_ai.messages import ModelMessage
from pydantic_ai.run import AgentRunResult

from handrail.fallback.routing import Confidence, RouteDecision, decide_route
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import StoreError
from handrail.review.approvals.errors import StillExecuting
from handrail.review.approvals.store import propose, withdraw
from handrail.runs.store.pauses import Pause, store_pause

from . import user_messages
from .approvals import new_approvals
from .completion import commit_exception, commit_outcome, release
from .errors import ActionUncertain, CeilingReached, InnerActionBlocked, ResumeFailed
from .faults import ToolFault, fault_from, is_bug
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
    proposals_of,
)
from .output import allow_deferred_tools, run_output_validators, validator_context
from .output_check import OutputCheck, error_text
from .record import RunRecord
from .request import RunRequest
from .request_hook import sending
from .resume import blocked_outcome, record_waiting_time
from .run_governance import RunGovernance

OutputT = TypeVar("OutputT")
DepsT = TypeVar("DepsT")

Fallback: TypeAlias = Callable[[RunRequest], Awaitable[OutputT | None]]
"""The deterministic handler: takes the request, with its deps, and returns an output, or None if it has none."""
MakeDeps: TypeAlias = Callable[[RunRequest], DepsT | Awaitable[DepsT]]
"""Makes a run's dependencies from its request."""
Route: TypeAlias = Callable[[RunRequest], Confidence | Awaitable[Confidence]]
"""Returns how likely the agent is to get a request right."""


@dataclass(frozen=True, kw_only=True)
class GovernedSpec(Generic[DepsT, OutputT]):
    """What `govern` was given: an agent and the rules for its runs."""

    agent: Agent[DepsT, OutputT]
    name: str
    deps: MakeDeps[DepsT] | None
    fallback: Fallback[OutputT] | None
    route: Route | None
    threshold: float
    message: Callable[[OutputT], str]


@dataclass(frozen=True, kw_only=True)
class RunCall:
    """One call of `run` or `resume`: the run's record, and what the caller passed for this call only."""

    record: RunRecord
    history: Sequence[ModelMessage] | None
    make_deps: MakeDeps[Any] | None
    agent_options: Mapping[str, Any]
    """Passed to `Agent.run` unchanged."""
    output_check: OutputCheck
    """Checks the fallback's output against the agent's output type."""
    message: Callable[[Any], str]
    """Returns the text of an output that the user reads."""
    earlier_messages: Sequence[ModelMessage] = ()
    """A resumed run's own messages from before it stopped."""


@dataclass(frozen=True, kw_only=True)
class UncommittedOutcome(Generic[OutputT]):
    """How a run ended, not yet committed."""

    outcome: Outcome[OutputT]
    messages: Sequence[ModelMessage] | None = None
    """What the run adds to its conversation; with None, the user's input and the outcome's message."""
    ops: Sequence[Operation[Any]] = ()
    """Operations to commit together with the outcome."""


async def execute(spec: GovernedSpec[DepsT, OutputT], call: RunCall) -> Outcome[OutputT]:
    """Runs the agent once, commits the outcome and returns it.

    Args:
        spec: The governed agent.
        call: The call of `run` or `resume`.

    Raises:
        ResumeFailed: A resumed run cannot go on here; it can be resumed again.
        StoreError: The store failed; OutcomeNotStored if the run had already ended.
    """
    record = call.record
    try:
        async with record.keep_lease():
            with record.root_span() as root:
                with sending(record):
                    uncommitted = await _reach_outcome(spec, call)
                # Only now: a run that cannot go on is resumed again, and waited only once.
                record_waiting_time(record, list(record.approvals.values()))
                record.ended = True
                outcome = uncommitted.outcome
                root.payload["outcome"] = outcome
                if isinstance(outcome, Failed | FellBack):
                    root.fail(outcome.fault.code)
    except GeneratorExit:
        # The event loop is closed, so nothing more can be awaited; it is as if the process had died.
        record.ended = True
        raise
    except BaseException as error:
        record.ended = True
        await (release(record) if stays_resumable(record.round, error) else commit_exception(record, error))
        raise
    ops = [*uncommitted.ops, *_withdrawals(record, outcome)]
    try:
        await commit_outcome(record, outcome, uncommitted.messages, *ops)
    except GeneratorExit:
        raise
    except BaseException as error:
        if stays_resumable(record.round, error):
            await release(record)
        raise
    return outcome


def stays_resumable(round_: int, error: BaseException) -> bool:
    """Whether a run that is left by an exception keeps waiting to be resumed, as if its process had died.

    What people approved must not be lost because a process was stopped or its store failed. A programming error would
    only happen again.

    Args:
        round_: How often the run has stopped for approvals.
        error: What it was left by.
    """
    return round_ > 0 and (
        not isinstance(error, Exception) or isinstance(error, ResumeFailed | StillExecuting | StoreError)
    )


def _withdrawals(record: RunRecord, outcome: Outcome[Any]) -> list[Operation[Any]]:
    """Ends the approvals that a resumed run leaves unexecuted, unless it goes on once an action was checked."""
    goes_on = isinstance(outcome, AwaitingApproval) or (
        isinstance(outcome, Escalated) and outcome.reason == ActionUncertain.code
    )
    return [] if goes_on or not record.round else [withdraw(record.request.run_id)]


async def _reach_outcome(spec: GovernedSpec[DepsT, OutputT], call: RunCall) -> UncommittedOutcome[OutputT]:
    """Runs the agent, or what takes its place. Programming errors, cancellation and a failing store propagate."""
    record, request = call.record, call.record.request
    escalated = blocked_outcome(record, list(record.approvals.values()))
    if escalated is not None:
        return UncommittedOutcome(outcome=escalated)
    outcome: Outcome[OutputT]
    try:
        request = await _with_deps(request, call.make_deps)
        # A resumed run was routed when it started.
        decision = None if record.round else await _route(spec, record, request)
        if decision is None:
            result = await _run_agent(spec, call, request)
            _check_reached(record)
            if record.stopped_by is not None:
                # A tool swallowed the exception, and the agent answered without it.
                raise record.stopped_by
            return _outcome_of_result(call, result)
        outcome = await _handle_routed(spec, call, request, decision)
    except Exception as error:  # noqa: BLE001 - one that is no fault is raised again
        _check_reached(record, error)
        if not isinstance(record.stopped_by, InnerActionBlocked):
            outcome = await _outcome_of_error(spec, call, request, record.stopped_by or error)
    if isinstance(record.stopped_by, InnerActionBlocked):
        outcome = blocked_inner_outcome(record, record.stopped_by)
    return UncommittedOutcome(outcome=outcome)


def _check_reached(record: RunRecord, error: Exception | None = None) -> None:
    """Raises ResumeFailed if the agent has ended without coming to what people approved, because of `error` if any."""
    if record.unreached and record.stopped_by is None:
        raise record.not_reached(error) from error


async def _outcome_of_error(
    spec: GovernedSpec[DepsT, OutputT], call: RunCall, request: RunRequest, error: Exception
) -> Outcome[OutputT]:
    """How the run ends because of an exception; re-raises one that is nobody's fault but the program's."""
    record = call.record
    if isinstance(error, FallbackExceptionGroup) and isinstance(error.exceptions[-1], CeilingReached):
        error = error.exceptions[-1]
    if isinstance(error, CeilingReached):
        return refused_outcome(record, error)
    if isinstance(error, ActionUncertain):
        return uncertain_outcome(record, error)
    fault = fault_from(error)
    if fault is None:
        raise error
    # What stopped the agent does not stop the fallback, which may use a model of its own.
    record.stopped_by = None
    return await _fall_back(spec, call, request, fault)


def refused_outcome(record: RunRecord, error: CeilingReached) -> Refused:
    """The outcome after a ceiling refused a request; its message says when it resets, in the ceilings' time zone."""
    refusal = error.refusal
    resets_at = refusal.resets_at
    local_reset = None if resets_at is None else resets_at.astimezone(record.runtime.limits.time_zone)
    return Refused(refusal=refusal, message=user_messages.refused(refusal.scope, local_reset), facts=record.facts())


def blocked_inner_outcome(record: RunRecord, error: InnerActionBlocked) -> Escalated:
    """The escalation after an agent inside a tool wanted an irreversible action, which was not executed."""
    with record.recorder.span("escalate", {"handrail.reason": str(error)}) as span:
        span.fail(error.code)
    return Escalated(
        reason=error.code,
        message=user_messages.ESCALATED,
        facts=record.facts(),
        proposals=(Proposal(tool=error.tool, arguments=error.arguments, call_id=error.call_id),),
        detail=str(error),
    )


def uncertain_outcome(record: RunRecord, error: ActionUncertain) -> Escalated:
    """The escalation to a person, who has to check whether the action took place."""
    approval = error.approval
    action = Proposal(tool=approval.tool, arguments=approval.arguments, call_id=approval.call_id)
    with record.recorder.span("escalate", {"handrail.reason": str(error)}) as span:
        span.fail("action_uncertain")
    return Escalated(
        reason="action_uncertain",
        message=user_messages.UNCERTAIN,
        facts=record.facts(),
        proposals=(action,),
        detail=str(error),
    )


async def _with_deps(request: RunRequest, make_deps: MakeDeps[Any] | None) -> RunRequest:
    if request.deps is not None or make_deps is None:
        return request
    try:
        deps = make_deps(request)
        return replace(request, deps=await deps if inspect.isawaitable(deps) else deps)
    except Exception as error:
        if is_bug(error):
            raise
        raise ToolFault("deps", error) from error


async def _route(spec: GovernedSpec[DepsT, OutputT], record: RunRecord, request: RunRequest) -> RouteDecision | None:
    """The decision if it bypasses the model; None if the run goes to the model or has no route."""
    if spec.route is None:
        return None
    with record.recorder.span("route", {"handrail.route.threshold": spec.threshold}) as span:
        try:
            result = spec.route(request)
            confidence = await result if inspect.isawaitable(result) else result
        except Exception as error:
            if is_bug(error):
                raise
            raise ToolFault("route", error) from error
        decision = decide_route(confidence, spec.threshold)
        span.set(
            {
                "handrail.route.to": decision.to,
                "handrail.route.reason": decision.reason,
                "handrail.route.confidence": confidence.value,
            }
        )
    return None if decision.to == "model" else decision


async def _run_agent(spec: GovernedSpec[DepsT, OutputT], call: RunCall, request: RunRequest) -> AgentRunResult[Any]:
    """Runs the Pydantic AI agent with the run's capability outermost; every model call happens in it."""
    record, options = call.record, call.agent_options
    if options.get("model") is None and spec.agent.model is None:
        options = {**options, "model": await asyncio.to_thread(record.runtime.model)}
    result: AgentRunResult[Any] = await allow_deferred_tools(spec.agent).run(
        # A resumed run's input is among its messages.
        None if record.round else request.input,
        deps=request.deps,
        message_history=call.history,
        conversation_id=request.conversation_id,
        **{**options, "capabilities": [RunGovernance(record), *(options.get("capabilities") or ())]},
    )
    return result


async def _handle_routed(
    spec: GovernedSpec[DepsT, OutputT], call: RunCall, request: RunRequest, decision: RouteDecision
) -> Outcome[OutputT]:
    """The handler's answer to a request that bypassed the model; an escalation if it has none."""
    outcome = await _fall_back(spec, call, request, Fault(code=decision.reason, detail=decision.detail))
    if not isinstance(outcome, Failed):
        return outcome
    detail = outcome.fault.detail
    return Escalated(reason=decision.reason, message=user_messages.ESCALATED, facts=outcome.facts, detail=detail)


async def _fall_back(
    spec: GovernedSpec[DepsT, OutputT], call: RunCall, request: RunRequest, fault: Fault
) -> FellBack[OutputT] | Failed:
    """The handler's answer in place of the model's, checked as strictly; `Failed` if it has none."""
    record, output = call.record, None
    if spec.fallback is not None:
        with record.recorder.span("fallback", {"handrail.fault": fault.code}) as span:
            try:
                output = await spec.fallback(request)
                if output is not None:
                    call.output_check.check(output)
                    if call.agent_options.get("output_type") is None:
                        ctx = validator_context(spec.agent, call.agent_options.get("model"), request, record.totals)
                        output = await run_output_validators(spec.agent, ctx, output)
            except Exception as error:
                if is_bug(error):
                    raise
                span.fail("fallback_failed")
                fault = Fault(code=fault.code, detail=f"{fault.detail}; the fallback failed too: {error_text(error)}")
                output = None
            span.payload["output"] = output
    if output is None:
        return Failed(fault=fault, message=user_messages.failed(fault.code), facts=record.facts())
    return FellBack(output=output, fault=fault, message=call.message(output), facts=record.facts())


def _outcome_of_result(call: RunCall, result: AgentRunResult[Any]) -> UncommittedOutcome[Any]:
    record, output = call.record, result.output
    own_messages = [*call.earlier_messages, *result.new_messages()]
    if not isinstance(output, DeferredToolRequests):
        answered = Answered(output=output, message=call.message(output), facts=record.facts(), retried=record.retried)
        return UncommittedOutcome(outcome=answered, messages=own_messages)
    if output.calls or not output.approvals:
        # The agent expects its caller to execute these calls, which Handrail does not do, so the run cannot go on.
        escalated = Escalated(
            reason="external_call",
            message=user_messages.PROPOSED,
            facts=record.facts(),
            proposals=proposals_of(output),
        )
        return UncommittedOutcome(outcome=escalated)
    return _await_approval(call, output, result.all_messages(), len(own_messages))


def _await_approval(
    call: RunCall, deferred: DeferredToolRequests, messages: Sequence[ModelMessage], own_count: int
) -> UncommittedOutcome[Any]:
    """Stops the run until people decide.

    The outcome, the approvals and the state to resume from are committed together. Otherwise a decided approval could
    have no run to resume, or a run could wait for an approval that does not exist.
    """
    record = call.record
    # A response may have mistakes beside the calls that people decide; it is repeated once they have.
    rejection = record.loop.repeats(messages)
    instruction = "" if rejection is None else record.retry.use(rejection)
    approvals = new_approvals(record, deferred)
    pause = Pause(
        round=record.round + 1,
        messages=messages,
        new_from=len(messages) - own_count,
        root_span_id=record.root_span_id,
        tools=record.totals.tools,
        retries_used=record.retry.used,
        retry_instruction=instruction,
        deps_handed_over=record.request.deps is not None,
    )
    return UncommittedOutcome(
        outcome=AwaitingApproval(approvals=approvals, message=user_messages.PROPOSED, facts=record.facts()),
        ops=(propose(approvals), store_pause(record.request.run_id, pause)),
    )
