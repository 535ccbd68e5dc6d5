"""The loopback provider as Anthropic's own client sees it."""

import pytest
from anthropic import Anthropic, BadRequestError, InternalServerError, NotFoundError
from anthropic.types import MessageParam, TextBlock, ThinkingBlock, ToolUseBlock

from handrail.testing import LoopbackProvider, Reply, ReplyToolCall

MODEL = "claude-sonnet-4-6"
USER: list[MessageParam] = [{"role": "user", "content": "Hello?"}]
CALL = ReplyToolCall("look_up", {"order": "1042"})


def test_a_message(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """Thinking, text and calls are blocks, and the usage is divided as Anthropic divides it."""
    provider.reply(Reply(thinking="Let me see.", text="Looking.", tool_calls=[CALL], hidden_reasoning_tokens=5))
    message = anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=USER)
    thinking, text, call = message.content
    assert isinstance(thinking, ThinkingBlock)
    assert isinstance(text, TextBlock)
    assert isinstance(call, ToolUseBlock)
    assert (thinking.thinking, text.text) == ("Let me see.", "Looking.")
    assert thinking.signature
    assert (call.name, call.input) == ("look_up", {"order": "1042"})
    assert message.stop_reason == "tool_use"
    assert message.usage.input_tokens == provider.count("Hello?") + 4
    assert message.usage.service_tier == "standard"
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 5 + provider.count("Let me see.")


def test_a_stream_of_a_message(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """The client's own accumulator gets the same message out of the events."""
    provider.reply(Reply(thinking="Let me see.", text="Looking.", tool_calls=[CALL], hidden_reasoning_tokens=5))
    whole = anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=USER)
    with anthropic_client.messages.stream(model=MODEL, max_tokens=100, messages=USER) as stream:
        final = stream.get_final_message()
    contents = [[block.model_dump(exclude={"id", "parsed_output"}) for block in m.content] for m in (whole, final)]
    assert contents[0] == contents[1]
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("refusal", "refusal")],
)
def test_the_stop_reasons(provider: LoopbackProvider, anthropic_client: Anthropic, finish: str, reason: str) -> None:
    """Each way to end an answer has Anthropic's name; a refusal's text is the explanation."""
    provider.reply(Reply(text="No.", finish=finish))  # type: ignore[arg-type]
    message = anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=USER)
    assert message.stop_reason == reason
    assert len(message.content) == (0 if finish == "refusal" else 1)
    assert (message.stop_details and message.stop_details.explanation) == ("No." if finish == "refusal" else None)


def test_an_answer_that_ends_with_an_error(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """Anthropic has no stop reason for an error: it is an error response, which is billed."""
    provider.reply(Reply(text="Oops", finish="error"))
    with pytest.raises(InternalServerError):
        anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=USER)
    assert provider.billed > 0


def test_arguments_cut_by_the_limit(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """Arguments that the limit cuts arrive as an empty object, or in a stream as the JSON generated so far."""
    provider.reply(Reply(tool_calls=[CALL]))
    message = anthropic_client.messages.create(model=MODEL, max_tokens=4, messages=USER)
    [call] = message.content
    assert isinstance(call, ToolUseBlock)
    assert (call.input, message.stop_reason) == ({}, "max_tokens")
    events = anthropic_client.messages.create(model=MODEL, max_tokens=4, messages=USER, stream=True)
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(delta.partial_json for delta in deltas if delta.type == "input_json_delta") == '{"order"'


def test_counting_tokens(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """The count for a request is what the request is billed, and it is free."""
    counted = anthropic_client.messages.count_tokens(model=MODEL, messages=USER, system="Be brief.")
    assert provider.billed == 0
    message = anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=USER, system="Be brief.")
    assert counted.input_tokens == message.usage.input_tokens


def test_errors_have_anthropics_format(anthropic_client: Anthropic) -> None:
    """An unknown model is `not_found_error`, a bad request `invalid_request_error`."""
    with pytest.raises(NotFoundError) as not_found:
        anthropic_client.messages.create(model="claude-none", max_tokens=100, messages=USER)
    with pytest.raises(BadRequestError) as bad:
        anthropic_client.messages.create(model=MODEL, max_tokens=0, messages=USER)
    assert (not_found.value.type, bad.value.type) == ("not_found_error", "invalid_request_error")
