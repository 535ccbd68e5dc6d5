"""`govern`: a Pydantic AI agent becomes a named unit of production, whose every run ends in one of six ways."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import TypeAdapter
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from handrail.kernel import BadInput, new_id

from . import messages, store
from .ending import end_by_exception, end_run
from .faults import ToolFault, fault_of, is_bug
from .fingerprint import define
from .governance import RunGovernance
from .outcome import Answered, Escalated, Failed, Fault, FellBack, Outcome, proposed
from .output import also_deferring, deferring, output_adapter, validated
from .record import Record
from .request import RunInput, RunRequest, checked_input, checked_name
from .runtime import Runtime, current_runtime
from .streaming import StreamEvent, streamed

OutputT = TypeVar("OutputT")
DepsT = TypeVar("DepsT")

Fallback: TypeAlias = Callable[[RunRequest], Awaitable[OutputT | None]]
"""The deterministic handler: gets the request, with its deps, and gives an output, or None where it has none."""
MakeDeps: TypeAlias = Callable[[RunRequest], DepsT | Awaitable[DepsT]]
"""Makes a run's dependencies from its request."""
Observe: TypeAlias = Callable[[Outcome[OutputT]], Mapping[str, Any]]
"""What of an outcome an eval case's expectations are compared with."""


@dataclass(frozen=True, kw_only=True)
class Trials(Generic[DepsT, OutputT]):
    """How an agent is put to the test: frozen cases, what of an outcome they speak of, a fresh world for each."""

    cases: Path
    observe: Observe[OutputT]
    deps: MakeDeps[DepsT] | None = None


def govern(
    agent: Agent[DepsT, OutputT],
    *,
    name: str,
    deps: MakeDeps[DepsT] | None = None,
    fallback: Fallback[OutputT] | None = None,
    message: Callable[[OutputT], str] | None = None,
    trials: Trials[DepsT, OutputT] | None = None,
) -> "GovernedAgent[DepsT, OutputT]":
    """`agent` under Handrail's rules, itself unchanged.

    `deps` makes a run's dependencies from its request where `run` is given none; `fallback` answers where the model
    cannot; `message` is what of an output the user reads (the output itself where it is text); `trials` says how it is
    evaluated. Raises BadInput for a name that is none.
    """
    if not name or not all(part.isalnum() for part in name.split("-")):
        raise BadInput(f"agent name {name!r}: letters, digits and single hyphens between them, such as support-triage")
    return GovernedAgent(agent, name, deps, fallback, message or _as_text, trials)


class GovernedAgent(Generic[DepsT, OutputT]):
    """Made by `govern`. `agent` is the Pydantic AI agent it governs, `trials` how it is evaluated."""

    def __init__(
        self,
        agent: Agent[DepsT, OutputT],
        name: str,
        deps: MakeDeps[DepsT] | None,
        fallback: Fallback[OutputT] | None,
        message: Callable[[OutputT], str],
        trials: Trials[DepsT, OutputT] | None,
    ) -> None:
        self.agent = agent
        self.name = name
        self.trials = trials
        self._deps = deps
        self._fallback = fallback
        self._message = message
        self._definition = define(agent, {"fallback": fallback})
        self._adapter = output_adapter(agent.output_type)

    async def run(
        self,
        input: RunInput = None,  # noqa: A002 - what a run is given is its input, in every place
        *,
        user: str,
        tenant: str = "default",
        conversation_id: str | None = None,
        message_history: Sequence[ModelMessage] | None = None,
        deps: DepsT | None = None,
        make_deps: MakeDeps[DepsT] | None = None,
        **passed: Any,
    ) -> Outcome[OutputT]:
        """Runs the agent for one user of one tenant and says how it ended; everything is committed before it returns.

        `passed` goes to `Agent.run` as it is; `make_deps` takes the place of the agent's own factory for this run. With
        a `conversation_id` and no `message_history`, the conversation so far is taken from the store.

        Raises BadInput for an input or a name that is none, StoreError where nothing can
        be recorded (then nothing ran, or OutcomeNotStored holds what did); programming errors and cancellation pass
        through, recorded.
        """
        runtime = current_runtime()
        run_id = new_id("run", runtime.clock.now())
        checked_name("tenant", tenant)
        if conversation_id is not None:
            checked_name("conversation_id", conversation_id)
            if message_history is None:
                message_history = await _stored_history(runtime, tenant, conversation_id)
        request = RunRequest(
            run_id=run_id,
            agent=self.name,
            input=checked_input(input, may_be_empty=bool(message_history)),
            user=checked_name("user", user),
            tenant=tenant,
            conversation_id=conversation_id or run_id,
            deps=deps,
        )
        own_type = passed.get("output_type")
        return await self._recorded(
            _Asked(
                record=Record(runtime, self._definition, request),
                history=message_history,
                make_deps=make_deps or self._deps,
                passed=passed if own_type is None else {**passed, "output_type": also_deferring(own_type)},
                adapter=self._adapter if own_type is None else output_adapter(own_type),
                message=self._message if own_type is None else _as_text,
            )
        )

    def run_sync(self, input: RunInput = None, *, user: str, **passed: Any) -> Outcome[OutputT]:  # noqa: A002
        """`run` for code without an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return _runner().run(self.run(input, user=user, **passed))
        raise BadInput("run_sync: an event loop is running here; use `await agent.run(...)`")

    def stream(
        self,
        input: RunInput = None,  # noqa: A002
        *,
        user: str,
        **passed: Any,
    ) -> AsyncGenerator[StreamEvent[OutputT]]:
        """`run`, told while it happens: provisional text, tools, and `Ended` with the committed outcome at the end.

        Leaving early cancels the run; wrap it in `contextlib.aclosing` so that this happens at once.
        """
        return streamed(lambda handler: self.run(input, user=user, event_stream_handler=handler, **passed))

    async def _recorded(self, asked: "_Asked") -> Outcome[OutputT]:
        record = asked.record
        try:
            async with record.leased():
                with record.root() as root:
                    outcome, said = await self._attempt(asked)
                    root.payload["outcome"] = outcome
                    if isinstance(outcome, Failed | FellBack):
                        root.fail(outcome.fault.code)
        except BaseException as error:
            await end_by_exception(record, error)
            raise
        await end_run(record, outcome, said)
        return outcome

    async def _attempt(self, asked: "_Asked") -> tuple[Outcome[OutputT], Sequence[ModelMessage] | None]:
        """The outcome, and the agent's own messages where they are what was said."""
        record, request, passed = asked.record, asked.record.request, asked.passed
        try:
            request = await _with_deps(request, asked.make_deps)
            if passed.get("model") is None and self.agent.model is None:
                passed = {**passed, "model": await asyncio.to_thread(record.runtime.model)}
            result: Any = await deferring(self.agent).run(
                request.input,
                deps=request.deps,
                message_history=asked.history,
                conversation_id=request.conversation_id,
                **{**passed, "capabilities": [RunGovernance(record), *(passed.get("capabilities") or ())]},
            )
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            return await self._fall_back(asked, request, fault), None
        facts, output = record.facts(), result.output
        if isinstance(output, DeferredToolRequests):
            proposals = proposed(output)
            reason = "irreversible_action"
            return Escalated(reason=reason, message=messages.PROPOSED, facts=facts, proposals=proposals), None
        answered = Answered(output=output, message=asked.message(output), facts=facts, retried=record.retried)
        return answered, result.new_messages()

    async def _fall_back(self, asked: "_Asked", request: RunRequest, fault: Fault) -> Outcome[OutputT]:
        """The handler's answer in place of the model's, held to the same type; `Failed` where it has none."""
        record, output = asked.record, None
        if self._fallback is not None:
            with record.recorder.span("fallback", {"handrail.fault": fault.code}) as live:
                try:
                    output = await self._fallback(request)
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
            return Failed(fault=fault, message=messages.failed(fault.code), facts=record.facts())
        return FellBack(output=output, fault=fault, message=asked.message(output), facts=record.facts())


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One call of `run`: its record, and what of the caller's it goes by."""

    record: Record
    history: Sequence[ModelMessage] | None
    make_deps: MakeDeps[Any] | None
    passed: Mapping[str, Any]
    adapter: TypeAdapter[Any]
    message: Callable[[Any], str]


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


async def _stored_history(runtime: Runtime, tenant: str, conversation_id: str) -> list[ModelMessage]:
    bodies = await runtime.database.read(lambda conn: store.load_conversation(conn, tenant, conversation_id))
    return [message for body in bodies for message in ModelMessagesTypeAdapter.validate_json(body)]


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else messages.ANSWERED


_threads = threading.local()


def _runner() -> asyncio.Runner:
    # One loop per thread, kept: a model's HTTP connections belong to the loop they were opened in.
    if not hasattr(_threads, "runner"):
        _threads.runner = asyncio.Runner()
    runner: asyncio.Runner = _threads.runner
    return runner
