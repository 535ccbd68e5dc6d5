"""`govern`: a Pydantic AI agent becomes a named unit of production, whose every run ends in one of six ways."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from handrail.fallback.routing import THRESHOLD
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.runs.store.pauses import last_pause

from . import user_messages
from .approvals import decisions
from .completion import end_by_exception, end_run
from .execution import Asked, Ending, Fallback, MakeDeps, Route, Unit, attempt
from .fingerprint import define
from .outcome import Failed, FellBack, Outcome
from .output import also_deferring, output_adapter
from .record import Record
from .request import RunInput, RunRequest, checked_input, checked_name
from .resume import no_way_on, take_over, waited
from .runtime import Runtime, current_runtime
from .store import runs
from .streaming import StreamEvent, streamed

OutputT = TypeVar("OutputT")
DepsT = TypeVar("DepsT")

Observe: TypeAlias = Callable[[Outcome[OutputT]], Mapping[str, Any]]
"""What of an outcome an eval case's expectations are compared with."""


@dataclass(frozen=True, kw_only=True)
class Trials(Generic[DepsT, OutputT]):
    """How an agent is put to the test: frozen cases, what of an outcome they speak of, a fresh world for each."""

    cases: Path
    observe: Observe[OutputT]
    deps: MakeDeps[DepsT] | None = None
    scorers: tuple[Any, ...] = ()
    """What judges a trial, all of them together; without any, each field that a case expects has to match exactly."""
    seconds: float = 600
    """How long a trial may take; one that takes longer is stopped, and has failed."""


def govern(
    agent: Agent[DepsT, OutputT],
    *,
    name: str,
    deps: MakeDeps[DepsT] | None = None,
    fallback: Fallback[OutputT] | None = None,
    route: Route | None = None,
    threshold: float = THRESHOLD,
    message: Callable[[OutputT], str] | None = None,
    trials: Trials[DepsT, OutputT] | None = None,
) -> "GovernedAgent[DepsT, OutputT]":
    """`agent` under Handrail's rules, itself unchanged.

    `deps` makes a run's dependencies from its request where `run` is given none; `fallback` answers where the model
    cannot; `route` says how likely the agent is to get a request right, and from `threshold` on it goes to the model;
    `message` is what of an output the user reads (the output itself where it is text); `trials` says how it is
    evaluated. Raises BadInput for a name or a threshold that is none.
    """
    if not name or not all(part.isalnum() for part in name.split("-")):
        raise BadInput(f"agent name {name!r}: letters, digits and single hyphens between them, such as support-triage")
    if not 0 <= threshold <= 1:
        raise BadInput(f"agent {name}: threshold {threshold} is no probability; give one from 0 to 1")
    unit = Unit(
        agent=agent,
        name=name,
        deps=deps,
        fallback=fallback,
        route=route,
        threshold=threshold,
        message=message or _as_text,
    )
    return GovernedAgent(unit, trials)


class GovernedAgent(Generic[DepsT, OutputT]):
    """Made by `govern`. `agent` is the Pydantic AI agent it governs, `trials` how it is evaluated."""

    def __init__(self, unit: Unit[DepsT, OutputT], trials: Trials[DepsT, OutputT] | None) -> None:
        self.agent = unit.agent
        self.name = unit.name
        self.trials = trials
        self._unit = unit
        policy = {"threshold": unit.threshold} if unit.route else {}
        self._definition = define(unit.agent, {"fallback": unit.fallback, "route": unit.route}, policy)
        self._adapter = output_adapter(unit.agent.output_type)

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
            Asked(
                record=Record(runtime, self._definition, request),
                history=message_history,
                make_deps=make_deps or self._unit.deps,
                passed=passed if own_type is None else {**passed, "output_type": also_deferring(own_type)},
                adapter=self._adapter if own_type is None else output_adapter(own_type),
                message=self._unit.message if own_type is None else _as_text,
            )
        )

    async def resume(self, run_id: str, *, deps: DepsT | None = None) -> Outcome[OutputT]:
        """Carries on a run whose approvals are decided; approved actions are executed, each at most once.

        The worker does so by itself. What was passed to `run` besides its input is not known any more, and `deps` come
        from the agent's factory where none are given. Raises NotFound; NotResumable for a run that waits for nobody, or
        for somebody still; BadInput for another agent's run, or where there are no deps; and what `run` raises.
        """
        runtime = current_runtime()
        now = runtime.clock.now()
        run = await runtime.database.read(lambda conn: runs.load_run(conn, run_id, now))
        pause = await runtime.database.read(lambda conn: last_pause(conn, run.run_id))
        if run.agent != self.name:
            raise BadInput(f"run {run.run_id} is of agent {run.agent}, not of {self.name}")
        if pause and pause.deps_handed_over and deps is None and self._unit.deps is None:
            raise BadInput(f"run {run.run_id} was given its deps; pass them again, or give govern() a `deps=` factory")
        [waiting] = await runtime.database.write(take_over(run.run_id, now))
        request = RunRequest(
            run_id=run.run_id,
            agent=self.name,
            input=waiting.input,
            user=run.user,
            tenant=run.tenant,
            conversation_id=run.conversation_id,
            deps=deps,
        )
        asked = Asked(
            record=Record(runtime, self._definition, request, waiting.carried()),
            history=waiting.pause.messages,
            make_deps=self._unit.deps,
            passed={"deferred_tool_results": decisions(waiting.approvals)},
            adapter=self._adapter,
            message=self._unit.message,
            said_before=waiting.own_messages,
        )
        return await self._recorded(asked)

    def run_sync(self, input: RunInput = None, *, user: str, **passed: Any) -> Outcome[OutputT]:  # noqa: A002
        """`run` for code without an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            # In the context of this call: the runner would go on in that of the first one.
            return _runner().run(self.run(input, user=user, **passed), context=copy_context())
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

    async def _recorded(self, asked: Asked) -> Outcome[OutputT]:
        record = asked.record
        try:
            async with record.leased():
                with record.root() as root:
                    ending = await self._ending(asked)
                    outcome = ending.outcome
                    root.payload["outcome"] = outcome
                    if isinstance(outcome, Failed | FellBack):
                        root.fail(outcome.fault.code)
        except BaseException as error:
            await end_by_exception(record, error)
            raise
        await end_run(record, outcome, ending.said, *ending.ops)
        return outcome

    async def _ending(self, asked: Asked) -> Ending[OutputT]:
        decided = list(asked.record.approvals.values())
        waited(asked.record, decided)
        stuck = no_way_on(asked.record, decided)
        return await attempt(self._unit, asked) if stuck is None else Ending(outcome=stuck)


async def _stored_history(runtime: Runtime, tenant: str, conversation_id: str) -> list[ModelMessage]:
    bodies = await runtime.database.read(lambda conn: runs.load_conversation(conn, tenant, conversation_id))
    return [message for body in bodies for message in ModelMessagesTypeAdapter.validate_json(body)]


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else user_messages.ANSWERED


_threads = threading.local()


def _runner() -> asyncio.Runner:
    # One loop per thread, kept: a model's HTTP connections belong to the loop they were opened in.
    if not hasattr(_threads, "runner"):
        _threads.runner = asyncio.Runner()
    runner: asyncio.Runner = _threads.runner
    return runner
