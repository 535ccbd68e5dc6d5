"""What programs call things, read into what we call them, with nothing lost on the way."""

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
from handrail.traces.model import Span, Usage
from handrail.traces.normalize import Finished, read_finished
from handrail.traces.payloads import DEEPEST, LONG, LONGEST, MANY, Event

START = 1_700_000_000_000_000_000


def read(attributes: Mapping[str, Any] | None = None, **changed: Any) -> Span:
    fields: dict[str, Any] = {"parent_id": None, "name": "work", "start_ns": START, "end_ns": START + 10**9, **changed}
    return read_finished(Finished(trace_id="1" * 32, span_id="2" * 16, attributes=attributes or {}, **fields))


def model(**attributes: Any) -> Span:
    return read(
        {"gen_ai.operation.name": "chat", **{name.replace("__", "."): value for name, value in attributes.items()}}
    )


def event(name: str, attributes: Mapping[str, Any] | None = None, after_ns: int = 0) -> Event:
    return Event(name=name, time_ns=START + after_ns, attributes=attributes or {})


# What a value under a name of the table becomes: the value, and how to find it in the span.
READ: Mapping[str, tuple[Any, Any]] = {
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


@pytest.mark.parametrize(("what", "name"), [(what, name) for what in READ for name in semconv.NAMES[what]])
def test_every_name_is_read(what: str, name: str) -> None:
    """A model request that says something under any of its names says it in our field, and there only."""
    value, found = READ[what]
    base, _, key = name.rpartition(".")
    attributes = {base: json.dumps({key: value})} if base in semconv.DETAILS else {name: value}
    span = read({"gen_ai.operation.name": "chat", **attributes})
    assert found(span) == value
    assert set(span.attributes) <= {*semconv.RENAMED.values(), *semconv.DETAILS}


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [(name, value, kind) for name, kinds in semconv.KINDS.items() for value, kind in kinds.items()],
)
def test_every_kind_is_read(name: str, value: str, kind: str) -> None:
    """Each convention's own word for what a span timed is one of our kinds; what says more than the kind is kept."""
    span = read({name: value})
    assert span.kind == kind
    assert span.attributes.get(name, semconv.PLAINEST.get(name, {}).get(span.kind)) == value


def test_kinds_without_a_word() -> None:
    """Without a word for its kind, a span that names a model is a request to it, one that names a tool a call of it."""
    assert read({"gen_ai.system": "openai", "gen_ai.request.model": "small"}).kind == "model"
    assert read({"tool.name": "find_order"}).kind == "tool"
    assert read({"gen_ai.operation.name": "dream"}).kind == "step"
    assert read({"gen_ai.operation.name": "dream", "openinference.span.kind": "AGENT"}).kind == "agent"


def test_the_most_trusted_name_wins() -> None:
    """Where two conventions are used at once, the first of the table is read, and what differs is kept as it came."""
    span = model(gen_ai__provider__name="openai", gen_ai__system="az.openai", llm__provider="openai")
    assert span.provider == "openai"
    assert span.attributes == {"gen_ai.system": "az.openai"}


def test_the_model_that_was_asked() -> None:
    """The model is the one that answered; the one that was asked is kept where it is another."""
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
        # OpenLLMetry adds Anthropic's numbers up, and its total says so.
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
        # Strands passes Bedrock's numbers on, and its total says that the cached ones are beside the input.
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
def test_input_includes_what_was_cached(attributes: Mapping[str, Any], usage: Usage) -> None:
    """Whichever way a source counts, input includes cached tokens and output includes reasoning."""
    assert model(**attributes).usage == usage


_count = st.integers(0, 10**6)


@given(_count, _count, _count, _count, st.booleans())
def test_a_total_tells_how_input_is_counted(plain: int, read_: int, written: int, output: int, apart: bool) -> None:
    """Under any names, a total that adds up shows whether cached tokens are in the input or beside it."""
    cached = read_ + written
    attributes = {
        "gen_ai.usage.input_tokens": plain if apart else plain + cached,
        "gen_ai.usage.output_tokens": output,
        "gen_ai.usage.cache_read_input_tokens": read_,
        "gen_ai.usage.cache_creation_input_tokens": written,
        "gen_ai.usage.total_tokens": plain + cached + output,
    }
    span = model(**attributes)
    assert span.usage == Usage(input=plain + cached, output=output, cache_read=read_, cache_write=written)


def test_a_count_that_was_changed_is_kept_as_it_came() -> None:
    """The raw input stays among the attributes where the rule made another number of it."""
    changed = model(**{semconv.INPUT_TOKENS: 4, semconv.CACHE_READ: 60})
    assert changed.attributes == {semconv.INPUT_TOKENS: 4}
    assert model(**{semconv.INPUT_TOKENS: 64, semconv.CACHE_READ: 60}).attributes == {}


def test_a_sum_over_a_run_is_not_counted_again() -> None:
    """Tokens and cost on an agent's span are the sum of its requests': they are kept, and count for nothing."""
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
    """What a sender says a request cost is read in dollars under every name; what is no amount of money is not."""
    assert model(**attributes).reported_cost == nano


def test_numbers_as_programs_send_them() -> None:
    """Whole numbers come as numbers, texts and floats alike; what is none counts as nothing and is kept."""
    assert model(**{semconv.INPUT_TOKENS: "17", semconv.OUTPUT_TOKENS: 4.0}).usage == Usage(input=17, output=4)
    for odd in (True, -1, 1.5, "many", [1], 10**18, float("inf")):
        span = model(**{semconv.INPUT_TOKENS: odd})
        assert (span.usage, span.attributes) == (Usage(), {semconv.INPUT_TOKENS: odd})


def test_time_to_first_token() -> None:
    """It comes as seconds, as a moment, or as the first event of an answer."""
    assert model(**{semconv.FIRST_CHUNK: 0.25}).first_token_ns == 250_000_000
    moment = '"2023-11-14T22:13:20.500000Z"'
    assert model(**{"langfuse.observation.completion_start_time": moment}).first_token_ns == 500_000_000
    chunks = [event("gen_ai.content.completion.chunk", None, 9), event("First Token Stream Event", None, 7)]
    assert read(events=chunks).first_token_ns == 7
    assert read(events=[event("First Token Stream Event", None, -1)]).first_token_ns is None
    assert read().first_token_ns is None


def test_errors() -> None:
    """A failed span has the error it names, else its exception's type, else just `error`; a warning is none."""
    thrown = [event("exception", {"exception.type": "KeyError", "exception.message": "'x'"})]
    assert read({"error.type": "timeout"}, failed=True).error_type == "timeout"
    assert read(failed=True, events=thrown).error_type == "KeyError"
    assert read(failed=True).error_type == "error"
    assert read({"langfuse.observation.level": "ERROR"}).error_type == "error"
    assert read({"langfuse.observation.level": "WARNING"}, events=thrown).error_type is None


def test_what_an_exception_says_is_content() -> None:
    """An exception's message and a status's text may hold anything, so they lie in the payload."""
    thrown = [event("exception", {"exception.type": "KeyError", "exception.message": "'x'"})]
    span = read(failed=True, said="no key 'x'", events=thrown)
    assert span.payload == {"exception": {"type": "KeyError", "message": "'x'"}, "error": "no key 'x'"}


def test_finish_reasons() -> None:
    """Why a model stopped is a list under the conventions' name."""
    assert model(**{"llm.finish_reason": "stop"}).attributes == {semconv.FINISH: ["stop"]}
    assert model(**{semconv.FINISH: ("stop", "length")}).attributes == {semconv.FINISH: ["stop", "length"]}


def test_a_tenant_in_metadata() -> None:
    """OpenInference's metadata may name the tenant, under our name for it."""
    assert read({"metadata": '{"tenant.id": "acme"}'}).tenant == "acme"
    assert read({"metadata": '["tenant.id"]'}).tenant == ""


def test_evaluations() -> None:
    """Verdicts come as events or as OpenInference's list; the scores are attributes, the reasons content."""
    told = event(
        "gen_ai.evaluation.result",
        {
            "gen_ai.evaluation.name": "polite",
            "gen_ai.evaluation.score.value": 0.5,
            "gen_ai.evaluation.score.label": "so so",
            "gen_ai.evaluation.explanation": "it swore",
        },
    )
    listed = {"evaluations.0.evaluation.name": "short", "evaluations.0.evaluation.score": 1}
    span = read(listed, events=[told])
    assert span.attributes == {
        semconv.EVALUATIONS: [{"name": "polite", "score": 0.5, "label": "so so"}, {"name": "short", "score": 1}]
    }
    assert "it swore" in str(span.payload)


def test_links() -> None:
    """Spans that a span points at are kept."""
    link = {"trace_id": "a" * 32, "span_id": "b" * 16}
    assert read(links=[link]).attributes == {semconv.LINKS: [link]}


def test_messages_of_the_conventions() -> None:
    """Messages, instructions and tools lie in the payload as what their JSON says."""
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
    """Content that the conventions put into an event of its own is read as if it were the span's."""
    span = read(
        {"gen_ai.operation.name": "chat"},
        events=[event(name, {"gen_ai.prompt": "hi", "gen_ai.request.model": "small"})],
    )
    assert (span.model, span.payload) == ("small", {"messages": "hi"})


def test_messages_as_events() -> None:
    """Before 2025-08 each message was an event; they are the messages, in their order."""
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
    """OpenInference's and OpenLLMetry's `name.<i>.key` attributes are lists again, in the order of their numbers."""
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
    ("kind", "places"),
    [("LLM", ("messages", "response")), ("TOOL", ("arguments", "result")), ("CHAIN", ("input", "output"))],
)
def test_what_went_in_and_came_out(kind: str, places: tuple[str, str]) -> None:
    """A span's input and output are called after what it timed."""
    span = read({"openinference.span.kind": kind, "input.value": '{"order": 7}', "output.value": "found"})
    assert span.payload == {places[0]: {"order": 7}, places[1]: "found"}


def test_content_without_a_place_is_kept() -> None:
    """What was said twice over, in two conventions, is kept under its own name."""
    span = model(**{"gen_ai.input.messages": "hi", "input.value": '{"messages": "hi"}'})
    assert span.payload == {"messages": "hi", "other": {"input.value": {"messages": "hi"}}}


def test_long_attributes_are_content() -> None:
    """An attribute of more than 4,096 characters, or beyond the 200th, is content whatever its name."""
    span = read({"note": "x" * (LONG + 1), **{f"n{n}": n for n in range(MANY + 1)}})
    assert len(span.attributes) == MANY - 1
    assert span.payload == {"other": {"note": "x" * (LONG + 1), f"n{MANY - 1}": MANY - 1, f"n{MANY}": MANY}}


def test_texts_that_never_end() -> None:
    """A text is cut at 200,000 characters, and an identifier at 200, with a mark."""
    span = model(**{"gen_ai.input.messages": "x" * (LONGEST + 1), "user.id": "u" * 201})
    assert span.payload == {"messages": f"{'x' * LONGEST} [cut: it had 200,001 characters]"}
    assert span.user == "u" * 199 + "…"


def test_depth_without_end() -> None:
    """What is nested deeper than anybody reads is shown as such, also in JSON that breaks a parser."""
    deep = "[" * 200 + "]" * 200
    span = model(**{"gen_ai.input.messages": deep})
    assert str(span.payload).count("[") == DEEPEST + 1
    bottomless = "[" * 100_000
    assert model(**{"gen_ai.input.messages": bottomless}).payload == {"messages": bottomless}


def test_characters_that_a_store_does_not_take() -> None:
    """Null characters and halves of pairs in names and identifiers become the replacement character."""
    span = read({"user.id": "a\0b\ud800", "openinference.span.kind": "LLM", "llm.model_name": "\0"}, name="x\0")
    assert (span.user, span.model, span.name) == ("a\ufffdb\ufffd", "\ufffd", "x\ufffd")


def leaves(found: Any) -> Iterator[Any]:
    if isinstance(found, Mapping):
        for value in found.values():
            yield from leaves(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from leaves(value)
    else:
        yield found


def forms(leaf: Any) -> set[Any]:
    """A value as it may stand in a field: as a text or a number, dollars in nano-dollars, seconds in nanoseconds."""
    found: set[Any] = {str(leaf)}
    with suppress(TypeError, ValueError):
        number = float(leaf)
        found.add(number)
        if not isinstance(leaf, bool) and abs(number) < 10**7:
            found |= {float(nano_usd(Decimal(str(number)))), float(round(number * 1e9))}
    return found


_known = st.sampled_from(
    sorted({name for spellings in semconv.NAMES.values() for name in spellings} | set(semconv.KINDS) | semconv.CONTENT)
)
_spread = st.builds(
    lambda base, index, key: f"{base}.{index}.{key}",
    st.sampled_from(semconv.LISTS),
    st.integers(0, 12),
    st.sampled_from(("message.role", "message.content", "role", "document.content", "tool")),
)
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30).filter(
    lambda text: text[:1] not in ("[", "{")
)
_scalar = _text | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
_value = _scalar | st.lists(_scalar, max_size=3)
_words = st.sampled_from(sorted({word for kinds in semconv.KINDS.values() for word in kinds}))
attributes_in_any_dialect = st.dictionaries(_known | _spread | _text, _value | _words, max_size=12)


@given(attributes_in_any_dialect, st.booleans())
def test_nothing_is_lost(attributes: dict[str, Any], failed: bool) -> None:
    """Every value of every attribute, in any mixture of dialects, is in a field, an attribute or the payload."""
    span = read(attributes, failed=failed)
    kept = {form for leaf in leaves(asdict(span)) for form in (leaf, str(leaf))}
    for name, value in attributes.items():
        if semconv.PLAINEST.get(name, {}).get(span.kind) != value:
            assert [leaf for leaf in leaves(value) if forms(leaf).isdisjoint(kept)] == [], name
