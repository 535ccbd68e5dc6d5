"""`govern` puts a Pydantic AI agent under Handrail's rules: each of its runs ends in one of six outcomes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from handrail.fallback.routing import DEFAULT_THRESHOLD
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.runs.store.pauses import load_pause

from . import user_messages
from .approvals import deferred_results
from .errors import DepsMissing
from .execution import Fallback, GovernedSpec, MakeDeps, Route, RunCall, execute
from .fingerprint import define_agent
from .outcome import Outcome
from .output import add_deferred_output, output_check
from .record import RunRecord
from .request import RunInput, RunRequest, validate_input, validate_name
from .resume import take_over_run
from .runtime import Runtime, current_runtime
from .store.queries import load_conversation, load_run
from .streaming import StreamEvent, stream_events
from .sync_runner import run_on_own_loop

OutputT = TypeVar("OutputT")
DepsT = TypeVar("DepsT")


def govern(
    agent: Agent[DepsT, OutputT],
    *,
    name: str,
    deps: MakeDeps[DepsT] | None = None,
    fallback: Fallback[OutputT] | None = None,
    route: Route | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    message: Callable[[OutputT], str] | None = None,
) -> "GovernedAgent[DepsT, OutputT]":
    """Puts `agent` under Handrail's rules; the agent itself is not changed.

    Args:
        agent: Any Pydantic AI agent. Declare with `handrail.tool` which of its tools are irreversible.
        name: The agent's name in the store, on the dashboard and in `handrail.toml`: letters, digits and single
            hyphens, such as `support-triage`.
        deps: Makes a run's dependencies from its `RunRequest` if `run` is given none; may be asynchronous.
        fallback: The deterministic handler, which answers when the model cannot. It returns None if it has no answer
            either. Its output is validated like the agent's own.
        route: Returns how likely the agent is to get a request right, before any model is called.
        threshold: The lowest confidence, from 0 to 1, at which a request goes to the model. Below it, or outside the
            agent's scope, a request goes to the fallback, and to a person if that has no answer.
        message: Returns the text of an output that the user reads; by default the output itself, if it is text.

    Returns:
        The governed agent, which is run in place of `agent`.

    Raises:
        BadInput: The name or the threshold is not valid.
    """
    if not name or not all(part.isalnum() for part in name.split("-")):
        raise BadInput(
            f"agent name {name!r}: use letters and digits, with single hyphens between them, such as support-triage"
        )
    if not 0 <= threshold <= 1:
        raise BadInput(f"agent {name}: threshold {threshold} is not a probability; use a number from 0 to 1")
    spec = GovernedSpec(
        agent=agent,
        name=name,
        deps=deps,
        fallback=fallback,
        route=route,
        threshold=threshold,
        message=message or _as_text,
    )
    return GovernedAgent(spec)


class GovernedAgent(Generic[DepsT, OutputT]):
    """An agent under Handrail's rules.

    Args:
        spec: What `govern` was given; call `govern` instead of this constructor.
    """

    def __init__(self, spec: GovernedSpec[DepsT, OutputT]) -> None:
        self.agent = spec.agent
        """The Pydantic AI agent, unchanged."""
        self.name = spec.name
        """The agent's name in the store and in `handrail.toml`."""
        self._spec = spec
        policy = {"threshold": spec.threshold} if spec.route else {}
        self._definition = define_agent(spec.agent, {"fallback": spec.fallback, "route": spec.route}, policy)
        self._output_check = output_check(spec.agent.output_type)

    async def run(
        self,
        input: RunInput = None,  # noqa: A002 - a run's input is called input everywhere
        *,
        user: str,
        tenant: str = "default",
        conversation_id: str | None = None,
        message_history: Sequence[ModelMessage] | None = None,
        deps: DepsT | None = None,
        make_deps: MakeDeps[DepsT] | None = None,
        **agent_options: Any,
    ) -> Outcome[OutputT]:
        """Runs the agent once and commits the outcome before returning it.

        Args:
            input: The user's message: text, or a list of Pydantic AI's user contents. None continues a conversation.
            user: Whom the agent runs for, 1 to 200 printable characters; their daily ceiling is charged.
            tenant: The tenant that the run belongs to; its monthly ceiling is charged.
            conversation_id: The conversation that the run continues; its messages are loaded from the store.
            message_history: The earlier messages, in place of the stored ones.
            deps: The run's dependencies; by default, the agent's factory makes them. They are not stored: if the run
                stops for an approval, `resume` has to be given them again.
            make_deps: Makes this run's dependencies in place of the agent's factory.
            **agent_options: Passed to `pydantic_ai.Agent.run` unchanged.

        Returns:
            `Answered`, `FellBack`, `Escalated`, `AwaitingApproval`, `Refused` or `Failed`.

        Raises:
            BadInput: The input or a name is not valid; nothing ran.
            StoreError: The store failed. If the run had already ended, this is OutcomeNotStored, with the outcome.
            Exception: Programming errors and cancellation propagate after they are recorded.
        """
        runtime = current_runtime()
        run_id = new_id("run", runtime.clock.now())
        conversation = run_id if conversation_id is None else conversation_id
        request = RunRequest(
            run_id=run_id,
            agent=self.name,
            input=input,
            user=user,
            tenant=tenant,
            conversation_id=conversation,
            deps=deps,
        )
        call = await self._first_call(runtime, request, message_history, make_deps, agent_options)
        return await execute(self._spec, call)

    async def resume(self, run_id: str, *, deps: DepsT | None = None) -> Outcome[OutputT]:
        """Resumes a run whose approvals are decided; approved actions are executed, each at most once.

        The worker does this automatically. The `agent_options` of the original `run` are not stored and do not apply.

        Args:
            run_id: The run's id, or a prefix of it that no other run has.
            deps: The run's dependencies; by default, the agent's factory makes them.

        Returns:
            How the run ended, which may be another `AwaitingApproval`.

        Raises:
            NotFound: No run has this id.
            NotResumable: The run is not waiting, or one of its approvals is not decided.
            StillExecuting: Another process is executing one of the actions.
            ResumeFailed: The deps cannot be made, or an approved tool is gone.
                Nothing of the run is lost, and it can be resumed again.
            BadInput: The run belongs to another agent, or needs `deps` that nothing makes (DepsMissing).
            StoreError: As for `run`; also then the run can be resumed again, as after a cancellation.
        """
        runtime = current_runtime()
        now = runtime.clock.now()
        run = await runtime.database.read(load_run(run_id, now))
        pause = await runtime.database.read(load_pause(run.run_id))
        if run.agent != self.name:
            raise BadInput(f"run {run.run_id} belongs to agent {run.agent}, not to {self.name}")
        if pause and pause.deps_handed_over and deps is None and self._spec.deps is None:
            raise DepsMissing(
                f"run {run.run_id} was given its deps; pass them again, or give govern() a `deps=` factory"
            )
        resumed = await take_over_run(runtime, run.run_id)
        request = replace(resumed.request, deps=deps)
        record = RunRecord(runtime, self._definition, request, resumed.state())
        record.history = resumed.conversation
        call = RunCall(
            record=record,
            history=resumed.pause.messages,
            make_deps=self._spec.deps,
            agent_options={"deferred_tool_results": deferred_results(resumed.approvals)},
            output_check=self._output_check,
            message=self._spec.message,
            earlier_messages=resumed.own_messages,
        )
        return await execute(self._spec, call)

    def run_sync(self, input: RunInput = None, *, user: str, **options: Any) -> Outcome[OutputT]:  # noqa: A002
        """Runs the agent once, for code without an event loop.

        Args:
            input: As for `run`.
            user: As for `run`.
            **options: All other arguments of `run`.

        Returns:
            How the run ended.

        Raises:
            BadInput: An event loop is running in this thread; and what `run` raises.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return run_on_own_loop(self.run(input, user=user, **options))
        raise BadInput("run_sync: an event loop is running here; use `await agent.run(...)`")

    def stream(
        self,
        input: RunInput = None,  # noqa: A002
        *,
        user: str,
        **options: Any,
    ) -> AsyncGenerator[StreamEvent[OutputT]]:
        """Runs the agent once and yields its events as they happen.

        Leaving the generator early cancels the run; wrap it in `contextlib.aclosing` so that this happens at once.

        Args:
            input: As for `run`.
            user: As for `run`.
            **options: All other arguments of `run`.

        Returns:
            An asynchronous generator of events: provisional text, tool calls, and at the end `Ended` with the
            committed outcome. It raises what `run` raises.
        """
        return stream_events(lambda handler: self.run(input, user=user, event_stream_handler=handler, **options))

    async def _first_call(
        self,
        runtime: Runtime,
        request: RunRequest,
        history: Sequence[ModelMessage] | None,
        make_deps: MakeDeps[DepsT] | None,
        options: Mapping[str, Any],
    ) -> RunCall:
        """Validates a new request, before anything is stored, and makes the call for it. Raises BadInput."""
        validate_name("user", request.user)
        validate_name("tenant", request.tenant)
        validate_name("conversation_id", request.conversation_id)
        record = RunRecord(runtime, self._definition, request)
        if history is None and request.conversation_id != request.run_id:
            record.history = history = await _stored_history(runtime, request.tenant, request.conversation_id)
        validate_input(request.input, may_be_empty=bool(history))
        output_type = options.get("output_type")
        if output_type is not None:
            options = {**options, "output_type": add_deferred_output(output_type)}
        return RunCall(
            record=record,
            history=history,
            make_deps=make_deps or self._spec.deps,
            agent_options=options,
            output_check=self._output_check if output_type is None else output_check(output_type),
            message=self._spec.message if output_type is None else _as_text,
        )


async def _stored_history(runtime: Runtime, tenant: str, conversation_id: str) -> list[ModelMessage]:
    bodies = await runtime.database.read(load_conversation(tenant, conversation_id))
    return [message for body in bodies for message in ModelMessagesTypeAdapter.validate_json(body)]


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else user_messages.ANSWERED
