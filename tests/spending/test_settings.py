"""Requests whose cost has no bound: refused before they are sent, or allowed by the operator and shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai import Agent, AudioUrl, BinaryContent, DocumentUrl, RunContext, UploadedFile, VideoUrl
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.native_tools import (
    AbstractNativeTool,
    CodeExecutionTool,
    FileSearchTool,
    ImageGenerationTool,
    MCPServerTool,
    WebFetchTool,
    WebSearchTool,
)

from handrail import Refused
from handrail.config.settings import Ceilings
from handrail.testing import Reply, ReplyToolCall

from .conftest import Api, Spender

NAMELESS = "house-model"
"""A model whose context window nobody knows, so that a file in its input has no bound at all."""


@dataclass(frozen=True, kw_only=True)
class Unbounded:
    """A request whose cost has no bound, and the name of what is to blame."""

    name: str
    api: Api = "chat"
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    tools: Sequence[AbstractNativeTool] = ()
    prompt: Any = "hi"


def body(api: Api = "chat", **fields: Any) -> Unbounded:
    """A request with one field that its settings do not know."""
    [name] = fields
    return Unbounded(name=f"extra_body.{name}", api=api, settings={"extra_body": fields})


def setting(api: Api = "chat", **settings: Any) -> Unbounded:
    """A request with one setting."""
    [name] = settings
    return Unbounded(name=name, api=api, settings=settings)


def native(api: Api, tool: AbstractNativeTool) -> Unbounded:
    """A request with a tool that the provider runs."""
    return Unbounded(name=f"native tool {tool.kind}", api=api, tools=[tool])


def file(name: str, content: Any) -> Unbounded:
    """A request with a file."""
    return Unbounded(name=name, model=NAMELESS, prompt=["What is this?", content])


MESSAGE: dict[str, Any] = {"type": "content", "content": "ok"}
WAYS = {
    "maximum-in-extra-body": body(max_completion_tokens=100_000),
    "old-maximum-in-extra-body": body(max_tokens=100_000),
    "no-maximum-in-extra-body": body(max_completion_tokens=None),
    "maximum-in-extra-body-responses": body("responses", max_output_tokens=100_000),
    "maximum-in-extra-body-messages": body("messages", max_tokens=60_000),
    "many-answers-in-extra-body": body(n=8),
    "many-answers": setting(n=8),
    "another-model-in-extra-body": body(model="gpt-5.1-pro"),
    "fallback-models-of-a-router": body(models=["openai/gpt-5.1", "openai/gpt-4o"]),
    "plugins-of-a-router": body(plugins=[{"id": "web"}]),
    "tools-in-extra-body": body("responses", tools=[{"type": "web_search"}]),
    "web-search-in-extra-body": body(web_search_options={}),
    "messages-in-extra-body": body(messages=[{"role": "user", "content": "x" * 100_000}]),
    "unknown-field-in-extra-body": body(invented=True),
    "prediction": setting(openai_prediction=MESSAGE),
    "prediction-in-extra-body": body(prediction=MESSAGE),
    "previous-response": setting("responses", openai_previous_response_id="resp_1"),
    "previous-response-auto": setting("responses", openai_previous_response_id="auto"),
    "previous-response-in-extra-body": body("responses", previous_response_id="resp_1"),
    "conversation-at-the-provider": setting("responses", openai_conversation_id="conv_1"),
    "background": setting("responses", openai_background=True),
    "background-in-extra-body": body("responses", background=True),
    "context-management": setting("responses", openai_context_management=[{"type": "compaction"}]),
    "container": setting("messages", anthropic_container={"id": "container_1"}),
    "header-of-a-beta": Unbounded(
        name="extra_headers.anthropic-beta",
        api="messages",
        settings={"extra_headers": {"anthropic-beta": "code-execution-2025-08-25"}},
    ),
    "header-of-a-gateway": Unbounded(
        name="extra_headers.x-route-to", settings={"extra_headers": {"X-Route-To": "gpt-5.1-pro"}}
    ),
    "web-search-responses": native("responses", WebSearchTool()),
    "web-search-messages": native("messages", WebSearchTool(max_uses=1)),
    "web-fetch": native("messages", WebFetchTool()),
    "code-execution": native("responses", CodeExecutionTool()),
    "code-execution-messages": native("messages", CodeExecutionTool()),
    "mcp-server": native("responses", MCPServerTool(id="shop", url="https://example.com/mcp")),
    "file-search": native("responses", FileSearchTool(file_store_ids=["vs_1"])),
    "image-generation": native("responses", ImageGenerationTool()),
    "model-that-searches": Unbounded(name="model gpt-4o-search-preview", model="gpt-4o-search-preview"),
    "document": file("a document", BinaryContent(b"%PDF-1.7", media_type="application/pdf")),
    "document-by-url": file("a document", DocumentUrl("https://example.com/terms.pdf")),
    "audio": file("audio", AudioUrl("https://example.com/call.mp3")),
    "video": file("a video", VideoUrl("https://example.com/tour.mp4")),
    "uploaded-file": file("an uploaded file", UploadedFile(file_id="file_1", provider_name="openai")),
    "image-of-an-unknown-model": file("an image", BinaryContent(b"\x89PNG", media_type="image/png")),
}


def agent_for(spender: Spender, way: Unbounded) -> Agent[None, str]:
    """An agent that makes the request."""
    settings: Any = way.settings
    capabilities = [NativeTool(tool) for tool in way.tools]
    return Agent(spender.model(way.api, way.model), model_settings=settings, capabilities=capabilities)


@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items()])
async def test_refused(spender: Spender, way: Unbounded) -> None:
    """A request whose cost has no bound never reaches the provider, and the refusal names what to change."""
    own = {NAMELESS: {"input": 3, "output": 9}}
    agent = agent_for(spender, way)
    booking = await spender.spend(agent, way.prompt, runtime=spender.runtime(prices=own))
    booking.assert_refused(way.name)


SEARCHED = Reply(text="done", web_searches=3, web_search_tokens=180_000)
ALLOWED = {
    "maximum-in-extra-body": (body(max_completion_tokens=9_000), Reply(text="words " * 9_000)),
    "many-answers": (body(n=8), Reply(text="The answer is 42.")),
    "web-search-responses": (native("responses", WebSearchTool()), SEARCHED),
    "web-search-messages": (native("messages", WebSearchTool()), SEARCHED),
    "prediction": (setting(openai_prediction=MESSAGE), Reply(text="done")),
    "conversation-at-the-provider": (setting("responses", openai_conversation_id="conv_1"), Reply(text="done")),
}


@pytest.mark.parametrize(("way", "reply"), [pytest.param(*pair, id=name) for name, pair in ALLOWED.items()])
async def test_allowed(spender: Spender, way: Unbounded, reply: Reply) -> None:
    """Where the operator allows it, the request is sent, booked as billed whatever was held, and its cause shown."""
    spender.provider.reply(reply)
    agent = agent_for(spender, way)
    booking = await spender.spend(agent, way.prompt, runtime=spender.runtime(unbounded="allow"))
    booking.assert_exact()
    assert booking.requests[0].attributes["handrail.cost.unbounded"] == [way.name]


async def test_conversation_state_allowed(spender: Spender) -> None:
    """A chain of responses that the provider keeps is booked as billed, with all that the provider read again."""
    lamp = ReplyToolCall("look_up", {"key": "lamp"})
    spender.provider.reply(Reply(text="word " * 2_000, tool_calls=[lamp]), Reply(text="done"))

    def look_up(key: str) -> str:
        return f"{key} is in stock"

    settings: Any = {"openai_previous_response_id": "auto"}
    agent = Agent(spender.model("responses"), tools=[look_up], model_settings=settings)
    booking = await spender.spend(agent, runtime=spender.runtime(unbounded="allow"))
    booking.assert_exact(2)
    assert booking.provider.requests[1].body["previous_response_id"] == "resp_loopback0001"


async def test_setting_of_the_model(spender: Spender) -> None:
    """A setting on the model, and not on the agent, is refused as well."""
    model = spender.model()
    model._settings = {"extra_body": {"n": 8}}
    booking = await spender.spend(Agent(model))
    booking.assert_refused("extra_body.n")


async def test_setting_of_one_run(spender: Spender) -> None:
    """A setting that is passed for one run is refused as well."""
    booking = await spender.spend(Agent(spender.model()), model_settings={"extra_body": {"n": 8}})
    booking.assert_refused("extra_body.n")


OPERATIONS: dict[str, tuple[str, Any]] = {
    "compaction": ("compaction at the provider", lambda model, messages: model.compact_messages(messages)),
    "batch": ("a batch of requests", lambda model, _messages: model.batch_create([])),
}


@pytest.mark.parametrize(("name", "operate"), [pytest.param(*pair, id=key) for key, pair in OPERATIONS.items()])
async def test_operation_refused(spender: Spender, name: str, operate: Any) -> None:
    """Compactions and batches, which are no single request, are refused in a run."""
    model = spender.model("responses")
    spender.provider.reply(Reply(tool_calls=[ReplyToolCall("use", {})]), Reply(text="done"))

    async def use(ctx: RunContext[None]) -> str:
        await operate(model, ctx.messages)
        return "done"

    booking = await spender.spend(Agent(model, tools=[use]))
    booking.assert_exact(1)
    assert isinstance(booking.outcome, Refused)
    assert booking.outcome.refusal.unbounded == (name,)


async def test_unknown_price(spender: Spender) -> None:
    """A model whose price nobody knows is refused, and the refusal names the section for prices."""
    booking = await spender.spend(Agent(spender.model("chat", NAMELESS)))
    assert isinstance(booking.outcome, Refused)
    assert booking.outcome.scope == "price"
    assert "[prices]" in str(booking.outcome.refusal)
    assert booking.provider.requests == ()


async def test_ceiling_of_the_tenant_only(spender: Spender) -> None:
    """A ceiling on the tenant's month is enough for a refusal."""
    ceilings = Ceilings(user_day=None, tenant_month=Decimal(100))
    agent = Agent(spender.model(), model_settings={"extra_body": {"n": 8}})
    booking = await spender.spend(agent, runtime=spender.runtime(ceilings=ceilings))
    booking.assert_refused("extra_body.n")


async def test_no_ceiling_on_money(spender: Spender) -> None:
    """Without a ceiling on money nothing is refused, but what has no bound is booked and shown."""
    agent = Agent(spender.model(), model_settings={"extra_body": {"n": 8}})
    booking = await spender.spend(agent, runtime=spender.runtime(ceilings=Ceilings(user_day=None)))
    booking.assert_exact()
    assert booking.requests[0].attributes["handrail.cost.unbounded"] == ["extra_body.n"]
