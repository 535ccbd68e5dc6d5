"""Spans are exported under the conventions' names, and can be read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from handrail.kernel.money import NanoUsd
from handrail.traces import semconv
from handrail.traces.export.otlp_encoder import encode_request, span_attributes, span_content
from handrail.traces.model import Kind, Span, Usage
from handrail.traces.otlp.ingest import decode_request

PROTOBUF = "application/x-protobuf"
_name = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=12)
_ids = st.binary(min_size=8, max_size=8).filter(any).map(bytes.hex)
_tokens = st.integers(0, 10**9)
_nano = st.integers(0, 10**14).map(NanoUsd)
_own_attributes = st.dictionaries(_name.map("shop.{}".format), st.text(max_size=9) | st.integers(0, 99) | st.booleans())


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, written, plain = draw(_tokens), draw(_tokens), draw(_tokens)
    return Usage(input=read + written + plain, output=draw(_tokens), cache_read=read, cache_write=written)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """A span as runs record it."""
    kind: Kind = draw(st.sampled_from(("agent", "model", "tool", "step", "wait")))
    start_ns = draw(st.integers(1, 2**62))
    return Span(
        trace_id=draw(_ids) + draw(_ids),
        span_id=draw(_ids),
        parent_id=draw(st.none() | _ids),
        kind=kind,
        name=draw(_name),
        start_ns=start_ns,
        end_ns=start_ns + draw(st.integers(0, 10**15)),
        tenant=draw(_name),
        user=draw(_name),
        agent=draw(_name | st.just("")),
        run_id=draw(_name),
        error_type=draw(st.none() | _name),
        provider=draw(_name) if kind == "model" else None,
        model=draw(_name) if kind == "model" else None,
        usage=draw(usages()) if kind == "model" else Usage(),
        cost=draw(_nano) if kind == "model" else NanoUsd(0),
        held=draw(st.none() | _nano) if kind == "model" else None,
        conversation_id=draw(st.none() | _name),
        fingerprint=draw(st.none() | _name),
        attempt=draw(st.integers(1, 3)),
        retry_of=draw(st.none() | _ids),
        attributes=draw(_own_attributes),
    )


def read_back(exported: Sequence[Span]) -> Sequence[Span]:
    return decode_request(encode_request(exported), PROTOBUF, None, None, lambda *_: None).spans


@given(st.lists(spans(), max_size=3))
def test_round_trip(exported: list[Span]) -> None:
    """A span that is exported and read again is the same, with its cost as the reported cost."""
    for before, after in zip(exported, read_back(exported), strict=True):
        added = {semconv.SCOPE, semconv.PRICE_UNKNOWN, "service.name"}
        attributes = {name: value for name, value in after.attributes.items() if name not in added}
        reported = before.cost if before.kind == "model" else None
        assert replace(after, attributes=attributes, reported_cost=None) == before
        assert after.reported_cost == reported


def request(**overrides: Any) -> Span:
    fields: dict[str, Any] = {
        "parent_id": None,
        "kind": "model",
        "name": "chat",
        "start_ns": 1,
        "end_ns": 2,
        **overrides,
    }
    ids = {"trace_id": "1" * 32, "span_id": "2" * 16, "tenant": "acme", "user": "u-1", "agent": "a", "run_id": "run_1"}
    return Span(**{**ids, **fields})


def test_attribute_names() -> None:
    """A model request has the names of the GenAI conventions, and for cached tokens the names that backends read."""
    span = request(
        provider="anthropic",
        model="claude",
        usage=Usage(input=100, output=20, cache_read=60, cache_write=10),
        cost=NanoUsd(1_500_000),
        first_token_ns=250_000_000,
        conversation_id="c-1",
    )
    assert span_attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.agent.name": "a",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude",
        "gen_ai.response.model": "claude",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.cost": 0.0015,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.conversation.id": "c-1",
        "session.id": "c-1",
        "enduser.id": "u-1",
        "user.id": "u-1",
        "tenant.id": "acme",
        "handrail.run.id": "run_1",
        "handrail.cost.nano_usd": 1_500_000,
    }


def test_attributes_of_any_shape() -> None:
    """Lists of plain values stay lists, mappings become JSON, and no value fails the export."""
    attributes = {"list": ["a", 1], "map": {"a": 1}, "half": "\ud800", "huge": 2**70, "none": None}
    [imported] = read_back([request(attributes=attributes)])
    assert {name: imported.attributes.get(name) for name in attributes} == {
        "list": ["a", 1],
        "map": '{"a":1}',
        "half": "?",
        "huge": str(2**70),
        "none": None,
    }


def content(span: Span) -> Mapping[str, Any]:
    return {name: json.loads(value) for name, value in span_content(span).items()}


def test_messages() -> None:
    """Messages and responses become the conventions' messages: roles, and parts of each type."""
    retry = {"part_kind": "retry-prompt"}
    messages = [
        ModelRequest(
            [SystemPromptPart("Be kind."), UserPromptPart(["See:", ImageUrl("https://x/y.png")])],
            instructions="Be brief.",
        ),
        ModelResponse([ThinkingPart("Hm."), ToolCallPart("find", {"order": 7}, "call_1")]),
        ModelRequest([ToolReturnPart("find", "here", "call_1")]),
        {"parts": [retry | {"content": "no", "tool_name": "find", "tool_call_id": "c2"}, retry | {"content": "again"}]},
        ModelRequest([UserPromptPart([BinaryContent(b"\x01", media_type="image/png")])]),
        {"parts": [{"part_kind": "of the future", "x": 1}]},
    ]
    span = request(payload={"messages": messages, "response": [TextPart("Done.")]})
    text = {"type": "text"}
    assert content(span) == {
        "gen_ai.system_instructions": [{**text, "content": "Be brief."}],
        "gen_ai.input.messages": [
            {"role": "system", "parts": [{**text, "content": "Be kind."}]},
            {
                "role": "user",
                "parts": [
                    {**text, "content": "See:"},
                    {"type": "uri", "uri": "https://x/y.png", "modality": "image"},
                ],
            },
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "Hm."},
                    {"type": "tool_call", "id": "call_1", "name": "find", "arguments": {"order": 7}},
                ],
            },
            {
                "role": "tool",
                "parts": [
                    {"type": "tool_call_response", "id": "call_1", "response": "here"},
                    {"type": "tool_call_response", "id": "c2", "response": "no"},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {**text, "content": "again"},
                    {"type": "blob", "mime_type": "image/png", "content": "AQ=="},
                    {"type": "of the future", "part_kind": "of the future", "x": 1},
                ],
            },
        ],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{**text, "content": "Done."}]}],
    }


def test_tools_and_runs() -> None:
    """A tool's arguments and result become JSON, a run's input and outcome messages; others have none."""
    tool = request(kind="tool", payload={"arguments": {"order": 7}, "result": ["found"]})
    assert content(tool) == {"gen_ai.tool.call.arguments": {"order": 7}, "gen_ai.tool.call.result": ["found"]}
    run = request(kind="agent", payload={"input": "hi", "outcome": {"output": "yes"}})
    assert content(run) == {
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": '{"output": "yes"}'}]}],
    }
    assert content(request()) == {}


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["parts", "kind", "content", "part_kind", "instructions", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_redacted_payloads(redacted: Any) -> None:
    """Payloads can be exported in any shape that a redaction returns."""
    for kind in ("model", "tool", "agent"):
        payload = {
            "messages": redacted,
            "response": redacted,
            "arguments": redacted,
            "input": redacted,
            "outcome": redacted,
        }
        span_content(request(kind=kind, payload=payload))
