"""A provider that keeps its own bill, official clients that speak to it, and runs under a ceiling on money."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models import Model, override_allow_model_requests
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from handrail import Runtime, Settings, govern, use_runtime
from handrail.ceilings.ledger_queries import find_discrepancies, load_spending
from handrail.config.settings import AgentCeilings, Ceilings, PriceOverride
from handrail.kernel.money import NanoUsd
from handrail.runs.store.queries import list_runs
from handrail.testing import LoopbackProvider, VirtualClock
from handrail.traces.store.spans import load_trace

from .booking import Booking

TLS = ssl.create_default_context()
"""Loaded once, since that takes longer than most tests."""
Api = Literal["chat", "responses", "messages"]
MODELS: dict[Api, str] = {"chat": "gpt-4o", "responses": "gpt-5.1", "messages": "claude-sonnet-5"}
"""The model of each API, unless a test names another one."""


class Spender:
    """Runs agents on the provider's models, and reads what they spent.

    Args:
        folder: Where the stores are.
        empty_store: A store without runs, which is copied.
        provider: The provider.
    """

    def __init__(self, folder: Path, empty_store: Path, provider: LoopbackProvider) -> None:
        self.provider = provider
        self._folder = folder
        self._empty_store = empty_store
        self._openai: list[AsyncOpenAI] = []
        self._anthropic: list[AsyncAnthropic] = []

    def model(self, api: Api = "chat", name: str | None = None, **client_options: Any) -> Model:
        """A model whose official client speaks to the provider.

        Args:
            api: The wire format.
            name: The model's name.
            client_options: More arguments of the client.
        """
        name = name or MODELS[api]
        if api == "messages":
            options: dict[str, Any] = {"base_url": self.provider.anthropic_url, "api_key": "test", "timeout": 5}
            if "http_client" not in client_options:
                options["http_client"] = anthropic.DefaultAsyncHttpxClient(verify=TLS)
            client = AsyncAnthropic(**{**options, **client_options})
            self._anthropic.append(client)
            return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))
        model_class = OpenAIChatModel if api == "chat" else OpenAIResponsesModel
        return model_class(name, provider=OpenAIProvider(openai_client=self.client(**client_options)))

    def client(self, **options: Any) -> AsyncOpenAI:
        """OpenAI's client for the provider.

        Args:
            options: More of its arguments.
        """
        defaults: dict[str, Any] = {"base_url": self.provider.openai_url, "api_key": "test", "timeout": 5}
        if "http_client" not in options:
            defaults["http_client"] = openai.DefaultAsyncHttpxClient(verify=TLS)
        client = AsyncOpenAI(**{**defaults, **options})
        self._openai.append(client)
        return client

    async def requests_received(self, count: int) -> None:
        """Waits until the provider has received a number of requests."""
        while len(self.provider.requests) < count:  # noqa: ASYNC110 - the provider runs in threads
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Closes the clients."""
        for client in self._openai:
            await client.close()
        for other in self._anthropic:
            await other.close()

    def runtime(self, *, unbounded: Literal["refuse", "allow"] = "refuse", **settings: Any) -> Runtime:
        """A runtime with a ceiling on money, and more room for tokens than by default.

        Args:
            unbounded: Whether the agent `spender` may send requests whose cost has no bound.
            settings: More settings, such as `prices`.
        """
        ceilings = Ceilings(
            run_input_tokens=3_000_000,
            run_output_tokens=200_000,
            user_day=Decimal(100),
            agents={"spender": AgentCeilings(unbounded=unbounded)},
        )
        store = f"spending-{len(list(self._folder.iterdir()))}.db"
        shutil.copy(self._empty_store, self._folder / store)
        settings = {"base": self._folder, "store": store, "ceilings": ceilings, **settings}
        return Runtime(Settings(**settings), clock=VirtualClock(datetime.now(UTC)))

    async def spend(
        self,
        agent: Agent[Any, Any],
        prompt: Any = "hi",
        *,
        runtime: Runtime | None = None,
        govern_options: dict[str, Any] | None = None,
        run: Any = None,
        **options: Any,
    ) -> Booking:
        """Runs an agent as `spender`, and reads what was booked and billed.

        Args:
            agent: The agent.
            prompt: The input.
            runtime: The runtime; one without special settings by default.
            govern_options: Arguments of `govern`.
            run: Runs the agent in place of a governed agent's `run`, which `options` are for.
            options: Arguments of `run`.
        """
        runtime = runtime or self.runtime()
        outcome: Any = None
        raised: BaseException | None = None
        try:
            with use_runtime(runtime):
                try:
                    if run is not None:
                        outcome = await run()
                    else:
                        governed = govern(agent, name="spender", **(govern_options or {}))
                        outcome = await governed.run(prompt, user="u", **options)
                except BaseException as error:  # noqa: BLE001 - the test looks at it
                    raised = error
                return await self._booking(runtime, outcome, raised)
        finally:
            runtime.close()

    async def _booking(self, runtime: Runtime, outcome: Any, raised: BaseException | None) -> Booking:
        assert self.provider.wait_until_idle()
        now = runtime.clock.now()
        accounts = await runtime.database.read(load_spending(tenant=None, now=now, limits=runtime.limits))
        users = [account for account in accounts if account.scope == "user"]
        runs = await runtime.database.read(list_runs(now, tenant=None, agent=None, limit=10, before=None))
        spans = []
        for trace_id in {run.trace_id for run in runs}:
            _, of_run = await runtime.database.read(load_trace(trace_id, None))
            spans += [span for span in of_run if span.kind == "model"]
        return Booking(
            outcome=outcome,
            raised=raised,
            provider=self.provider,
            requests=tuple(sorted(spans, key=lambda span: span.start_ns)),
            spent=NanoUsd(sum(account.spent.cost for account in users)),
            held=NanoUsd(sum(account.held.cost for account in users)),
            billed=self.provider.billed,
            discrepancies=tuple(await runtime.database.read(find_discrepancies())),
        )


@pytest.fixture(autouse=True)
def requests_allowed() -> Iterator[None]:
    """Lets models send requests: these tests have a provider of their own."""
    with override_allow_model_requests(allow_model_requests=True):
        yield


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """A provider that answers "ok" until it is told otherwise."""
    with LoopbackProvider() as provider:
        yield provider


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs: to copy it is faster than to make one."""
    folder = tmp_path_factory.mktemp("spending")
    Runtime(Settings(base=folder, store="empty.db")).close()
    return folder / "empty.db"


@pytest.fixture
async def spender(tmp_path: Path, empty_store: Path, provider: LoopbackProvider) -> AsyncIterator[Spender]:
    """Runs on the provider's models."""
    spender = Spender(tmp_path, empty_store, provider)
    yield spender
    await spender.close()


def price(dollars_in: str, dollars_out: str, **more: str) -> PriceOverride:
    """An own price, in dollars per million tokens."""
    return PriceOverride(
        input=Decimal(dollars_in), output=Decimal(dollars_out), **{k: Decimal(v) for k, v in more.items()}
    )


async def drain(_ctx: Any, events: Any) -> None:
    """Reads a run's events, which makes its requests streams."""
    async for _ in events:
        pass
