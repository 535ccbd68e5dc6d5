"""What the loopback provider charges."""

from typing import Any

import pytest
from anthropic import Anthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from handrail.testing import Bill, LoopbackProvider, Reply, ReplyToolCall
from handrail.testing.loopback.answer import answer_to, arguments_text
from handrail.testing.loopback.cache import PromptCache
from handrail.testing.loopback.openai_chat import chat_request
from handrail.testing.loopback.prompt import PromptSegment, ProviderRequest, count_text

USER: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]
CLAUDE = "claude-sonnet-4-6"


def last_bill(provider: LoopbackProvider) -> Bill:
    """The bill for the latest request, which must have one."""
    bill = provider.requests[-1].bill
    assert bill is not None
    return bill


def chat(client: OpenAI, **extra: Any) -> None:
    """Asks an invented model at a dollar per million input tokens and two per million output tokens."""
    client.chat.completions.create(**{"model": "invented", "messages": USER, **extra})


@pytest.mark.parametrize(("tier", "dollars"), [(None, 0.16875), ("priority", 0.3375), ("flex", 0.084375)])
def test_the_service_tier_decides_the_price(
    provider: LoopbackProvider, openai_client: OpenAI, tier: str | None, dollars: float
) -> None:
    """gpt-5.1 with 100,000 input tokens, half of them cached, and 10,000 output tokens, as OpenAI prices it."""
    text = "x" * 4 * (100_000 - 4)
    provider.reply(Reply(output_tokens=10_000, cached_tokens=50_000))
    extra = {"service_tier": tier} if tier else {}
    chat(openai_client, model="gpt-5.1", messages=[{"role": "user", "content": text}], **extra)
    assert provider.billed == dollars * 1e9
    assert last_bill(provider).service_tier == (tier or "default")


def test_the_bill_is_for_the_requested_model(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """Another name in the response changes nothing, nor does the usage that is reported."""
    provider.reply(Reply(text="ok", model="gpt-5.1-pro", usage={"prompt_tokens": -1}, reported_cost=9.0))
    completion = openai_client.chat.completions.create(model="invented", messages=USER)
    assert completion.model == "gpt-5.1-pro"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == -1
    assert provider.billed == (provider.count("Hello?") + 4) * 1_000 + 2_000


def test_each_choice_is_billed(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """`n=8` bills the output eight times and the input once."""
    provider.reply(Reply(text="x" * 40, hidden_reasoning_tokens=5))
    chat(openai_client, n=8)
    assert (last_bill(provider).output_tokens, last_bill(provider).input_tokens) == (8 * 15, 6)


def test_the_larger_of_two_limits_wins(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """`max_tokens` and `max_completion_tokens` that differ are read as the provider likes it."""
    provider.reply(Reply(text="x" * 4_000))
    chat(openai_client, max_tokens=10, extra_body={"max_completion_tokens": 500})
    assert last_bill(provider).output_tokens == 500


def test_the_limit_includes_hidden_reasoning(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """Reasoning beyond the limit leaves no room for text, and is billed up to the limit."""
    provider.reply(Reply(text="Hello", hidden_reasoning_tokens=300))
    completion = openai_client.chat.completions.create(model="invented", messages=USER, max_completion_tokens=100)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == (None, "length")
    assert (last_bill(provider).output_tokens, last_bill(provider).reasoning_tokens) == (100, 100)


def test_a_kept_response_is_billed_again(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """`previous_response_id` bills the earlier conversation as input once more."""
    first = openai_client.responses.create(model="invented", input="x" * 400)
    openai_client.responses.create(model="invented", input="Go on", previous_response_id=first.id)
    # The first input, its answer "ok" and the new input, with four more for each.
    assert last_bill(provider).input_tokens == (100 + 4) + (1 + 4) + (2 + 4)


def test_a_conversation_at_the_provider_grows(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """Each request in a conversation bills all that came before."""
    for _ in range(3):
        openai_client.responses.create(model="invented", input="Hello?", conversation="conv_1")
    assert [request.bill.input_tokens for request in provider.requests if request.bill] == [6, 17, 28]


def test_a_response_that_was_not_kept(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """With `store=False` nothing is kept, and asking for it is an error that costs nothing."""
    first = openai_client.responses.create(model="invented", input="Hello?", store=False)
    with pytest.raises(BadRequestError) as caught:
        openai_client.responses.create(model="invented", input="Go on", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    assert provider.requests[-1].bill is None


def test_web_search_is_billed_if_it_is_on(
    provider: LoopbackProvider, openai_client: OpenAI, anthropic_client: Anthropic
) -> None:
    """Searches add their tokens and a fee, and only to requests that turn web search on."""
    provider.reply(Reply(text="ok", web_searches=3, web_search_tokens=180_000))
    openai_client.responses.create(model="gpt-5.1", input="Hello?")
    assert (last_bill(provider).web_searches, last_bill(provider).input_tokens) == (0, 6)
    response = openai_client.responses.create(model="gpt-5.1", input="Hello?", tools=[{"type": "web_search"}])
    assert [item.type for item in response.output] == ["web_search_call"] * 3 + ["message"]
    assert last_bill(provider).input_tokens > 180_000
    assert last_bill(provider).cost > 3 * 10_000_000
    message = anthropic_client.messages.create(
        model=CLAUDE,
        max_tokens=10,
        messages=[{"role": "user", "content": "Hello?"}],
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
    )
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 3
    assert last_bill(provider).cost > 3 * 10_000_000


def test_search_tokens_are_reported_at_the_end_of_a_stream(
    provider: LoopbackProvider, anthropic_client: Anthropic
) -> None:
    """`message_start` cannot know what a search will add; `message_delta` has the sum."""
    provider.reply(Reply(text="ok", web_searches=1, web_search_tokens=5_000))
    events = anthropic_client.messages.create(
        model=CLAUDE,
        max_tokens=10,
        messages=[{"role": "user", "content": "Hello?"}],
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
        stream=True,
    )
    reported = [
        event.message.usage.input_tokens if event.type == "message_start" else event.usage.input_tokens
        for event in events
        if event.type in ("message_start", "message_delta")
    ]
    assert reported == [last_bill(provider).input_tokens - 5_000, last_bill(provider).input_tokens]


@pytest.mark.parametrize(("speed", "dollars_per_million"), [("standard", 5), ("fast", 10)])
def test_the_speed_decides_the_price(
    provider: LoopbackProvider, anthropic_client: Anthropic, speed: str, dollars_per_million: int
) -> None:
    """Anthropic's fast mode has its own price, and the response says that it was fast."""
    provider.reply(Reply(output_tokens=0))
    text = "x" * 4 * (100_000 - 4)
    message = anthropic_client.messages.create(
        model="claude-opus-5",
        max_tokens=10,
        messages=[{"role": "user", "content": text}],
        extra_body={"speed": speed},
    )
    assert message.usage.speed == (None if speed == "standard" else "fast")
    assert provider.billed == dollars_per_million * 100_000_000


def test_openai_caches_long_prefixes_by_itself(provider: LoopbackProvider, openai_client: OpenAI) -> None:
    """A system prompt of 2,000 tokens is read from the cache the second time, in steps of 128."""
    for question in ("One?", "Two?"):
        chat(
            openai_client, messages=[{"role": "system", "content": "x" * 8_000}, {"role": "user", "content": question}]
        )
    assert [request.bill.cache_read_tokens for request in provider.requests if request.bill] == [0, 1_920]


def test_anthropic_caches_what_is_marked(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """A marked prefix is written once, at the price of its time to live, and read from then on."""
    system: Any = [
        {"type": "text", "text": "x" * 8_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "y" * 8_000, "cache_control": {"type": "ephemeral"}},
    ]
    ask: Any = {"model": CLAUDE, "max_tokens": 10, "messages": USER, "system": system}
    first = anthropic_client.messages.create(**ask).usage
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_1h_input_tokens == 2_004
    assert first.cache_creation.ephemeral_5m_input_tokens == 2_004
    assert (first.input_tokens, first.cache_read_input_tokens) == (6, 0)
    # $6 per million written for an hour, $3.75 for five minutes, $3 for input and $15 for output.
    assert provider.billed == 2_004 * 6_000 + 2_004 * 3_750 + 6 * 3_000 + 15_000
    second = anthropic_client.messages.create(**ask).usage
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 4_008)


def test_nothing_below_the_minimum_is_cached(provider: LoopbackProvider, anthropic_client: Anthropic) -> None:
    """A mark after fewer than 1,024 tokens is ignored."""
    system: Any = [{"type": "text", "text": "x" * 400, "cache_control": {"type": "ephemeral"}}]
    for _ in range(2):
        anthropic_client.messages.create(model=CLAUDE, max_tokens=10, messages=USER, system=system)  # type: ignore[arg-type]
    assert [request.bill.cache_write_tokens for request in provider.requests if request.bill] == [0, 0]
    assert last_bill(provider).cache_read_tokens == 0


def test_everything_that_a_model_reads_is_counted() -> None:
    """Tools, output schemas, calls and results are read; the protocol's own names are not."""
    body: dict[str, Any] = {"model": "invented", "messages": USER}
    plain = chat_request(body).segments
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"order":1}'}}
    longer = chat_request(
        {
            **body,
            "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}}},
            "messages": [
                *USER,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "lost"},
            ],
        }
    ).segments
    assert [segment.text for segment in plain] == ["Hello?"]
    assert [segment.text for segment in longer] == [
        '{"name":"answer","schema":{}}',
        '{"type":"function","function":{"name":"look_up","parameters":{}}}',
        "Hello?",
        'look_up\n{"order":1}',
        "lost",
    ]


@given(
    text=st.text(max_size=60),
    thinking=st.text(max_size=60),
    arguments=st.text(max_size=60),
    hidden=st.integers(0, 40),
    limit=st.integers(1, 80),
    given_tokens=st.none() | st.integers(0, 100),
    bytes_per_token=st.integers(1, 5),
)
def test_no_answer_exceeds_its_limit(
    text: str,
    thinking: str,
    arguments: str,
    hidden: int,
    limit: int,
    given_tokens: int | None,
    bytes_per_token: int,
) -> None:
    """What is billed is within the limit, covers what is shown, and finishes with `length` exactly if it was cut."""
    calls = [ReplyToolCall("f", arguments)]
    reply = Reply(
        text=text,
        thinking=thinking,
        tool_calls=calls,
        hidden_reasoning_tokens=hidden,
        output_tokens=given_tokens,
    )
    request = ProviderRequest(model="m", max_output_tokens=limit)
    whole = answer_to(ProviderRequest(model="m", max_output_tokens=None), reply, bytes_per_token)
    answer = answer_to(request, reply, bytes_per_token)
    assert answer.output_tokens == min(limit, whole.output_tokens)
    assert (answer.finish == "length") == (whole.output_tokens > limit)
    if given_tokens is None:
        shown = [answer.text, answer.thinking]
        shown += [part for call in answer.tool_calls for part in (call.name, arguments_text(call))]
        assert sum(count_text(part, bytes_per_token) for part in shown) <= answer.visible_tokens


@given(texts=st.lists(st.sampled_from(["a", "b", "c" * 6_000, "d" * 9_000]), max_size=6), marks=st.integers(0, 63))
def test_a_cache_never_reads_or_writes_more_than_the_prompt(texts: list[str], marks: int) -> None:
    """Asked twice, the second prompt writes nothing and reads exactly what the first one wrote."""
    segments = tuple(
        PromptSegment(text, cached_for="1h" if index % 2 else "5m") if marks >> index & 1 else PromptSegment(text)
        for index, text in enumerate(texts)
    )
    cache = PromptCache(4)
    first, second = cache.marked("m", segments), cache.marked("m", segments)
    assert (first.read, second.written) == (0, 0)
    assert second.read == first.written
    assert 0 <= first.written_1h <= first.written
