"""The loopback provider as OpenAI's own client sees it."""

import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionUserMessageParam
from openai.types.responses import Response, ResponseCompletedEvent, ResponseFunctionToolCall, ResponseReasoningItem

from handrail.testing import LoopbackProvider, Reply, ReplyToolCall

USER: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]
CALL = ReplyToolCall("look_up", {"order": "1042"})


def read_chat_stream(client: OpenAI, *, include_usage: bool = True) -> list[ChatCompletionChunk]:
    """All chunks of a stream."""
    options = {"include_usage": include_usage}
    return list(
        client.chat.completions.create(model="gpt-5.1", messages=USER, stream=True, stream_options=options)  # type: ignore[call-overload]
    )


def test_a_chat_answer(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """The text, the finish reason, the requested model and the usage arrive as OpenAI sends them."""
    provider.reply(Reply(text="Hello there", hidden_reasoning_tokens=7))
    completion = openai_client.chat.completions.create(model="gpt-5.1", messages=USER)
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("Hello there", "stop")
    assert (completion.model, completion.service_tier) == ("gpt-5.1", "default")
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.prompt_tokens == provider.count("Hello?") + 4
    assert completion.usage.completion_tokens == provider.count("Hello there") + 7
    assert completion.usage.completion_tokens_details.reasoning_tokens == 7


def test_a_chat_stream(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """A stream has the text in pieces, then the finish reason, then the usage."""
    provider.reply(Reply(text="Hello there"))
    *chunks, last = read_chat_stream(openai_client)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == provider.count("Hello there")


def test_a_chat_stream_reports_usage_only_when_asked(openai_client: OpenAI) -> None:
    """Without `include_usage` no chunk has usage."""
    assert [chunk.usage for chunk in read_chat_stream(openai_client, include_usage=False)] == [None] * 3


def test_tool_calls_in_chat(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """Tool calls finish with `tool_calls`, and streamed arguments add up to the same JSON."""
    provider.reply(Reply(tool_calls=[CALL, ReplyToolCall("look_up", '{"order": ')]))
    [choice] = openai_client.chat.completions.create(model="gpt-5.1", messages=USER).choices
    sent = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]  # type: ignore[union-attr]
    assert sent == [("look_up", '{"order":"1042"}'), ("look_up", '{"order": ')]
    assert choice.finish_reason == "tool_calls"
    deltas = [
        call
        for chunk in read_chat_stream(openai_client)
        if chunk.choices
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    streamed = {
        index: "".join((call.function and call.function.arguments) or "" for call in deltas if call.index == index)
        for index in (0, 1)
    }
    assert streamed == {0: '{"order":"1042"}', 1: '{"order": '}


@pytest.mark.parametrize(
    ("finish", "sent"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("refusal", "stop"),
        ("error", "error"),
    ],
)
def test_the_finish_reasons_of_chat(provider: LoopbackProvider, openai_client: OpenAI, finish: str, sent: str) -> None:
    """Each way to end an answer has OpenAI's name, or for an error OpenRouter's; a refusal has a field of its own."""
    provider.reply(Reply(text="No.", finish=finish))  # type: ignore[arg-type]
    [choice] = openai_client.chat.completions.create(model="gpt-5.1", messages=USER).choices
    assert choice.finish_reason == sent
    assert (choice.message.content, choice.message.refusal) == ((None, "No.") if finish == "refusal" else ("No.", None))


def test_an_answer_in_responses(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """A response has reasoning, text and calls as items, and the usage with its details."""
    provider.reply(Reply(thinking="Let me see.", text="Looking.", tool_calls=[CALL], hidden_reasoning_tokens=5))
    response = openai_client.responses.create(model="gpt-5.1", input="Hello?")
    reasoning, _, call = response.output
    assert isinstance(reasoning, ResponseReasoningItem)
    assert isinstance(call, ResponseFunctionToolCall)
    assert [part.text for part in reasoning.summary] == ["Let me see."]
    assert (response.status, response.output_text) == ("completed", "Looking.")
    assert (call.name, call.arguments) == ("look_up", '{"order":"1042"}')
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 5 + provider.count("Let me see.")


def test_a_stream_of_responses(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """The client's own accumulator gets the whole response out of the events, which are numbered."""
    provider.reply(Reply(thinking="Let me see.", text="Looking.", tool_calls=[CALL]))
    with openai_client.responses.stream(model="gpt-5.1", input="Hello?") as stream:
        events = list(stream)
        final: Response = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert final.output_text == "Looking."
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == '{"order":"1042"}'


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("error", "failed", None),
        ("refusal", "completed", None),
    ],
)
def test_the_statuses_of_responses(
    provider: LoopbackProvider, openai_client: OpenAI, finish: str, status: str, reason: str | None
) -> None:
    """Each way to end an answer has its status and reason."""
    provider.reply(Reply(text="No.", finish=finish))  # type: ignore[arg-type]
    response = openai_client.responses.create(model="gpt-5.1", input="Hello?")
    assert response.status == status
    assert (response.incomplete_details and response.incomplete_details.reason) == reason
    assert (response.output_text == "") == (finish == "refusal")


def test_an_unknown_model(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """A model without a price does not exist, and asking for it is free."""
    with pytest.raises(NotFoundError) as caught:
        openai_client.chat.completions.create(model="gpt-none", messages=USER)
    assert caught.value.code == "model_not_found"
    assert [request.bill for request in provider.requests] == [None]


def test_the_models(openai_client: OpenAI) -> None:
    """The invented models are listed."""
    assert [model.id for model in openai_client.models.list()] == ["invented"]


def test_an_unknown_path(openai_client: OpenAI) -> None:
    """Any other path is answered with OpenAI's error."""
    with pytest.raises(NotFoundError) as caught:
        openai_client.embeddings.create(model="gpt-5.1", input="Hello?")
    assert caught.value.type == "invalid_request_error"
