"""The loopback provider's faults, as the official clients see them, and what they are billed."""

import time
from typing import Any

import pytest
from anthropic import Anthropic
from anthropic import APIStatusError as AnthropicStatusError
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from handrail.testing import (
    Disconnect,
    EndsWithoutFinish,
    Hang,
    HtmlPage,
    HttpError,
    LoopbackProvider,
    RawBody,
    Reply,
    StreamError,
)

USER: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]
INPUT_COST = 6 * 1_000
TOKEN_COST = 2_000


def chat(client: OpenAI, **extra: Any) -> Any:
    """Asks an invented model at a dollar per million input tokens and two per million output tokens."""
    return client.chat.completions.create(**{"model": "invented", "messages": USER, **extra})


@pytest.mark.parametrize(
    ("status", "is_free"),
    [(400, True), (401, True), (429, True), (408, False), (499, False), (500, False), (504, False), (524, False)],
)
def test_error_statuses(provider: LoopbackProvider, openai_client: OpenAI, status: int, is_free: bool) -> None:
    """A client error is free; a timeout and a server error are billed as if the answer had arrived."""
    provider.reply(Reply(text="ok", fault=HttpError(status, headers={"retry-after": "7"})))
    with pytest.raises(APIStatusError) as caught:
        chat(openai_client)
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (status, "7")
    assert provider.billed == (0 if is_free else INPUT_COST + TOKEN_COST)


def test_an_error_with_a_body_of_its_own(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """The body replaces the provider's format."""
    provider.reply(Reply(fault=HttpError(529, body={"error": {"type": "overloaded_error", "message": "Busy"}})))
    with pytest.raises(AnthropicStatusError, match="Busy"):
        anthropic_client.messages.create(model="invented", max_tokens=10, messages=[{"role": "user", "content": "?"}])


def test_a_hang_ends_with_the_clients_patience(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """The client runs into its timeout, and the request is billed in full."""
    provider.reply(Reply(text="ok", fault=Hang()))
    with pytest.raises(APITimeoutError):
        chat(openai_client, timeout=0.05)
    assert provider.wait_until_idle()
    assert provider.billed == INPUT_COST + TOKEN_COST


def test_closing_does_not_wait_for_hanging_requests() -> None:
    """The provider closes at once while a stream is open and waits for its next chunk."""
    with LoopbackProvider() as provider, OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
        provider.reply(Reply(text="Hello", chunk_delay_s=60))
        stream = client.chat.completions.create(model="gpt-5.1", messages=USER, stream=True)
        next(iter(stream))
        started = time.monotonic()
        provider.__exit__(None, None, None)
        assert time.monotonic() - started < 1
        stream.close()


def test_a_connection_closed_without_an_answer(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """A request without a stream is billed in full, though its connection is closed without an answer."""
    provider.reply(Reply(text="ok", fault=Disconnect()))
    with pytest.raises(APIConnectionError):
        chat(openai_client)
    assert provider.billed == INPUT_COST + TOKEN_COST


def test_a_stream_that_is_cut(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """The chunks until the cut arrive and are billed, with the hidden reasoning in full."""
    provider.reply(Reply(text="x" * 40, hidden_reasoning_tokens=100, fault=Disconnect(after_chunks=3)))
    chunks = iter(chat(openai_client, stream=True))
    assert "".join(next(chunks).choices[0].delta.content for _ in range(4)) == "x" * 12
    with pytest.raises(APIConnectionError):
        next(chunks)
    assert provider.billed == INPUT_COST + (100 + 3) * TOKEN_COST


def test_a_stream_that_ends_without_finish(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """The stream ends as if all were well, without finish reason and usage."""
    provider.reply(Reply(text="x" * 40, fault=EndsWithoutFinish(after_chunks=2)))
    chunks = list(chat(openai_client, stream=True, stream_options={"include_usage": True}))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 3
    assert [chunk.usage for chunk in chunks] == [None] * 3
    assert provider.billed == INPUT_COST + 2 * TOKEN_COST


def test_an_error_in_the_middle_of_a_stream(
    provider: LoopbackProvider, openai_client: OpenAI, anthropic_client: Anthropic
) -> None:
    """The clients raise the error, except OpenAI's for Responses, where it is an event; what came before is billed."""
    provider.reply(Reply(text="x" * 40, fault=StreamError(after_chunks=1, message="Overloaded")))
    with pytest.raises(APIError, match="Overloaded"):
        list(chat(openai_client, stream=True))
    *_, last = openai_client.responses.create(model="invented", input="Hello?", stream=True)
    assert (last.type, getattr(last, "message", None)) == ("error", "Overloaded")
    with pytest.raises(AnthropicStatusError, match="Overloaded"):
        list(anthropic_client.messages.create(model="invented", max_tokens=50, messages=USER, stream=True))  # type: ignore[arg-type]
    assert provider.billed == 3 * (INPUT_COST + TOKEN_COST)


def test_a_stream_left_during_hidden_reasoning(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """A client that leaves before the first word owes the input and all of the hidden reasoning."""
    provider.reply(Reply(text="Hello", hidden_reasoning_tokens=1_000, chunk_delay_s=60))
    with chat(openai_client, stream=True) as stream:
        assert next(iter(stream)).choices[0].delta.content == ""
    assert provider.wait_until_idle()
    assert provider.billed == INPUT_COST + 1_000 * TOKEN_COST


def test_a_page_instead_of_json(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """OpenAI's client hands a page with status 200 to the caller as text."""
    provider.reply(Reply(fault=HtmlPage()))
    assert "<html>" in str(chat(openai_client))


@pytest.mark.parametrize(
    "content",
    [{"choices": []}, {"choices": None}, {"error": {"message": "Upstream failed", "code": 502}}],
)
def test_nonsense_with_status_200(provider: LoopbackProvider, openai_client: OpenAI, content: Any) -> None:
    """Any body can be sent, and is billed."""
    provider.reply(Reply(text="ok", fault=RawBody(content)))
    assert not chat(openai_client).choices
    assert provider.billed == INPUT_COST + TOKEN_COST


def test_broken_json(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """Bytes are sent as they are."""
    provider.reply(Reply(fault=RawBody(b'{"choices": [')))
    with pytest.raises(ValueError, match="Expecting value"):
        chat(openai_client)


def test_replies_come_in_order_and_the_last_is_repeated(provider: LoopbackProvider) -> None:
    """A failure followed by an answer is how a retry is tested."""
    provider.reply(Reply(fault=HttpError(503, headers={"retry-after-ms": "1"})), Reply(text="Hello"))
    with OpenAI(base_url=provider.openai_url, api_key="test", max_retries=1) as client:
        assert [chat(client).choices[0].message.content for _ in range(2)] == ["Hello", "Hello"]
    assert [request.body["model"] for request in provider.requests] == ["invented"] * 3
    assert provider.requests[1].headers["x-stainless-retry-count"] == "1"


def test_there_must_be_a_reply(provider: LoopbackProvider) -> None:
    """No replies at all is an error in the test, not a provider that answers nothing."""
    with pytest.raises(ValueError, match="at least one"):
        provider.reply()
