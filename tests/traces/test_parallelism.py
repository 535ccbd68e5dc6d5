"""What could have run side by side: what is claimed, what is not, and how long the trace would take."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.analysis.layout import every_part, timeline
from handrail.traces.analysis.parallelism import Finding, what_if
from handrail.traces.analysis.simulation import replayed
from handrail.traces.model import Span
from tests.traces.span_builders import S, any_trace, made, nested_trace, slow_run

Payloads = dict[str, dict[str, Any]]


def crm(customer: str = "u-1077") -> Payloads:
    """What was said in the slow CRM's run: the look-ups go by the customer, whom the model did not name."""
    looked_up = {name: {"arguments": {"customer": customer}, "result": [f"{name} 5"]} for name in LOOK_UPS}
    return {
        "first": {"messages": ["Where is my parcel?"], "response": [call("crm", {})]},
        "tool": {"arguments": {}, "result": "one parcel"},
        **looked_up,
    }


TENTH = S // 10
LOOK_UPS = ("orders", "tickets", "invoices")


def call(tool: str, args: Mapping[str, Any], call_id: str = "call-1") -> dict[str, Any]:
    return {"part_kind": "tool-call", "tool_name": tool, "args": dict(args), "tool_call_id": call_id}


def ids(finding: Finding) -> list[str]:
    return [span.span_id for span in finding.spans]


def two(first: dict[str, Any] | None, second: dict[str, Any] | None, **changed: Any) -> list[Finding]:
    """What is found about two steps of 1 and 2 s in a row, with what was said in them; changes are to the second."""
    spans = [made("root", None, 0, 3), made("one", "root", 0, 1), made("two", "root", 1, 3, **changed)]
    said = {"one": first, "two": second}
    return what_if(spans, {name: payload for name, payload in said.items() if payload is not None})


def test_a_sibling_that_is_needed_and_still_runs() -> None:
    """Nothing begins before the end of what it needs, also where that began before the one it would begin with."""
    spans = [made("root", None, 0, 6), made("token", "root", 0, 3), made("short", "root", 1, 2)]
    spans.append(made("user", "root", 3, 6))
    said: Payloads = {
        "token": {"arguments": {}, "result": "token-99"},
        "short": {"arguments": {}, "result": None},
        "user": {"arguments": {"token": "token-99"}},
    }
    assert what_if(spans, said) == []


def test_the_slow_crm() -> None:
    """The look-ups need nothing from the first model call: begun with it, the run takes 3.4 s instead of 8.2."""
    ahead, inside = what_if(slow_run(), crm())
    assert ids(ahead) == ["first", *LOOK_UPS]
    assert (ahead.certainty, ahead.inside.span_id, ahead.ahead_of_model) == ("proven", "run", True)
    assert (ahead.now_ns, ahead.side_by_side_ns) == (69 * TENTH, 21 * TENTH)
    assert (ahead.trace_now_ns, ahead.trace_then_ns, ahead.saved_ns) == (82 * TENTH, 34 * TENTH, 48 * TENTH)
    assert ids(inside) == list(LOOK_UPS)
    assert (inside.certainty, inside.inside.span_id, inside.ahead_of_model) == ("proven", "tool", False)
    assert (inside.now_ns, inside.side_by_side_ns, inside.trace_then_ns) == (58 * TENTH, 21 * TENTH, 45 * TENTH)


def test_a_finding_in_words() -> None:
    """A finding tells which spans, how long now and side by side, what the trace gains, and why."""
    assert str(what_if(slow_run(), crm())[1]) == (
        "orders, tickets and invoices ran one after the other in execute_tool crm: 5.8 s; side by side 2.1 s. "
        "The trace would take 4.5 s instead of 8.2 s. "
        "Proven: nothing that an earlier one gave back is in the arguments of a later one."
    )


def test_nothing_recorded() -> None:
    """Without what was said, steps in a row are possibly independent, and nothing is moved before a model call."""
    [inside] = what_if(slow_run(), {})
    assert (ids(inside), inside.certainty, inside.because) == (list(LOOK_UPS), "possible", ("unrecorded",))


def test_what_the_model_named() -> None:
    """A value that the model came up with ties the look-ups to it; they are still independent of each other."""
    said = crm("parcel-31")
    said["first"]["response"] = [call("crm", {"customer": "parcel-31"})]
    said["tool"]["arguments"] = {"customer": "parcel-31"}
    [inside] = what_if(slow_run(), said)
    assert (ids(inside), inside.certainty) == (list(LOOK_UPS), "proven")


def test_what_the_model_was_told() -> None:
    """A value that the model passes on was there before it: begun with it is possible, not proven."""
    said = crm("parcel-31")
    said["first"] = {"messages": ["Where is parcel-31?"], "response": [call("crm", {"customer": "parcel-31"})]}
    ahead = what_if(slow_run(), said)[0]
    assert (ids(ahead), ahead.certainty) == (["first", *LOOK_UPS], "possible")
    assert "known before" in ahead.because


def test_a_tool_that_does_not_say_what_it_does() -> None:
    """Only what declares that it reads is proven to be safe before the model has asked."""
    spans = [span if span.span_id != "tool" else made("tool", "run", 1.1, 6.9, kind="tool") for span in slow_run()]
    ahead, inside = what_if(spans, crm())
    assert (ahead.certainty, "undeclared" in ahead.because, inside.certainty) == ("possible", True, "proven")


@pytest.mark.parametrize(
    ("gave", "given"),
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
def test_never_where_an_output_is_used(gave: Any, given: Any) -> None:
    """Nothing is claimed where a later span was given what an earlier one gave back, whole or in part."""
    assert two({"arguments": {}, "result": gave}, {"arguments": {"it": given}}) == []


@given(st.recursive(st.text(min_size=4) | st.integers(100), lambda inner: st.lists(inner, min_size=1)), st.data())
def test_never_where_any_value_is_used(gave: Any, data: st.DataObject) -> None:
    """Any text of more than 3 characters and any number of 3 digits or more in a result ties who is given it."""
    flat = [gave]
    while isinstance(flat[0], list):
        flat = [*flat[0], *flat[1:]]
    used = data.draw(st.sampled_from([each for each in flat if not isinstance(each, list)]))
    around = data.draw(st.sampled_from(["{}", "x {} y", "id-{}"])).format(used)
    assert two({"arguments": {}, "result": gave}, {"arguments": [around]}) == []


@pytest.mark.parametrize(
    ("first", "second", "because"),
    [
        ({"arguments": {"id": 7_001}, "result": "sent"}, {"arguments": {"id": 7_001}}, "apart"),
        ({"arguments": {"id": 7_001}, "result": "7001 sent"}, {"arguments": {"id": 7_001}}, "known before"),
        ({"arguments": {}, "result": [5]}, {"arguments": {"page": 5}}, "alike"),
        ({"arguments": {}, "result": "sent"}, {"arguments": {}, "opaque": ["desk"]}, "unrecorded"),
        ({"arguments": {}, "result": "sent"}, {"arguments": {"id": 7_001}, "opaque": ["desk"]}, "unrecorded"),
        ({"arguments": {}}, {"arguments": {"id": 7_001}}, "unrecorded"),
        ({"arguments": {}, "result": "sent"}, {"result": "x"}, "unrecorded"),
        (None, {"arguments": {}}, "apart"),
        ({"input": "hello", "output": "there"}, {"input": "other words"}, "apart"),
        ({"arguments": {}, "result": None}, {"arguments": {"flag": True}}, "apart"),
    ],
)
def test_why(first: dict[str, Any] | None, second: dict[str, Any], because: str) -> None:
    """What was recorded decides whether it is proven, and the reason is told."""
    [finding] = two(first, second)
    assert finding.because == (because,)
    assert finding.certainty == ("proven" if because == "apart" else "possible")


def test_one_message() -> None:
    """Calls of one message are proven independent: the model had seen none of their results."""
    spans = [
        made("run", None, 0, 6, kind="agent"),
        made("ask", "run", 0, 1, kind="model"),
        made("one", "run", 1, 3, kind="tool", attributes={"gen_ai.tool.call.id": "c1"}),
        made("two", "run", 3, 6, kind="tool", attributes={"gen_ai.tool.call.id": "c2"}),
    ]
    said: Payloads = {
        "ask": {"messages": ["?"], "response": [call("a", {"id": 7_001}, "c1"), call("b", {"id": 7_001}, "c2")]},
        "one": {"arguments": {"id": 7_001}, "result": {"id": 7_001}},
        "two": {"arguments": {"id": 7_001}, "result": "done"},
    }
    [finding] = what_if(spans, said)
    assert (ids(finding), finding.certainty, finding.because) == (["one", "two"], "proven", ("asked together",))
    assert finding.trace_then_ns == 4 * S


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
    """What changes something may stand in an order for a reason; what is irreversible is never moved, nor passed."""
    spans = [made("root", None, 0, 4)]
    for number, effect in enumerate(effects):
        tool = made(f"t{number}", "root", 2 * number, 2 * number + 2, kind="tool")
        spans.append(made(tool.span_id, "root", 2 * number, 2 * number + 2, kind="tool", attributes={EFFECT: effect}))
    found = what_if(spans, {span.span_id: {"arguments": {}, "result": None} for span in spans})
    assert [each.certainty for each in found] == certainties


EFFECT = "handrail.tool.effect"


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "model"},
        {"kind": "wait"},
        {"retry_of": "one"},
        {"attempt": 2},
        {"kind": "agent", "attributes": {"handrail.run.round": 2}},
    ],
)
def test_what_never_moves(changed: dict[str, Any]) -> None:
    """A model request, people's time, a second attempt and a run carried on have what was before them to go by."""
    assert two({"arguments": {}, "result": None}, {"arguments": {}}, **changed) == []


def test_after_a_failure() -> None:
    """What ran after a failed span may have run because of it."""
    spans = [made("root", None, 0, 3), made("one", "root", 0, 1, error_type="timeout"), made("two", "root", 1, 3)]
    said: Payloads = {"one": {"arguments": {}, "result": None}, "two": {"arguments": {}}}
    assert what_if(spans, said) == []


def test_the_first_that_is_needed() -> None:
    """A span that needs an earlier one may still begin with what came after that one."""
    spans = [made("root", None, 0, 6), *(made(f"s{n}", "root", 2 * n, 2 * n + 2) for n in range(3))]
    said = {
        "s0": {"arguments": {}, "result": "token-99"},
        "s1": {"arguments": {"token": "token-99"}, "result": "rows"},
        "s2": {"arguments": {"token": "token-99"}, "result": "more"},
    }
    [finding] = what_if(spans, said)
    assert (ids(finding), finding.trace_then_ns) == (["s1", "s2"], 4 * S)


def test_what_the_parent_did_itself_stays() -> None:
    """The parent's own work between its children is neither lost nor moved."""
    spans = [made("root", None, 0, 9), made("one", "root", 0, 2), made("two", "root", 5, 8)]
    [finding] = what_if(spans, {})
    assert (finding.now_ns, finding.side_by_side_ns, finding.trace_then_ns) == (5 * S, 3 * S, 6 * S)


def test_what_ran_side_by_side_already() -> None:
    """Nothing is found about spans that ran at once."""
    assert what_if([made("root", None, 0, 3), made("one", "root", 0, 3), made("two", "root", 1, 3)], {}) == []


def test_a_long_row() -> None:
    """A hundred look-ups in a row, one by one, are one finding."""
    spans = [made("root", None, 0, 100), *(made(f"s{n}", "root", n, n + 1, name="look up") for n in range(100))]
    [finding] = what_if(spans, {})
    assert (len(finding.spans), finding.trace_then_ns, finding.names) == (100, S, "look up (100 times)")


@given(any_trace())
def test_a_replay_without_changes(spans: list[Span]) -> None:
    """A trace that nothing is changed in takes as long as it took."""
    top = timeline(spans)
    assert top is not None
    assert replayed(top, {}) == top.duration_ns


@given(any_trace(), st.data())
def test_a_replay_is_never_slower(spans: list[Span], data: st.DataObject) -> None:
    """Beginning earlier never makes a trace longer, nor shorter than what moved and what the root did before it."""
    top = timeline(spans)
    assert top is not None
    rows = [part.children for part in every_part(top) if len(part.children) > 1]
    if rows:
        row = data.draw(st.sampled_from(rows))
        moved = data.draw(st.lists(st.sampled_from(row[1:]), min_size=1))
        then = replayed(top, dict.fromkeys(moved, row[0]))
        assert max(part.duration_ns for part in row) <= then <= top.duration_ns


@given(st.lists(st.integers(1, 50), min_size=2, max_size=8))
def test_the_sum_becomes_the_longest(durations: list[int]) -> None:
    """Of spans that fill a trace one by one, the longest is left."""
    starts = [sum(durations[:n]) for n in range(len(durations))]
    spans = [made("root", None, 0, sum(durations))]
    spans += [made(f"s{n}", "root", at, at + took) for n, (at, took) in enumerate(zip(starts, durations, strict=True))]
    finding = what_if(spans, {})[0]
    assert finding.trace_then_ns == finding.side_by_side_ns == max(durations) * S
    assert finding.now_ns == sum(durations) * S


@given(any_trace())
def test_any_trace(spans: list[Span]) -> None:
    """Whatever the spans say, a finding saves a part of the trace's time, and is about at least two of them."""
    for finding in what_if(spans, {}):
        assert 0 < finding.saved_ns < finding.trace_now_ns
        assert len(finding.spans) > 1


@given(nested_trace())
def test_a_nested_trace(spans: list[Span]) -> None:
    """A finding saves no more than what it moves took, and never ends before the longest of its spans."""
    for finding in what_if(spans, {}):
        assert finding.saved_ns <= sum(span.duration_ns for span in finding.spans[1:])
        assert finding.trace_then_ns >= finding.side_by_side_ns


def test_deep_traces() -> None:
    """A chain of 5,000 spans has nothing in it to run side by side."""
    chain = [made("s0", None, 0, 5_000), *(made(f"s{n}", f"s{n - 1}", n, 5_000) for n in range(1, 5_000))]
    assert what_if(chain, {}) == []


def test_nothing() -> None:
    """No spans have no findings."""
    assert what_if([], {}) == []
    assert what_if([made("root", None, 1, 1)], {}) == []
