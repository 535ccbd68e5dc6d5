"""Steps that could have run in parallel, and the time that the trace would take."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.analysis.parallelism import ParallelismOpportunity, find_parallelism
from handrail.traces.analysis.simulation import simulate_duration
from handrail.traces.analysis.timeline import build_timeline, walk_timeline
from handrail.traces.model import Span
from tests.traces.span_builders import S, any_trace, make_span, nested_trace, slow_run

Payloads = dict[str, dict[str, Any]]


def crm(customer: str = "u-1077") -> Payloads:
    """The payloads of the slow CRM's run, whose look-ups use a customer that the model did not name."""
    look_ups = {name: {"arguments": {"customer": customer}, "result": [f"{name} 5"]} for name in LOOK_UPS}
    return {
        "first": {"messages": ["Where is my parcel?"], "response": [call("crm", {})]},
        "tool": {"arguments": {}, "result": "one parcel"},
        **look_ups,
    }


TENTH = S // 10
LOOK_UPS = ("orders", "tickets", "invoices")


def call(tool: str, args: Mapping[str, Any], call_id: str = "call-1") -> dict[str, Any]:
    return {"part_kind": "tool-call", "tool_name": tool, "args": dict(args), "tool_call_id": call_id}


def ids(opportunity: ParallelismOpportunity) -> list[str]:
    return [span.span_id for span in opportunity.spans]


def find_in_two(
    first: dict[str, Any] | None, second: dict[str, Any] | None, **overrides: Any
) -> list[ParallelismOpportunity]:
    """The opportunities in two sequential steps of 1 and 2 s with these payloads; overrides are for the second."""
    spans = [make_span("root", None, 0, 3), make_span("one", "root", 0, 1), make_span("two", "root", 1, 3, **overrides)]
    payloads = {"one": first, "two": second}
    return find_parallelism(spans, {name: payload for name, payload in payloads.items() if payload is not None})


def test_a_needed_sibling_that_still_runs() -> None:
    """No span is moved before the end of a span that it needs."""
    spans = [make_span("root", None, 0, 6), make_span("token", "root", 0, 3), make_span("short", "root", 1, 2)]
    spans.append(make_span("user", "root", 3, 6))
    payloads: Payloads = {
        "token": {"arguments": {}, "result": "token-99"},
        "short": {"arguments": {}, "result": None},
        "user": {"arguments": {"token": "token-99"}},
    }
    assert find_parallelism(spans, payloads) == []


def test_the_slow_crm() -> None:
    """The look-ups need nothing from the first model request; started with it, the run takes 3.4 s instead of 8.2 s."""
    ahead, inside = find_parallelism(slow_run(), crm())
    assert ids(ahead) == ["first", *LOOK_UPS]
    assert (ahead.certainty, ahead.inside.span_id, ahead.ahead_of_model) == ("proven", "run", True)
    assert (ahead.sequential_ns, ahead.parallel_ns) == (69 * TENTH, 21 * TENTH)
    assert (ahead.trace_now_ns, ahead.trace_then_ns, ahead.saved_ns) == (82 * TENTH, 34 * TENTH, 48 * TENTH)
    assert ids(inside) == list(LOOK_UPS)
    assert (inside.certainty, inside.inside.span_id, inside.ahead_of_model) == ("proven", "tool", False)
    assert (inside.sequential_ns, inside.parallel_ns, inside.trace_then_ns) == (58 * TENTH, 21 * TENTH, 45 * TENTH)


def test_the_description() -> None:
    """The description has the spans, their times in sequence and in parallel, the saving and the reason."""
    assert str(find_parallelism(slow_run(), crm())[1]) == (
        "orders, tickets and invoices ran one after the other in execute_tool crm: 5.8 s; in parallel 2.1 s. "
        "The trace would take 4.5 s instead of 8.2 s. "
        "Proven: no value that an earlier one returned is in the arguments of a later one."
    )


def test_no_payloads() -> None:
    """Without payloads, sequential steps are possibly independent, and none moves before a model request."""
    [inside] = find_parallelism(slow_run(), {})
    assert (ids(inside), inside.certainty, inside.reasons) == (list(LOOK_UPS), "possible", ("not recorded",))


def test_a_value_from_the_model() -> None:
    """Look-ups of a value that the model produced depend on it, and are still independent of each other."""
    payloads = crm("parcel-31")
    payloads["first"]["response"] = [call("crm", {"customer": "parcel-31"})]
    payloads["tool"]["arguments"] = {"customer": "parcel-31"}
    [inside] = find_parallelism(slow_run(), payloads)
    assert (ids(inside), inside.certainty) == (list(LOOK_UPS), "proven")


def test_a_value_passed_through_the_model() -> None:
    """A value that the model received and passed on was known before: possible, not proven."""
    payloads = crm("parcel-31")
    payloads["first"] = {"messages": ["Where is parcel-31?"], "response": [call("crm", {"customer": "parcel-31"})]}
    ahead = find_parallelism(slow_run(), payloads)[0]
    assert (ids(ahead), ahead.certainty) == (["first", *LOOK_UPS], "possible")
    assert "known before" in ahead.reasons


def test_undeclared_effects() -> None:
    """Only a tool that is declared to read is proven safe before the model asks."""
    spans = [span if span.span_id != "tool" else make_span("tool", "run", 1.1, 6.9, kind="tool") for span in slow_run()]
    ahead, inside = find_parallelism(spans, crm())
    assert (ahead.certainty, "effect undeclared" in ahead.reasons, inside.certainty) == ("possible", True, "proven")


@pytest.mark.parametrize(
    ("output", "argument"),
    [
        ("c-1042", "c-1042"),
        ({"id": 1042}, "1042"),
        ([{"deep": [{"id": "A-77x"}]}], {"also": {"deep": ["a-77X"]}}),
        (417, 417),
        ("Order 1042 was sent to Ann", {"order": 1042}),
        ("Ann Miller, 2 Hill Road", "Letter to Miller"),
        ("hill", "2 Hillside Road"),
        ('{"id": "c-1042"}', ["c-1042"]),
        ({"c-1042": "sent"}, "c-1042"),
        ("true", "is true"),
    ],
)
def test_used_outputs(output: Any, argument: Any) -> None:
    """There is no opportunity if a later span received an output of an earlier one, whole or in part."""
    assert find_in_two({"arguments": {}, "result": output}, {"arguments": {"it": argument}}) == []


@given(st.recursive(st.text(min_size=4) | st.integers(100), lambda inner: st.lists(inner, min_size=1)), st.data())
def test_used_values(output: Any, data: st.DataObject) -> None:
    """Any text of more than 3 characters and any number of 3 or more digits makes its receiver dependent."""
    flat = [output]
    while isinstance(flat[0], list):
        flat = [*flat[0], *flat[1:]]
    used = data.draw(st.sampled_from([value for value in flat if not isinstance(value, list)]))
    around = data.draw(st.sampled_from(["{}", "x {} y", "id-{}"])).format(used)
    assert find_in_two({"arguments": {}, "result": output}, {"arguments": [around]}) == []


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"arguments": {"id": 7_001}, "result": "sent"}, {"arguments": {"id": 7_001}}, "no shared values"),
        ({"arguments": {"id": 7_001}, "result": "7001 sent"}, {"arguments": {"id": 7_001}}, "known before"),
        ({"arguments": {}, "result": [5]}, {"arguments": {"page": 5}}, "short match"),
        ({"arguments": {}, "result": "sent"}, {"arguments": {}, "opaque": ["desk"]}, "not recorded"),
        ({"arguments": {}, "result": "sent"}, {"arguments": {"id": 7_001}, "opaque": ["desk"]}, "not recorded"),
        ({"arguments": {}}, {"arguments": {"id": 7_001}}, "not recorded"),
        ({"arguments": {}, "result": "sent"}, {"result": "x"}, "not recorded"),
        (None, {"arguments": {}}, "no shared values"),
        ({"input": "hello", "output": "there"}, {"input": "other words"}, "no shared values"),
        ({"arguments": {}, "result": None}, {"arguments": {"flag": True}}, "no shared values"),
    ],
)
def test_reasons(first: dict[str, Any] | None, second: dict[str, Any], reason: str) -> None:
    """The recorded payloads determine whether independence is proven, and the reason."""
    [opportunity] = find_in_two(first, second)
    assert opportunity.reasons == (reason,)
    assert opportunity.certainty == ("proven" if reason == "no shared values" else "possible")


def test_one_message() -> None:
    """Calls of one message are proven independent: the model had none of their results."""
    spans = [
        make_span("run", None, 0, 6, kind="agent"),
        make_span("ask", "run", 0, 1, kind="model"),
        make_span("one", "run", 1, 3, kind="tool", attributes={"gen_ai.tool.call.id": "c1"}),
        make_span("two", "run", 3, 6, kind="tool", attributes={"gen_ai.tool.call.id": "c2"}),
    ]
    payloads: Payloads = {
        "ask": {"messages": ["?"], "response": [call("a", {"id": 7_001}, "c1"), call("b", {"id": 7_001}, "c2")]},
        "one": {"arguments": {"id": 7_001}, "result": {"id": 7_001}},
        "two": {"arguments": {"id": 7_001}, "result": "done"},
    }
    [opportunity] = find_parallelism(spans, payloads)
    assert (ids(opportunity), opportunity.certainty, opportunity.reasons) == (
        ["one", "two"],
        "proven",
        ("requested together",),
    )
    assert opportunity.trace_then_ns == 4 * S


@pytest.mark.parametrize(
    ("effects", "certainties"),
    [
        (("reads", "reads"), ["proven"]),
        (("reads", "writes"), ["possible"]),
        (("writes", "reads"), ["possible"]),
        (("irreversible", "reads"), []),
        (("reads", "irreversible"), []),
    ],
)
def test_effects(effects: tuple[str, str], certainties: list[str]) -> None:
    """A tool that writes makes an opportunity only possible; nothing moves past an irreversible one."""
    spans = [make_span("root", None, 0, 4)]
    for number, effect in enumerate(effects):
        tool = make_span(f"t{number}", "root", 2 * number, 2 * number + 2, kind="tool")
        spans.append(
            make_span(tool.span_id, "root", 2 * number, 2 * number + 2, kind="tool", attributes={EFFECT: effect})
        )
    opportunities = find_parallelism(spans, {span.span_id: {"arguments": {}, "result": None} for span in spans})
    assert [opportunity.certainty for opportunity in opportunities] == certainties


EFFECT = "handrail.tool.effect"


@pytest.mark.parametrize(
    "overrides",
    [
        {"kind": "model"},
        {"kind": "wait"},
        {"retry_of": "one"},
        {"attempt": 2},
        {"kind": "agent", "attributes": {"handrail.run.round": 2}},
    ],
)
def test_spans_that_never_move(overrides: dict[str, Any]) -> None:
    """Model requests, waits, second attempts and resumed runs depend on the spans before them."""
    assert find_in_two({"arguments": {}, "result": None}, {"arguments": {}}, **overrides) == []


def test_after_a_failure() -> None:
    """Spans after a failed one are not moved, since they may have run because of it."""
    spans = [
        make_span("root", None, 0, 3),
        make_span("one", "root", 0, 1, error_type="timeout"),
        make_span("two", "root", 1, 3),
    ]
    payloads: Payloads = {"one": {"arguments": {}, "result": None}, "two": {"arguments": {}}}
    assert find_parallelism(spans, payloads) == []


def test_the_earliest_possible_start() -> None:
    """A span can start as soon as the last span that it needs has ended."""
    spans = [make_span("root", None, 0, 6), *(make_span(f"s{n}", "root", 2 * n, 2 * n + 2) for n in range(3))]
    payloads = {
        "s0": {"arguments": {}, "result": "token-99"},
        "s1": {"arguments": {"token": "token-99"}, "result": "rows"},
        "s2": {"arguments": {"token": "token-99"}, "result": "more"},
    }
    [opportunity] = find_parallelism(spans, payloads)
    assert (ids(opportunity), opportunity.trace_then_ns) == (["s1", "s2"], 4 * S)


def test_work_of_the_parent() -> None:
    """The parent's own work between its children keeps its duration and order."""
    spans = [make_span("root", None, 0, 9), make_span("one", "root", 0, 2), make_span("two", "root", 5, 8)]
    [opportunity] = find_parallelism(spans, {})
    assert (opportunity.sequential_ns, opportunity.parallel_ns, opportunity.trace_then_ns) == (5 * S, 3 * S, 6 * S)


def test_spans_that_overlapped_already() -> None:
    """Spans that ran concurrently are no opportunity."""
    assert (
        find_parallelism(
            [make_span("root", None, 0, 3), make_span("one", "root", 0, 3), make_span("two", "root", 1, 3)], {}
        )
        == []
    )


def test_a_long_sequence() -> None:
    """A hundred look-ups, one after the other, are one opportunity."""
    spans = [
        make_span("root", None, 0, 100),
        *(make_span(f"s{n}", "root", n, n + 1, name="look up") for n in range(100)),
    ]
    [opportunity] = find_parallelism(spans, {})
    assert (len(opportunity.spans), opportunity.trace_then_ns, opportunity.names) == (100, S, "look up (100 times)")


@given(any_trace())
def test_a_simulation_without_changes(spans: list[Span]) -> None:
    """A simulation without moves has the trace's real duration."""
    top = build_timeline(spans)
    assert top is not None
    assert simulate_duration(top, {}) == top.duration_ns


@given(any_trace(), st.data())
def test_a_simulation_is_never_slower(spans: list[Span], data: st.DataObject) -> None:
    """An earlier start never makes a trace longer, nor shorter than any of the moved spans."""
    top = build_timeline(spans)
    assert top is not None
    rows = [part.children for part in walk_timeline(top) if len(part.children) > 1]
    if rows:
        row = data.draw(st.sampled_from(rows))
        moved = data.draw(st.lists(st.sampled_from(row[1:]), min_size=1))
        then = simulate_duration(top, dict.fromkeys(moved, row[0]))
        assert max(part.duration_ns for part in row) <= then <= top.duration_ns


@given(st.lists(st.integers(1, 50), min_size=2, max_size=8))
def test_the_longest_span_remains(durations: list[int]) -> None:
    """If sequential spans fill a trace, the parallel duration is that of the longest."""
    starts = [sum(durations[:n]) for n in range(len(durations))]
    spans = [make_span("root", None, 0, sum(durations))]
    spans += [
        make_span(f"s{n}", "root", start, start + duration)
        for n, (start, duration) in enumerate(zip(starts, durations, strict=True))
    ]
    opportunity = find_parallelism(spans, {})[0]
    assert opportunity.trace_then_ns == opportunity.parallel_ns == max(durations) * S
    assert opportunity.sequential_ns == sum(durations) * S


@given(any_trace())
def test_any_trace(spans: list[Span]) -> None:
    """In any trace, an opportunity saves some of its time and has at least two spans."""
    for opportunity in find_parallelism(spans, {}):
        assert 0 < opportunity.saved_ns < opportunity.trace_now_ns
        assert len(opportunity.spans) > 1


@given(nested_trace())
def test_a_nested_trace(spans: list[Span]) -> None:
    """An opportunity saves no more than the duration of the moved spans, and never ends before its longest span."""
    for opportunity in find_parallelism(spans, {}):
        assert opportunity.saved_ns <= sum(span.duration_ns for span in opportunity.spans[1:])
        assert opportunity.trace_then_ns >= opportunity.parallel_ns


def test_deep_traces() -> None:
    """A chain of 5,000 spans has nothing to run in parallel."""
    chain = [make_span("s0", None, 0, 5_000), *(make_span(f"s{n}", f"s{n - 1}", n, 5_000) for n in range(1, 5_000))]
    assert find_parallelism(chain, {}) == []


def test_no_spans() -> None:
    """Without spans there are no opportunities."""
    assert find_parallelism([], {}) == []
    assert find_parallelism([make_span("root", None, 1, 1)], {}) == []
