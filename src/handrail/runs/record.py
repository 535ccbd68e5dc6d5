"""A run's record while it is under way: what it has used, which spans have ended, and what the next commit must hold.

The first commit opens the run, each further model request brings it up to date, the last appends its outcome. A run
that waited for people is carried on under the same record.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters

from handrail.fallback.retry import OneRetry
from handrail.kernel.clock import unix_ns
from handrail.kernel.db.group_writer import Op
from handrail.kernel.errors import StoreError
from handrail.kernel.money import ZERO, NanoUsd
from handrail.review.approvals.model import EXECUTING, Approval
from handrail.review.approvals.store import renew_executing
from handrail.traces import semconv
from handrail.traces.model import Usage
from handrail.traces.recorder.recorder import LiveSpan, Recorder
from handrail.traces.recorder.steps import recording
from handrail.traces.store.spans import StoreSpans

from .fingerprint import Definition, Fingerprint, Sent, identify
from .loop_guard import LoopGuard
from .outcome import Facts
from .request import RunRequest
from .runtime import Runtime
from .store import runs


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What a run that waited for people had used until then, and what they decided."""

    claim: runs.Claim
    trace_id: str
    root_span_id: str
    round: int
    approvals: Sequence[Approval]
    model: str | None
    fingerprint: Fingerprint | None
    requests: int
    usage: Usage
    cost: NanoUsd
    tools: Sequence[str]
    retries_used: int
    messages: int
    """How many messages the run has exchanged so far."""


class Record:
    """One run. Not shared between runs; used from one event loop."""

    def __init__(
        self, runtime: Runtime, definition: Definition, request: RunRequest, carried: Carried | None = None
    ) -> None:
        self.runtime = runtime
        self.request = request
        self.approvals: Mapping[str, Approval] = {each.call_id: each for each in carried.approvals} if carried else {}
        """What people decided, by the id of the call."""
        self.round = carried.round if carried else 0
        self.claim = carried.claim if carried else runs.Claim(request.run_id)
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
        self.loops = LoopGuard(carried.requests if carried else 0)
        self.retry = OneRetry(carried.retries_used if carried else 0)
        self.requests = carried.requests if carried else 0
        self.usage = carried.usage if carried else Usage()
        self.cost = carried.cost if carried else ZERO
        self.tools = list(carried.tools) if carried else []
        self.last_request: str | None = None
        self.executing: set[str] = set()
        """The approvals whose actions are being executed."""
        self._definition = definition
        self._carried = carried
        self._root: LiveSpan | None = None
        self._opening: dict[str, Any] | None = None
        self._pending: list[Op] = []
        self._unstored: list[Op] = []
        self._sent: Sent | None = None
        self._fingerprint = carried.fingerprint if carried else None
        self._model = carried.model if carried else None
        self._messages_seen = carried.messages if carried else 0

    @contextmanager
    def root(self) -> Iterator[LiveSpan]:
        """The run's own span; of a run that is carried on, one more below its first."""
        agent, carried = self.request.agent, self._carried
        with ExitStack() as spans:
            spans.enter_context(recording(self.recorder))
            if carried:
                spans.enter_context(self.recorder.under(carried.trace_id, carried.root_span_id))
            attributes = {semconv.OPERATION: "invoke_agent", "handrail.run.round": self.round + 1}
            live = spans.enter_context(self.recorder.span(f"invoke_agent {agent}", attributes))
            self._root = live
            live.payload["input"] = self.request.input
            if not carried:
                self._opening = {
                    "run_id": self.request.run_id,
                    "agent": agent,
                    "tenant": self.request.tenant,
                    "user_id": self.request.user,
                    "conversation_id": self.request.conversation_id,
                    "trace_id": live.trace_id,
                    "started_ns": unix_ns(self.runtime.clock.now()),
                }
            yield live

    @property
    def root_span_id(self) -> str:
        """The id of the run's first span, below which it is carried on."""
        assert self._root is not None
        return self._carried.root_span_id if self._carried else self._root.span_id

    @property
    def agent_hash(self) -> str | None:
        """The fingerprint of the whole agent, known from its first request on."""
        return self._fingerprint.agent if self._fingerprint else None

    @property
    def retried(self) -> bool:
        """Whether malformed work was given its second try."""
        return self.retry.used > 0

    async def commit(self, *ops: Op) -> list[Any]:
        """Writes what is pending, the spans that have ended and `ops`, together; the results of `ops`.

        The first commit opens the run. What could not be written stays pending.
        """
        opening, self._opening = self._opening, None
        pending, self._pending = self._pending, []
        unstored, self._unstored = self._unstored, []
        if spans := self.recorder.take():
            unstored.append(StoreSpans(spans))
        first = [runs.start({**opening, **self.standing()}, self.request.input)] if opening else []
        # Spans go last, since they touch rows that all runs of a tenant share: Postgres would find two runs waiting for
        # each other where one of them has those rows and not yet the tenant's account.
        writing = asyncio.ensure_future(self.runtime.database.write(*first, *pending, *ops, *unstored))
        try:
            results = await asyncio.shield(writing)
        except BaseException:
            # A cancelled caller must know, too, whether the write that it left behind took place.
            await asyncio.wait([writing])
            if writing.exception() is not None:
                self._opening, self._pending = opening, [*pending, *self._pending]
                self._unstored = [*unstored, *self._unstored]
            raise
        if self._sent is not None:
            self.runtime.saw(self._sent.fingerprint)
        before = len(first) + len(pending)
        return results[before : before + len(ops)]

    def standing(self) -> dict[str, Any]:
        """The run's columns as they are now; writing them keeps the run from counting as interrupted."""
        sent = self._fingerprint
        return {
            "lease_until_ns": unix_ns(self.runtime.clock.now() + runs.LEASE),
            "model": self._model,
            "requests": self.requests,
            "input_tokens": self.usage.input,
            "output_tokens": self.usage.output,
            "cost": self.cost,
            "template_hash": sent and sent.template,
            "rendered_hash": sent and sent.rendered,
            "agent_hash": sent and sent.agent,
        }

    def standing_ops(self) -> list[Op]:
        """What brings the run's row up to date; nothing before the commit that opens it, which does."""
        return [] if self._opening else [runs.advance(self.claim, self.standing())]

    def book(self, usage: Usage, cost: NanoUsd, settling: Op) -> None:
        """Adds what a model request used; its settlement rides with the next commit."""
        self.cost = NanoUsd(self.cost + cost)
        self.usage = Usage(
            input=self.usage.input + usage.input,
            output=self.usage.output + usage.output,
            cache_read=self.usage.cache_read + usage.cache_read,
            cache_write=self.usage.cache_write + usage.cache_write,
        )
        self._pending.append(settling)

    def next_is_retry(self) -> tuple[str | None, str | None]:
        """Of the request to come: the span that it tries again and its stricter instruction; None twice for a first."""
        instruction = self.retry.take()
        return (None, None) if instruction is None else (self.last_request, instruction)

    def not_yet_kept(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        """The messages that no span before has; the response to come, kept with its own span, counts as one."""
        found = list(messages[self._messages_seen :])
        self._messages_seen = len(messages) + 1
        return found

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[None]:
        """Renews the run's lease while the block runs, also when a tool takes minutes."""
        renewal = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal

    def facts(self) -> Facts:
        """What the run has cost so far."""
        assert self._root is not None
        return Facts(
            run_id=self.request.run_id,
            trace_id=self._root.trace_id,
            duration=timedelta(microseconds=(self.recorder.now_ns() - self._root.start_ns) // 1_000),
            cost=self.cost,
            requests=self.requests,
            tools=tuple(self.tools),
            model=self._model,
            agent_hash=self.agent_hash,
        )

    def identify(
        self,
        model: Model,
        settings: Mapping[str, Any],
        messages: Sequence[ModelMessage],
        parameters: ModelRequestParameters,
    ) -> None:
        """Takes the run's fingerprint from its first request; later ones change nothing."""
        if self._fingerprint is not None:
            return
        self._model = f"{model.system}:{model.model_name}"
        settings = {**(model.settings or {}), **settings}
        self._sent = identify(self._definition, self._model, settings, messages, parameters)
        self._fingerprint = self._sent.fingerprint
        assert self._root is not None
        self._root.set({semconv.FINGERPRINT: self._fingerprint.agent})
        template, agent = self._definition.template, self.request.agent
        if not self.runtime.has_seen(self._sent.fingerprint):
            self._pending.append(runs.remember(self._sent, template, agent, self.runtime.clock.now()))

    async def _renew(self) -> None:
        while True:
            await self.runtime.clock.sleep(runs.LEASE.total_seconds() / 3)
            # A store that fails now says so at the next commit, which the run cannot go on without.
            with suppress(StoreError):
                now = self.runtime.clock.now()
                actions = [renew_executing(each, now + EXECUTING) for each in self.executing]
                await self.runtime.database.write(runs.renew(self.claim, now + runs.LEASE), *actions)
