"""What Handrail cannot hold: it is not booked, and shown as ungoverned spend if its spans arrive by OpenTelemetry."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openai import APIStatusError
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.providers.openai import OpenAIProvider

from handrail import use_runtime
from handrail.testing import Reply, ReplyToolCall
from handrail.traces.otlp.ingest import decode_request, ingest, price_lookup
from handrail.traces.store.rollup_queries import ungoverned_spend
from tests.traces.otlp_samples import PROTOBUF, protobuf, span

from .conftest import Spender

ASK = Reply(tool_calls=[ReplyToolCall("ask", {})])
DONE = Reply(text="done")


async def test_client_in_a_tool(spender: Spender) -> None:
    """A request by the provider's own client in a tool passes no Pydantic AI model: it is billed, not booked."""
    client = spender.client()

    async def ask() -> str:
        answer = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
        return answer.choices[0].message.content or ""

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_consistent()
    first, raw, last = (request.bill for request in spender.provider.requests)
    assert first is not None
    assert raw is not None
    assert last is not None
    assert booking.spent == first.cost + last.cost == booking.billed - raw.cost


async def test_thread(spender: Spender) -> None:
    """An agent in a thread that a tool starts itself does not inherit the run: it is billed, not booked."""

    async def ask_once() -> None:
        model: Any = spender.model("messages")
        await Agent(model).run("hi")
        await model.client.close()

    async def ask() -> str:
        thread = threading.Thread(target=lambda: asyncio.run(ask_once()))
        thread.start()
        await asyncio.to_thread(thread.join)
        return "done"

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_consistent()
    assert len(booking.requests) == 2
    assert 0 < booking.spent < booking.billed


async def test_agent_outside_of_runs(spender: Spender) -> None:
    """A plain agent outside of governed runs is left alone: it is billed, not booked."""

    async def run() -> str:
        return (await Agent(spender.model()).run("hi")).output

    booking = await spender.spend(Agent(), run=run)
    assert (booking.outcome, booking.spent, booking.requests) == ("ok", 0, ())
    assert booking.billed > 0


async def test_client_that_reports_spans(spender: Spender) -> None:
    """Such a request whose span arrives by OpenTelemetry is ungoverned spend, at what the provider bills."""
    runtime = spender.runtime()
    client = spender.client()
    answer = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert answer.usage is not None
    started = datetime.now(UTC)
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.agent.name": "importer",
        "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
    }
    start_ns = int(started.timestamp() * 1e9)
    sent = span(attributes=attributes, start_time_unix_nano=start_ns, end_time_unix_nano=start_ns + 10**9)
    with use_runtime(runtime):
        batch = decode_request(protobuf(sent), PROTOBUF, None, None, price_lookup(runtime.settings.prices))
        await ingest(runtime.database, batch)
        since, until = started - timedelta(hours=2), started + timedelta(hours=2)
        [row] = await runtime.database.read(ungoverned_spend(tenant=None, since=since, until=until))
    runtime.close()
    assert (row.model, row.requests, row.cost) == ("gpt-4o", 1, spender.provider.billed)


async def test_embeddings(spender: Spender) -> None:
    """Pydantic AI's embedders are no models, so a request for embeddings in a tool is sent without a hold."""
    embedder = Embedder(OpenAIEmbeddingModel("text-embedding-3-small", provider=_provider(spender)))

    async def ask() -> str:
        await embedder.embed_query("hi")
        return "done"

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    assert [request.path for request in spender.provider.requests][:2] == ["/v1/chat/completions", "/v1/embeddings"]
    assert len(booking.requests) == 1


@pytest.mark.parametrize("path", [pytest.param(path, id=path) for path in ("images/generations", "audio/speech")])
async def test_other_endpoints(spender: Spender, path: str) -> None:
    """Requests for images and speech by the provider's own client are sent without a hold."""
    client = spender.client()

    async def ask() -> str:
        with pytest.raises(APIStatusError):
            await client.post(f"/{path}", body={"prompt": "a chair"}, cast_to=object)
        return "done"

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_consistent()
    assert [request.path for request in spender.provider.requests][1] == f"/v1/{path}"
    assert len(booking.requests) == 2


def _provider(spender: Spender) -> Any:
    return OpenAIProvider(openai_client=spender.client())
