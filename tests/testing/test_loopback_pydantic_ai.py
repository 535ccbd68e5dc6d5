"""The loopback provider as Pydantic AI's models see it."""

from collections.abc import Callable, Iterator

import pytest
from anthropic import AsyncAnthropic
from anthropic import DefaultAsyncHttpxClient as AnthropicHttpClient
from openai import AsyncOpenAI
from openai import DefaultAsyncHttpxClient as OpenAIHttpClient
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import Model, override_allow_model_requests
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openrouter import OpenRouterProvider

from handrail.testing import LoopbackProvider, Reply, ReplyToolCall

MakeModel = Callable[[LoopbackProvider], Model]


def openai_provider(provider: LoopbackProvider) -> OpenAIProvider:
    """Pydantic AI's provider for OpenAI, without certificates, which take long to load."""
    http_client = OpenAIHttpClient(verify=False)
    client = AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0, http_client=http_client)
    return OpenAIProvider(openai_client=client)


def chat_model(provider: LoopbackProvider) -> Model:
    """OpenAI's Chat Completions."""
    return OpenAIChatModel("gpt-5.1", provider=openai_provider(provider))


def responses_model(provider: LoopbackProvider) -> Model:
    """OpenAI's Responses."""
    return OpenAIResponsesModel("gpt-5.1", provider=openai_provider(provider))


def anthropic_model(provider: LoopbackProvider) -> Model:
    """Anthropic's Messages."""
    http_client = AnthropicHttpClient(verify=False)
    client = AsyncAnthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0, http_client=http_client)
    return AnthropicModel("claude-sonnet-4-6", provider=AnthropicProvider(anthropic_client=client))


every_model = pytest.mark.parametrize("make_model", [chat_model, responses_model, anthropic_model])


@pytest.fixture(autouse=True)
def requests_allowed() -> Iterator[None]:
    """Lets the models send requests, which stay on this machine."""
    with override_allow_model_requests(True):
        yield


async def streamed(model: Model, request: ModelRequest) -> ModelResponse:
    """The response that a stream adds up to."""
    async with model_request_stream(model, [request], model_settings={"max_tokens": 100}) as stream:
        async for _ in stream:
            pass
        return stream.get()


@every_model
@pytest.mark.anyio
async def test_a_response_and_a_stream_are_the_same(provider: LoopbackProvider, make_model: MakeModel) -> None:
    """Thinking, text and calls arrive, with the finish reason and exactly the billed tokens, streamed or not."""
    call = ReplyToolCall("look_up", {"order": "1042"})
    provider.reply(Reply(thinking="Let me see.", text="Looking.", tool_calls=[call], hidden_reasoning_tokens=9))
    request = ModelRequest.user_text_prompt("Hello?")
    whole = await model_request(make_model(provider), [request], model_settings={"max_tokens": 100})
    for response in (whole, await streamed(make_model(provider), request)):
        thinking, text, tool_call = response.parts
        assert isinstance(thinking, ThinkingPart)
        assert isinstance(text, TextPart)
        assert isinstance(tool_call, ToolCallPart)
        assert (thinking.content, text.content) == ("Let me see.", "Looking.")
        assert tool_call.args_as_dict() == {"order": "1042"}
    assert whole.finish_reason == response.finish_reason
    bills = [request.bill for request in provider.requests]
    for response_usage, bill in zip((whole.usage, response.usage), bills, strict=True):
        assert bill is not None
        assert (response_usage.input_tokens, response_usage.output_tokens) == (bill.input_tokens, bill.output_tokens)


@every_model
@pytest.mark.anyio
async def test_a_cut_answer(provider: LoopbackProvider, make_model: MakeModel) -> None:
    """The limit that Pydantic AI sends cuts the answer, whose finish reason is `length`."""
    provider.reply(Reply(text="x" * 4_000))
    request = ModelRequest.user_text_prompt("Hello?")
    response = await model_request(make_model(provider), [request], model_settings={"max_tokens": 100})
    assert (response.finish_reason, response.text) == ("length", "x" * 400)
    assert (await streamed(make_model(provider), request)).finish_reason == "length"


@every_model
@pytest.mark.anyio
async def test_a_refusal(provider: LoopbackProvider, make_model: MakeModel) -> None:
    """Pydantic AI calls a refusal `content_filter`, and keeps its text in the details."""
    provider.reply(Reply(text="I will not do that.", finish="refusal"))
    request = ModelRequest.user_text_prompt("Hello?")
    whole = await model_request(make_model(provider), [request], model_settings={"max_tokens": 100})
    for response in (whole, await streamed(make_model(provider), request)):
        assert (response.finish_reason, response.parts) == ("content_filter", [])
        assert response.provider_details is not None
        assert response.provider_details["refusal"] == "I will not do that."


class Order(BaseModel):
    """An order."""

    number: int


@every_model
@pytest.mark.anyio
async def test_an_agent_with_a_tool(provider: LoopbackProvider, make_model: MakeModel) -> None:
    """An agent calls its tool and then answers with its output, and the second request has all of the first."""
    agent = Agent(make_model(provider), output_type=Order)

    @agent.tool_plain
    def look_up(name: str) -> int:
        """Finds an order's number."""
        return len(name)

    provider.reply(
        Reply(tool_calls=[ReplyToolCall("look_up", {"name": "Ada"})]),
        Reply(tool_calls=[ReplyToolCall("final_result", {"number": 3})]),
    )
    result = await agent.run("Which order?")
    assert result.output == Order(number=3)
    first, second = (request.bill for request in provider.requests)
    assert first is not None
    assert second is not None
    assert second.input_tokens > first.input_tokens


@every_model
@pytest.mark.anyio
async def test_cached_tokens(provider: LoopbackProvider, make_model: MakeModel) -> None:
    """Tokens read from the cache are reported as such, and as part of the input."""
    provider.reply(Reply(text="ok", cached_tokens=500))
    request = ModelRequest.user_text_prompt("x" * 4_000)
    whole = await model_request(make_model(provider), [request], model_settings={"max_tokens": 100})
    for response in (whole, await streamed(make_model(provider), request)):
        assert (response.usage.cache_read_tokens, response.usage.input_tokens) == (500, 1_004)


@pytest.mark.anyio
async def test_openrouters_cost() -> None:
    """Pydantic AI's model for OpenRouter keeps the cost that a response reports."""
    with LoopbackProvider(prices={"lab/invented": (1, 2)}, openai_provider_id="openrouter") as provider:
        provider.reply(Reply(text="ok", reported_cost=0.25))
        client = openai_provider(provider).client
        model = OpenRouterModel("lab/invented", provider=OpenRouterProvider(openai_client=client))
        request = ModelRequest.user_text_prompt("Hello?")
        whole = await model_request(model, [request])
        for response in (whole, await streamed(model, request)):
            assert response.provider_details is not None
            assert response.provider_details["cost"] == 0.25
