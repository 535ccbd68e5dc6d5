"""A run's record while it is under way: what it has used, which spans have ended, and what the next commit must hold.

The first commit opens the run, each further model request brings it up to date, the last appends its outcome.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters

from handrail.kernel import ZERO, NanoUsd, Op, StoreError, unix_ns
from handrail.traces import LiveSpan, Recorder, StoreSpans, Usage, names

from . import store
from .fingerprint import Definition, Sent, identify
from .loops import LoopGuard
from .outcome import Facts
from .request import RunRequest
from .runtime import Runtime


class Record:
    """One run. Not shared between runs; used from one event loop."""

    def __init__(self, runtime: Runtime, definition: Definition, request: RunRequest) -> None:
        self.runtime = runtime
        self.request = request
        self._definition = definition
        self.recorder = Recorder(
            runtime.clock,
            {
                names.TENANT: request.tenant,
                names.USER: request.user,
                names.AGENT: request.agent,
                names.RUN: request.run_id,
                names.CONVERSATION: request.conversation_id,
            },
        )
        self.loops = LoopGuard()
        self.requests = 0
        self.usage = Usage()
        self.cost = ZERO
        self.tools: list[str] = []
        self.retried = False
        self.malformed = 0
        self.last_request: str | None = None
        self.retry_of: str | None = None
        self._root: LiveSpan | None = None
        self._opening: dict[str, Any] | None = None
        self._pending: list[Op] = []
        self._sent: Sent | None = None
        self._model: str | None = None
        self._messages_seen = 0

    @contextmanager
    def root(self) -> Iterator[LiveSpan]:
        """The run's own span."""
        agent = self.request.agent
        with self.recorder.span(f"invoke_agent {agent}", {names.OPERATION: "invoke_agent"}) as live:
            self._root = live
            live.payload["input"] = self.request.input
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

    async def commit(self, *ops: Op) -> list[Any]:
        """Writes what is pending, the spans that have ended and `ops`, together; the results of `ops`.

        The first commit opens the run. What could not be written stays pending.
        """
        opening, self._opening = self._opening, None
        pending, self._pending = self._pending, []
        if spans := self.recorder.take():
            pending.append(StoreSpans(spans))
        first = [store.start({**opening, **self.standing()}, self.request.input)] if opening else []
        writing = asyncio.ensure_future(self.runtime.database.write(*first, *pending, *ops))
        try:
            results = await asyncio.shield(writing)
        except BaseException:
            # A cancelled caller must know, too, whether the write that it left behind took place.
            await asyncio.wait([writing])
            if writing.exception() is not None:
                self._opening, self._pending = opening, [*pending, *self._pending]
            raise
        if self._sent is not None:
            self.runtime.saw(self._sent.fingerprint)
        return results[len(first) + len(pending) :]

    def standing(self) -> dict[str, Any]:
        """The run's columns as they are now; writing them keeps the run from counting as interrupted."""
        sent = self._sent.fingerprint if self._sent else None
        return {
            "lease_until_ns": unix_ns(self.runtime.clock.now() + store.LEASE),
            "model": self._model,
            "requests": self.requests,
            "input_tokens": self.usage.input,
            "output_tokens": self.usage.output,
            "cost": self.cost,
            "template_hash": sent and sent.template,
            "rendered_hash": sent and sent.rendered,
            "agent_hash": sent and sent.agent,
        }

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
        )

    @asynccontextmanager
    async def model_request(
        self,
        model: Model,
        messages: Sequence[ModelMessage],
        settings: Mapping[str, Any],
        parameters: ModelRequestParameters,
    ) -> AsyncIterator["ModelRequest"]:
        """A span around one request to a model, committed to before it is sent."""
        self.loops.request()
        self._identify(model, settings, messages, parameters)
        self.requests += 1
        if self.retry_of is not None:
            self.retried = True
        attributes = {
            names.OPERATION: "chat",
            names.PROVIDER: model.system,
            names.REQUEST_MODEL: model.model_name,
            names.ATTEMPT: 1 if self.retry_of is None else 2,
            names.RETRY_OF: self.retry_of,
            "gen_ai.request.temperature": settings.get("temperature"),
            "gen_ai.request.max_tokens": settings.get("max_tokens"),
        }
        await self.commit(*([] if self._opening else [store.advance(self.request.run_id, self.standing())]))
        with self.recorder.span(f"chat {model.model_name}", attributes) as live:
            live.payload["messages"] = list(messages[self._messages_seen :])
            # The response, kept below, will be the next message.
            self._messages_seen = len(messages) + 1
            self.last_request, self.retry_of = live.span_id, None
            yield ModelRequest(self, live, model)

    def _identify(
        self,
        model: Model,
        settings: Mapping[str, Any],
        messages: Sequence[ModelMessage],
        parameters: ModelRequestParameters,
    ) -> None:
        if self._sent is not None:
            return
        self._model = f"{model.system}:{model.model_name}"
        settings = {**(model.settings or {}), **settings}
        self._sent = identify(self._definition, self._model, settings, messages, parameters)
        template, agent = self._definition.template, self.request.agent
        if not self.runtime.has_seen(self._sent.fingerprint):
            self._pending.append(store.remember(self._sent, template, agent, self.runtime.clock.now()))

    async def _renew(self) -> None:
        while True:
            await self.runtime.clock.sleep(store.LEASE.total_seconds() / 3)
            # A store that fails now says so at the next commit, which the run cannot go on without.
            with suppress(StoreError):
                until = self.runtime.clock.now() + store.LEASE
                await self.runtime.database.write(store.renew(self.request.run_id, until))


class ModelRequest:
    """A request under way: `answered` books what it used."""

    def __init__(self, record: Record, live: LiveSpan, model: Model) -> None:
        self._record = record
        self._live = live
        self._model = model

    def answered(self, response: ModelResponse) -> None:
        """Books the response's tokens and cost, and keeps what it said."""
        used = response.usage
        usage = Usage(
            input=used.input_tokens,
            output=used.output_tokens,
            cache_read=used.cache_read_tokens,
            cache_write=used.cache_write_tokens,
        )
        name = response.model_name or self._model.model_name
        cost = self._record.runtime.price(name, self._model.system, used)
        record = self._record
        record.cost = NanoUsd(record.cost + (cost or ZERO))
        record.usage = Usage(
            input=record.usage.input + usage.input,
            output=record.usage.output + usage.output,
            cache_read=record.usage.cache_read + usage.cache_read,
            cache_write=record.usage.cache_write + usage.cache_write,
        )
        self._live.payload["response"] = response.parts
        self._live.set(
            {
                names.RESPONSE_MODEL: response.model_name,
                names.INPUT_TOKENS: usage.input,
                names.OUTPUT_TOKENS: usage.output,
                names.CACHE_READ: usage.cache_read or None,
                names.CACHE_WRITE: usage.cache_write or None,
                names.COST: cost,
                "gen_ai.response.finish_reasons": [response.finish_reason] if response.finish_reason else None,
                "handrail.price.unknown": True if cost is None else None,
            }
        )
