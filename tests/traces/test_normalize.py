"""Spans of every dialect are mapped to the same fields, and nothing is lost."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import nano_usd
from handrail.traces import semconv
from handrail.traces.model import RawSpan, Span, SpanEvent, Usage
from handrail.traces.normalize import normalize_span
from handrail.traces.payloads import MAX_ATTRIBUTE_CHARS, MAX_ATTRIBUTES, MAX_DEPTH, MAX_TEXT_CHARS

START = 1_700_000_000_000_000_000


def read(attributes: Mapping[str, Any] | None = None, **overrides: Any) -> Span:
    fields: dict[str, Any] = {
        "parent_id": None,
        "name": "work",
        "start_ns": START,
        "end_ns": START + 10**9,
        **overrides,
    }
    return normalize_span(RawSpan(trace_id="1" * 32, span_id="2" * 16, attributes=attributes or {}, **fields))


def model(**attributes: Any) -> Span:
    return read(
        {"gen_ai.operation.name": "chat", **{name.replace("__", "."): value for name, value in attributes.items()}}
    )


def event(name: str, attributes: Mapping[str, Any] | None = None, after_ns: int = 0) -> SpanEvent:
    return SpanEvent(name=name, time_ns=START + after_ns, attributes=attributes or {})


# For each field of the table: a value to send, and how to read it from the span.
SAMPLES: Mapping[str, tuple[Any, Any]] = {
    "agent": ("planner", lambda span: span.agent),
    "provider": ("openai", lambda span: span.provider),
    "request model": ("small", lambda span: span.model),
    "response model": ("small-1", lambda span: span.model),
    "input": (70, lambda span: span.usage.input),
    "output": (7, lambda span: span.usage.output),
    "cache read": (5, lambda span: span.usage.cache_read),
    "cache write": (3, lambda span: span.usage.cache_write),
    "reasoning": (2, lambda span: span.attributes[semconv.REASONING]),
    "conversation": ("c-1", lambda span: span.conversation_id),
    "user": ("u-1", lambda span: span.user),
    "tenant": ("acme", lambda span: span.tenant),
    "run": ("run_1", lambda span: span.run_id),
    "tool": ("find_order", lambda span: span.attributes[semconv.TOOL]),
    "tool call": ("call_1", lambda span: span.attributes[semconv.TOOL_CALL_ID]),
    "prompt": ("greeting", lambda span: span.attributes[semconv.PROMPT]),
    "prompt version": ("4", lambda span: span.attributes[semconv.PROMPT_VERSION]),
    "cost": (12, lambda span: span.cost),
    "held": (20, lambda span: span.held),
    "error": ("timeout", lambda span: span.error_type),
    "fingerprint": ("abc", lambda span: span.fingerprint),
    "attempt": (2, lambda span: span.attempt),
    "retry of": ("feed", lambda span: span.retry_of),
}


@pytest.mark.parametrize(
    ("field", "name"), [(field, name) for field in SAMPLES for name in semconv.FIELD_ATTRIBUTES[field]]
)
def test_every_name_is_read(field: str, name: str) -> None:
    """A value under any of a field's attributes is in that field, and only there."""
    value, read_field = SAMPLES[field]
    base, _, key = name.rpartition(".")
    attributes = {base: json.dumps({key: value})} if base in semconv.JSON_ATTRIBUTES else {name: value}
    span = read({"gen_ai.operation.name": "chat", **attributes})
    assert read_field(span) == value
    assert set(span.attributes) <= {*semconv.CANONICAL_NAMES.values(), *semconv.JSON_ATTRIBUTES}


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [(name, value, kind) for name, kinds in semconv.KIND_VALUES.items() for value, kind in kinds.items()],
)
def test_every_kind_is_read(name: str, value: str, kind: str) -> None:
    """Each dialect's values for a span's kind are mapped; a value that says more than the kind is kept."""
    span = read({name: value})
    assert span.kind == kind
    assert span.attributes.get(name, semconv.DEFAULT_KIND_VALUES.get(name, {}).get(span.kind)) == value


def test_inferred_kinds() -> None:
    """Without a kind, a span that names a model is a model request, and one that names a tool a tool call."""
    assert read({"gen_ai.system": "openai", "gen_ai.request.model": "small"}).kind == "model"
    assert read({"tool.name": "find_order"}).kind == "tool"
    assert read({"gen_ai.operation.name": "dream"}).kind == "step"
    assert read({"gen_ai.operation.name": "dream", "openinference.span.kind": "AGENT"}).kind == "agent"


def test_the_first_name_takes_precedence() -> None:
    """If two dialects are used at once, the first of the table is read, and a different value is kept."""
    span = model(gen_ai__provider__name="openai", gen_ai__system="az.openai", llm__provider="openai")
    assert span.provider == "openai"
    assert span.attributes == {"gen_ai.system": "az.openai"}


def test_the_requested_model() -> None:
    """The model is the one that responded; if another one was requested, that is kept."""
    span = model(gen_ai__request__model="small", gen_ai__response__model="small-2026-01")
    assert span.model == "small-2026-01"
    assert span.attributes == {"gen_ai.request.model": "small"}


@pytest.mark.parametrize(
    ("attributes", "usage"),
    [
        # The conventions: input includes what was cached.
        (
            {semconv.INPUT_TOKENS: 100, semconv.CACHE_READ: 60, semconv.CACHE_WRITE: 10, semconv.OUTPUT_TOKENS: 5},
            Usage(input=100, output=5, cache_read=60, cache_write=10),
        ),
        # The new and the old name of the same tokens.
        (
            {semconv.INPUT_TOKENS: 100, semconv.CACHE_WRITE: 10, semconv.CACHE_CREATION: 10},
            Usage(input=100, cache_write=10),
        ),
        # Anthropic's own numbers under Anthropic's own names.
        (
            {
                semconv.INPUT_TOKENS: 100,
                "gen_ai.usage.cache_read_input_tokens": 60,
                "gen_ai.usage.cache_creation_input_tokens": 10,
            },
            Usage(input=170, cache_read=60, cache_write=10),
        ),
        # The same under the conventions' names: more is cached than there is input.
        ({semconv.INPUT_TOKENS: 4, semconv.CACHE_READ: 60}, Usage(input=64, cache_read=60)),
        # OpenLLMetry adds up Anthropic's numbers, as its total shows.
        (
            {
                "gen_ai.usage.prompt_tokens": 170,
                "gen_ai.usage.completion_tokens": 5,
                "llm.usage.total_tokens": 175,
                "gen_ai.usage.cache_read_input_tokens": 60,
                "gen_ai.usage.cache_creation_input_tokens": 10,
            },
            Usage(input=170, output=5, cache_read=60, cache_write=10),
        ),
        # Strands sends Bedrock's numbers; its total shows that cached tokens are not included in the input.
        (
            {
                "gen_ai.usage.input_tokens": 4299,
                "gen_ai.usage.output_tokens": 631,
                "gen_ai.usage.cache_read_input_tokens": 35574,
                "gen_ai.usage.cache_write_input_tokens": 17787,
                "gen_ai.usage.total_tokens": 58291,
            },
            Usage(input=57660, output=631, cache_read=35574, cache_write=17787),
        ),
        (
            {
                "llm.token_count.prompt": 100,
                "llm.token_count.prompt_details.cache_read": 60,
                "llm.token_count.prompt_details.cache_write": 10,
                "llm.token_count.completion": 5,
                "llm.token_count.completion_details.reasoning": 3,
                "llm.token_count.total": 105,
            },
            Usage(input=100, output=5, cache_read=60, cache_write=10),
        ),
        # Langfuse's details are parts of a sum.
        (
            {semconv.USAGE_DETAILS: '{"input": 40, "output": 5, "input_cached_tokens": 60}'},
            Usage(input=100, output=5, cache_read=60),
        ),
        (
            {
                semconv.USAGE_DETAILS: json.dumps(
                    {"input": 40, "output": 5, "input_cached_tokens": 60, "output_reasoning_tokens": 30, "total": 135}
                )
            },
            Usage(input=100, output=35, cache_read=60),
        ),
    ],
)
def test_input_includes_cached_tokens(attributes: Mapping[str, Any], usage: Usage) -> None:
    """With every way of counting, input includes cached tokens and output includes reasoning."""
    assert model(**attributes).usage == usage


_count = st.integers(0, 10**6)


@given(_count, _count, _count, _count, st.booleans())
def test_a_total_shows_how_input_is_counted(plain: int, read_: int, written: int, output: int, separate: bool) -> None:
    """Under any names, a total shows whether cached tokens are included in the input."""
    cached = read_ + written
    attributes = {
        "gen_ai.usage.input_tokens": plain if separate else plain + cached,
        "gen_ai.usage.output_tokens": output,
        "gen_ai.usage.cache_read_input_tokens": read_,
        "gen_ai.usage.cache_creation_input_tokens": written,
        "gen_ai.usage.total_tokens": plain + cached + output,
    }
    span = model(**attributes)
    assert span.usage == Usage(input=plain + cached, output=output, cache_read=read_, cache_write=written)


def test_a_changed_count_is_kept() -> None:
    """If normalising changes a count, the original one is kept in the attributes."""
    span = model(**{semconv.INPUT_TOKENS: 4, semconv.CACHE_READ: 60})
    assert span.attributes == {semconv.INPUT_TOKENS: 4}
    assert model(**{semconv.INPUT_TOKENS: 64, semconv.CACHE_READ: 60}).attributes == {}


def test_a_sum_over_a_run_is_not_counted_again() -> None:
    """Tokens and cost on an agent's span are the sum of its requests', so they are kept but not counted."""
    attributes = {semconv.INPUT_TOKENS: 100, "gen_ai.usage.cost": 0.5}
    span = read({"gen_ai.operation.name": "invoke_agent", **attributes})
    assert (span.usage, span.reported_cost, span.attributes) == (Usage(), None, attributes)


@pytest.mark.parametrize(
    ("attributes", "nano"),
    [
        ({"llm.cost.total": 0.00123}, 1_230_000),
        ({"llm.cost.prompt": 0.001, "llm.cost.completion": 0.002}, 3_000_000),
        ({"gen_ai.usage.cost": "0.25"}, 250_000_000),
        ({"langfuse.observation.cost_details": '{"total": 0.5, "input": 0.1}'}, 500_000_000),
        ({"langfuse.observation.cost_details": '{"input": 0.1, "output": 0.2}'}, 300_000_000),
        ({"operation.cost": 1}, 1_000_000_000),
        ({"gen_ai.usage.cost": -1}, None),
        ({"gen_ai.usage.cost": "NaN"}, None),
        ({"gen_ai.usage.cost": True}, None),
        ({"gen_ai.usage.cost": 1e30}, None),
        ({}, None),
    ],
)
def test_reported_costs(attributes: Mapping[str, Any], nano: int | None) -> None:
    """The cost that a sender reports is read under every name; anything that is not a valid amount is ignored."""
    assert model(**attributes).reported_cost == nano


def test_number_formats() -> None:
    """Integers are read from numbers, strings and floats; anything else counts as absent and is kept."""
    assert model(**{semconv.INPUT_TOKENS: "17", semconv.OUTPUT_TOKENS: 4.0}).usage == Usage(input=17, output=4)
    for odd in (True, -1, 1.5, "many", [1], 10**18, float("inf")):
        span = model(**{semconv.INPUT_TOKENS: odd})
        assert (span.usage, span.attributes) == (Usage(), {semconv.INPUT_TOKENS: odd})


def test_time_to_first_token() -> None:
    """Time to first token is read as seconds, as a timestamp, or from the first event of streamed output."""
    assert model(**{semconv.FIRST_CHUNK: 0.25}).first_token_ns == 250_000_000
    timestamp = '"2023-11-14T22:13:20.500000Z"'
    assert model(**{"langfuse.observation.completion_start_time": timestamp}).first_token_ns == 500_000_000
    chunks = [event("gen_ai.content.completion.chunk", None, 9), event("First Token Stream Event", None, 7)]
    assert read(events=chunks).first_token_ns == 7
    assert read(events=[event("First Token Stream Event", None, -1)]).first_token_ns is None
    assert read().first_token_ns is None


def test_errors() -> None:
    """A failed span has the error it names, else its exception's type, else `error`; a warning is not an error."""
    thrown = [event("exception", {"exception.type": "KeyError", "exception.message": "'x'"})]
    assert read({"error.type": "timeout"}, failed=True).error_type == "timeout"
    assert read(failed=True, events=thrown).error_type == "KeyError"
    assert read(failed=True).error_type == "error"
    assert read({"langfuse.observation.level": "ERROR"}).error_type == "error"
    assert read({"langfuse.observation.level": "WARNING"}, events=thrown).error_type is None


def test_exception_messages_are_content() -> None:
    """Exception and status messages may contain anything, so they are in the payload."""
    thrown = [event("exception", {"exception.type": "KeyError", "exception.message": "'x'"})]
    span = read(failed=True, status_message="no key 'x'", events=thrown)
    assert span.payload == {"exception": {"type": "KeyError", "message": "'x'"}, "error": "no key 'x'"}


def test_finish_reasons() -> None:
    """The finish reasons are a list under the conventions' name."""
    assert model(**{"llm.finish_reason": "stop"}).attributes == {semconv.FINISH: ["stop"]}
    assert model(**{semconv.FINISH: ("stop", "length")}).attributes == {semconv.FINISH: ["stop", "length"]}


def test_a_tenant_in_metadata() -> None:
    """OpenInference's metadata may name the tenant, under the name `tenant.id`."""
    assert read({"metadata": '{"tenant.id": "acme"}'}).tenant == "acme"
    assert read({"metadata": '["tenant.id"]'}).tenant == ""


def test_evaluations() -> None:
    """Evaluations are read from events or OpenInference's list; scores are attributes, explanations content."""
    evaluation = event(
        "gen_ai.evaluation.result",
        {
            "gen_ai.evaluation.name": "polite",
            "gen_ai.evaluation.score.value": 0.5,
            "gen_ai.evaluation.score.label": "so so",
            "gen_ai.evaluation.explanation": "it swore",
        },
    )
    listed = {"evaluations.0.evaluation.name": "short", "evaluations.0.evaluation.score": 1}
    span = read(listed, events=[evaluation])
    assert span.attributes == {
        semconv.EVALUATIONS: [{"name": "polite", "score": 0.5, "label": "so so"}, {"name": "short", "score": 1}]
    }
    assert "it swore" in str(span.payload)


def test_links() -> None:
    """Links to other spans are kept."""
    link = {"trace_id": "a" * 32, "span_id": "b" * 16}
    assert read(links=[link]).attributes == {semconv.LINKS: [link]}


def test_messages_of_the_conventions() -> None:
    """Messages, instructions and tools are parsed into the payload."""
    span = model(
        gen_ai__input__messages='[{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]',
        gen_ai__output__messages='[{"role": "assistant", "parts": []}]',
        gen_ai__system_instructions='[{"type": "text", "content": "be brief"}]',
        gen_ai__tool__definitions='[{"name": "find"}]',
    )
    assert span.attributes == {}
    assert span.payload == {
        "messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}],
        "response": [{"role": "assistant", "parts": []}],
        "instructions": [{"type": "text", "content": "be brief"}],
        "tools": [{"name": "find"}],
    }


@pytest.mark.parametrize("name", sorted(semconv.DETAIL_EVENTS))
def test_content_in_an_event(name: str) -> None:
    """Content in the conventions' separate events is read like content of the span."""
    span = read(
        {"gen_ai.operation.name": "chat"},
        events=[event(name, {"gen_ai.prompt": "hi", "gen_ai.request.model": "small"})],
    )
    assert (span.model, span.payload) == ("small", {"messages": "hi"})


def test_messages_as_events() -> None:
    """Events of single messages (before 2025-08) become messages, in order."""
    span = read(
        {"gen_ai.operation.name": "chat"},
        events=[
            event("gen_ai.system.message", {"content": "be brief"}),
            event("gen_ai.user.message", {"content": "hi"}),
            event("gen_ai.choice", {"index": 0, "message": '{"content": "hello"}'}),
            event("cache miss", {"key": 1}),
        ],
    )
    assert span.payload == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "response": [{"role": "choice", "index": 0, "message": {"content": "hello"}}],
        "events": [{"name": "cache miss", "time_ns": START, "attributes": {"key": 1}}],
    }


def test_messages_spread_over_attributes() -> None:
    """`name.<i>.key` attributes of OpenInference and OpenLLMetry become lists, in the order of their numbers."""
    spread = {f"llm.input_messages.{n}.message.role": f"r{n}" for n in range(11)}
    tool_call = "llm.output_messages.0.message.tool_calls.0.tool_call.function"
    span = read(
        {"openinference.span.kind": "LLM", f"{tool_call}.name": "find", f"{tool_call}.arguments": "{}", **spread}
    )
    assert span.payload == {
        "messages": [{"role": f"r{n}"} for n in range(11)],
        "response": [{"tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}],
    }
    older = read({"llm.request.type": "chat", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hi"})
    assert older.payload == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("LLM", ("messages", "response")), ("TOOL", ("arguments", "result")), ("CHAIN", ("input", "output"))],
)
def test_inputs_and_outputs(kind: str, keys: tuple[str, str]) -> None:
    """A span's input and output are named after its kind."""
    span = read({"openinference.span.kind": kind, "input.value": '{"order": 7}', "output.value": "found"})
    assert span.payload == {keys[0]: {"order": 7}, keys[1]: "found"}


def test_duplicate_content_is_kept() -> None:
    """Content that is sent in two dialects is kept under its original name the second time."""
    span = model(**{"gen_ai.input.messages": "hi", "input.value": '{"messages": "hi"}'})
    assert span.payload == {"messages": "hi", "other": {"input.value": {"messages": "hi"}}}


def test_long_attributes_are_content() -> None:
    """An attribute of more than 4,096 characters, or beyond the 200th, is content whatever its name."""
    span = read({"note": "x" * (MAX_ATTRIBUTE_CHARS + 1), **{f"n{n}": n for n in range(MAX_ATTRIBUTES + 1)}})
    assert len(span.attributes) == MAX_ATTRIBUTES - 1
    assert span.payload == {
        "other": {
            "note": "x" * (MAX_ATTRIBUTE_CHARS + 1),
            f"n{MAX_ATTRIBUTES - 1}": MAX_ATTRIBUTES - 1,
            f"n{MAX_ATTRIBUTES}": MAX_ATTRIBUTES,
        }
    }


def test_long_texts() -> None:
    """A text is cut at 200,000 characters, and an identifier at 200, with a mark."""
    span = model(**{"gen_ai.input.messages": "x" * (MAX_TEXT_CHARS + 1), "user.id": "u" * 201})
    assert span.payload == {"messages": f"{'x' * MAX_TEXT_CHARS} [cut: it had 200,001 characters]"}
    assert span.user == "u" * 199 + "…"


def test_deep_nesting() -> None:
    """Too deeply nested values are cut, and JSON that is too deep for the parser is kept as text."""
    deep = "[" * 200 + "]" * 200
    span = model(**{"gen_ai.input.messages": deep})
    assert str(span.payload).count("[") == MAX_DEPTH + 1
    very_deep = "[" * 100_000
    assert model(**{"gen_ai.input.messages": very_deep}).payload == {"messages": very_deep}


def test_characters_that_cannot_be_stored() -> None:
    """In names and identifiers, null characters and lone surrogates are replaced."""
    span = read({"user.id": "a\0b\ud800", "openinference.span.kind": "LLM", "llm.model_name": "\0"}, name="x\0")
    assert (span.user, span.model, span.name) == ("a\ufffdb\ufffd", "\ufffd", "x\ufffd")


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def forms(leaf: Any) -> set[Any]:
    """The forms of a value in a field: text, number, dollars in nano-dollars, seconds in nanoseconds."""
    values: set[Any] = {str(leaf)}
    with suppress(TypeError, ValueError):
        number = float(leaf)
        values.add(number)
        if not isinstance(leaf, bool) and abs(number) < 10**7:
            values |= {float(nano_usd(Decimal(str(number)))), float(round(number * 1e9))}
    return values


_known = st.sampled_from(
    sorted(
        {name for spellings in semconv.FIELD_ATTRIBUTES.values() for name in spellings}
        | set(semconv.KIND_VALUES)
        | semconv.CONTENT_ATTRIBUTES
    )
)
_spread = st.builds(
    lambda base, index, key: f"{base}.{index}.{key}",
    st.sampled_from(semconv.FLATTENED_LISTS),
    st.integers(0, 12),
    st.sampled_from(("message.role", "message.content", "role", "document.content", "tool")),
)
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30).filter(
    lambda text: text[:1] not in ("[", "{")
)
_scalar = _text | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
_value = _scalar | st.lists(_scalar, max_size=3)
_words = st.sampled_from(sorted({word for kinds in semconv.KIND_VALUES.values() for word in kinds}))
attributes_in_any_dialect = st.dictionaries(_known | _spread | _text, _value | _words, max_size=12)


@given(attributes_in_any_dialect, st.booleans())
def test_nothing_is_lost(attributes: dict[str, Any], failed: bool) -> None:
    """Every value of every attribute, in any mixture of dialects, is in a field, an attribute or the payload."""
    span = read(attributes, failed=failed)
    kept = {form for leaf in leaves(asdict(span)) for form in (leaf, str(leaf))}
    for name, value in attributes.items():
        if semconv.DEFAULT_KIND_VALUES.get(name, {}).get(span.kind) != value:
            assert [leaf for leaf in leaves(value) if forms(leaf).isdisjoint(kept)] == [], name
