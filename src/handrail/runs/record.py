"""A run's record while the run is under way: its totals, trace and fingerprint, and what its next commit holds.

What commits together, and why:

- The first commit opens the run: its row, its input and the hold of the first model request. No request is sent for a
  run that the store does not know.
- Each further hold commits with the settlement of the request before it, the spans that ended since, and the run's new
  totals: one transaction for each model request, and never a hold without the state that led to it.
- The last commit holds the outcome, what the run adds to its conversation, the last settlement and the last spans. Only
  then does the caller learn how the run ended.

If the process dies between a hold and its settlement, the hold stays in the ledger. The provider may have served the
request, so the hold counts as spent in every later decision, and the worker charges it once it has expired.

Two things guard a run against a second process. The *lease* says that a process is working on the run: it is renewed in
the background and with every commit, and a run without an outcome whose lease has expired counts as interrupted. The
*claim* numbers the processes that took the run, one after another. Every update of the run's row names its claim, so a
process that was silent for too long and lost the run gets `TakenOver` at its next commit. The whole commit fails with
it, the hold included: such a process can neither spend nor end the run.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters

from handrail.fallback.retry import OneRetry
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import StoreError
from handrail.kernel.money import NanoUsd
from handrail.review.approvals.model import EXECUTION_LEASE, UNCERTAIN, Approval
from handrail.review.approvals.store import renew_execution
from handrail.traces import semconv
from handrail.traces.model import Usage
from handrail.traces.recorder.recorder import LiveSpan, Recorder
from handrail.traces.recorder.steps import recording

from .agent_loop import AgentLoop
from .commit_buffer import CommitBuffer
from .errors import ResumeFailed, RunEnded
from .fingerprint import AgentDefinition, Fingerprint, FingerprintedRequest, fingerprint_request
from .outcome import Facts
from .request import RunRequest
from .runtime import Runtime
from .store import runs
from .totals import RunTotals

_TO_REACH = frozenset({"approved", "executed", *UNCERTAIN})
"""The states of approvals whose calls a resumed agent has to come to again, for their results if nothing else."""


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """What a paused run had used, and what people decided: the state that it is resumed from."""

    claim: runs.Claim
    trace_id: str
    root_span_id: str
    round: int
    """How often the run has stopped for approvals."""
    approvals: Sequence[Approval]
    model: str | None
    fingerprint: Fingerprint | None
    totals: RunTotals
    retries_used: int
    retry_instruction: str
    """The stricter instruction of the request that the run goes on with; empty if that is no retry."""
    message_count: int
    """How many messages the spans already contain."""


class RunRecord:
    """One run. Not shared between runs.

    Args:
        runtime: What the run shares with others.
        definition: What the agent's fingerprint is of; None if it sends no requests.
        request: What the run was called with.
        resumed: What it continues from; None for a new run.
    """

    def __init__(
        self,
        runtime: Runtime,
        definition: AgentDefinition | None,
        request: RunRequest,
        resumed: ResumeState | None = None,
    ) -> None:
        self.runtime = runtime
        self.request = request
        self.claim = resumed.claim if resumed else runs.Claim(request.run_id)
        self.round = resumed.round if resumed else 0
        self.totals = resumed.totals if resumed else RunTotals()
        self.approvals: Mapping[str, Approval] = (
            {approval.call_id: approval for approval in resumed.approvals} if resumed else {}
        )
        """The decided approvals, by the id of the tool call."""
        self._taken: set[str] = set()
        self.executing: set[str] = set()
        """The ids of the approvals whose actions are being executed."""
        self.loop = AgentLoop(self.totals.requests, resumed.message_count if resumed else 0)
        """The loop of the run's own agent."""
        self.loop.instruction = resumed.retry_instruction if resumed else ""
        self.history: Sequence[ModelMessage] = ()
        """The messages of the conversation's earlier runs, as they were loaded from the store."""
        self.stopped_by: Exception | None = None
        """Why the run may not go on, even if a tool or a wrapper of a model has swallowed the exception."""
        self.ended = False
        """Whether the run's outcome is committed or under way."""
        self.retry = OneRetry(resumed.retries_used if resumed else 0)
        self.recorder = Recorder(
            runtime.clock,
            {
                semconv.TENANT: request.tenant,
                semconv.USER: request.user,
                semconv.AGENT: request.agent,
                semconv.RUN: request.run_id,
                semconv.CONVERSATION: request.conversation_id,
            },
            runtime.telemetry,
        )
        # An agent inside a tool may run in a thread of its own, beside the run's.
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._definition = definition
        self._resumed = resumed
        self._buffer = CommitBuffer(runtime.database)
        self._root: LiveSpan | None = None
        self._fingerprinted: FingerprintedRequest | None = None
        self._fingerprint = resumed.fingerprint if resumed else None
        self._model = resumed.model if resumed else None

    @contextmanager
    def root_span(self) -> Iterator[LiveSpan]:
        """The run's own span; a resumed run gets one more, below its first."""
        agent, resumed = self.request.agent, self._resumed
        with ExitStack() as spans:
            spans.enter_context(recording(self.recorder))
            if resumed:
                spans.enter_context(self.recorder.child_of(resumed.trace_id, resumed.root_span_id))
            attributes = {semconv.OPERATION: "invoke_agent", "handrail.run.round": self.round + 1}
            span = spans.enter_context(self.recorder.span(f"invoke_agent {agent}", attributes))
            self._root = span
            span.payload["input"] = self.request.input
            if not resumed:
                self._open_run(span.trace_id)
            yield span

    @property
    def root_span_id(self) -> str:
        """The id of the run's first span, below which it is resumed."""
        assert self._root is not None
        return self._resumed.root_span_id if self._resumed else self._root.span_id

    @property
    def agent_hash(self) -> str | None:
        """The fingerprint of the whole agent; None before the run's first model request."""
        return self._fingerprint.agent if self._fingerprint else None

    @property
    def retried(self) -> bool:
        """Whether the one stricter retry was used."""
        return self.retry.used > 0

    @property
    def log_fields(self) -> dict[str, str]:
        """The `extra` fields of every log record about the run."""
        return {"run_id": self.request.run_id, "agent": self.request.agent, "tenant": self.request.tenant}

    def facts(self) -> Facts:
        """What the run has cost so far, and where to look it up."""
        assert self._root is not None
        return Facts(
            run_id=self.request.run_id,
            trace_id=self._root.trace_id,
            duration=timedelta(microseconds=(self.recorder.now_ns() - self._root.start_ns) // 1_000),
            cost=self.totals.cost,
            requests=self.totals.requests,
            tools=self.totals.tools,
            model=self._model,
            agent_hash=self.agent_hash,
        )

    def take_approval(self, call_id: str) -> Approval | None:
        """The approval of a tool call that is resumed; each is handed out once, to the call that it was given for.

        Args:
            call_id: The id of the tool call.
        """
        approval = self.approvals.get(call_id)
        with self._lock:
            if approval is None or approval.approval_id in self._taken:
                return None
            self._taken.add(approval.approval_id)
        return approval

    @property
    def unreached(self) -> list[Approval]:
        """The actions that people approved and that the agent has not come to, because its tools have changed, say."""
        return [
            approval
            for approval in self.approvals.values()
            if approval.state in _TO_REACH and approval.approval_id not in self._taken
        ]

    def not_reached(self, error: Exception | None = None) -> ResumeFailed:
        """The error for a resumed run whose agent has not come to what people approved.

        Args:
            error: What kept it from it; None if it knows no such tools.
        """
        actions = ", ".join(f"{approval.tool} ({approval.approval_id})" for approval in self.unreached)
        reason = "the agent has no such tool now" if error is None else f"{type(error).__name__}: {error}"
        return ResumeFailed(f"run {self.request.run_id} cannot go on with {actions}: {reason}")

    def stop(self, error: Exception) -> Exception:
        """Notes that the run may not go on because of `error`, and returns the error that it stopped for first."""
        self.stopped_by = self.stopped_by or error
        return self.stopped_by

    def begin_request(
        self,
        loop: AgentLoop | None,
        model: Model,
        settings: Mapping[str, Any],
        messages: Sequence[ModelMessage],
        parameters: ModelRequestParameters,
    ) -> None:
        """Counts one more model request and takes the run's fingerprint from the first one of its own agent.

        Args:
            loop: The agent's loop that sends the request; None for a request that no agent sends.
            model: The model to request.
            settings: The request's settings, without those of the model.
            messages: The messages to send.
            parameters: The request's tools, output and instructions.

        Raises:
            RunEnded: The run has ended; a task that it started is still at work.
            ResumeFailed: The agent has not come to what people approved.
            Exception: What the run was stopped by.
        """
        if os.getpid() != self._process:
            raise RunEnded(f"run {self.request.run_id} goes on in another process; start a run in this one")
        if self.ended:
            raise RunEnded(f"run {self.request.run_id} has ended, so nothing more can be spent on it")
        if self.stopped_by is not None:
            raise self.stopped_by
        if loop is self.loop:
            if self.unreached:
                # The model would be told that there is no such tool, and answer without what people approved.
                raise self.stop(self.not_reached())
            self._take_fingerprint(model, settings, messages, parameters)
        with self._lock:
            self.totals = self.totals.with_request()

    def withdraw_request(self) -> None:
        """Takes back the count of a request that was refused, and so not sent."""
        with self._lock:
            self.totals = self.totals.without_request()

    def settle(self, usage: Usage, cost: NanoUsd, settlement: Operation[Any]) -> None:
        """Adds what a model request used.

        Args:
            usage: The tokens that it used.
            cost: What it cost, in nano-dollars.
            settlement: Settles its hold; part of the next commit.
        """
        self.add_usage(usage, cost)
        self._buffer.add(settlement)

    def add_usage(self, usage: Usage, cost: NanoUsd) -> None:
        """Adds what a model request used to the run's totals.

        Args:
            usage: The tokens that it used.
            cost: What it cost, in nano-dollars.
        """
        with self._lock:
            self.totals = self.totals.with_settled(usage, cost)

    def add_tool(self, name: str) -> None:
        """Records that the tool `name` was executed."""
        with self._lock:
            self.totals = self.totals.with_tool(name)

    async def commit(self, *ops: Operation[Any]) -> list[Any]:
        """Writes what is pending, the spans that have ended and `ops` together; the first commit opens the run.

        Returns:
            The results of `ops`, in order.

        Raises:
            StoreError: Nothing was written; what was pending is written by the next commit.
        """
        results = await self._buffer.commit(ops, self.recorder.drain())
        if self._fingerprinted is not None:
            self.runtime.remember_fingerprint(self._fingerprinted.fingerprint)
        return results

    def row_values(self) -> dict[str, Any]:
        """The run's columns as they are now. Writing them renews the run's lease."""
        fingerprint = self._fingerprint
        return {
            "lease_until": self.runtime.clock.now() + runs.LEASE,
            "model": self._model,
            "requests": self.totals.requests,
            "input_tokens": self.totals.usage.input,
            "output_tokens": self.totals.usage.output,
            "cost": self.totals.cost,
            "template_hash": fingerprint and fingerprint.template,
            "rendered_hash": fingerprint and fingerprint.rendered,
            "agent_hash": fingerprint and fingerprint.agent,
        }

    def row_update(self) -> list[Operation[Any]]:
        """The update of the run's row; empty if the next commit inserts the row."""
        return [] if self._buffer.opens_run else [runs.update_run(self.claim, self.row_values())]

    @asynccontextmanager
    async def keep_lease(self) -> AsyncIterator[None]:
        """Renews the run's lease while the block runs, even if a tool takes minutes."""
        renewal = asyncio.create_task(self._renew_lease())
        try:
            yield
        finally:
            renewal.cancel()
            # Not `await renewal`: its cancellation could not be told from one of this task.
            await asyncio.wait([renewal])

    def _open_run(self, trace_id: str) -> None:
        row = {
            "run_id": self.request.run_id,
            "agent": self.request.agent,
            "tenant": self.request.tenant,
            "user": self.request.user,
            "conversation_id": self.request.conversation_id,
            "trace_id": trace_id,
            "started_at": self.runtime.clock.now(),
        }
        self._buffer.open_with(lambda: runs.start_run({**row, **self.row_values()}, self.request.input))

    def _take_fingerprint(
        self,
        model: Model,
        settings: Mapping[str, Any],
        messages: Sequence[ModelMessage],
        parameters: ModelRequestParameters,
    ) -> None:
        if self._fingerprint is not None:
            return
        self._model = f"{model.system}:{model.model_name}"
        settings = {**(model.settings or {}), **settings}
        assert self._definition is not None
        fingerprinted = fingerprint_request(self._definition, self._model, settings, messages, parameters)
        self._fingerprinted, self._fingerprint = fingerprinted, fingerprinted.fingerprint
        assert self._root is not None
        self._root.set({semconv.FINGERPRINT: self._fingerprint.agent})
        if not self.runtime.knows_fingerprint(self._fingerprint):
            now = self.runtime.clock.now()
            self._buffer.add(runs.store_definition(fingerprinted, self._definition.template, self.request.agent, now))

    async def _renew_lease(self) -> None:
        while True:
            await self.runtime.clock.sleep(runs.LEASE.total_seconds() / 3)
            # If the store stays broken, the next commit fails too, and that ends the run.
            with suppress(StoreError):
                now = self.runtime.clock.now()
                actions = [renew_execution(approval_id, now + EXECUTION_LEASE) for approval_id in self.executing]
                await self.runtime.database.write(runs.renew_run_lease(self.claim, now + runs.LEASE), *actions)
