"""The slow CRM: its trace says what is slow, and what it promises comes true."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handrail import GovernedAgent, Outcome, Runtime
from handrail.examples.slow_crm import __main__ as lesson
from handrail.examples.slow_crm.agent import agent, fast
from handrail.examples.slow_crm.crm import sleeping_by
from handrail.examples.slow_crm.simulation import IN_A_ROW, SIDE_BY_SIDE, Simulation
from handrail.testing import sandbox
from handrail.traces.analysis.critical_path import critical_path
from handrail.traces.analysis.parallelism import what_if
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.store.spans import load_payload, load_trace

LOOK_UPS = ["look up orders", "look up tickets", "look up invoices"]


def ran(
    governed: GovernedAgent[Any, str], at_once: Sequence[int], folder: Path
) -> tuple[Outcome[str], list[Span], Any]:
    """How one simulated run ended, its spans, and what was said in them."""
    simulation = Simulation()
    with sandbox(folder, clock=simulation.clock) as runtime, sleeping_by(simulation.sleep):
        outcome = asyncio.run(simulation.run(governed.run("Where is my parcel?", user="u-1077"), at_once))
        return outcome, *stored(runtime, outcome.facts.trace_id)


def stored(runtime: Runtime, trace_id: str) -> tuple[list[Span], Mapping[str, Mapping[str, Any]]]:
    _, spans = runtime.database.read_now(lambda conn: load_trace(conn, trace_id, None))
    said: dict[str, Mapping[str, Any]] = {}
    for span in spans:
        payload = runtime.database.read_now(partial(load_payload, trace_id=trace_id, span_id=span.span_id))
        said.update({} if payload is None else {span.span_id: payload})
    return spans, said


def test_where_the_time_goes(tmp_path: Path) -> None:
    """Of 8.2 s the model takes 2.4; the look-ups, one after the other, take 5.8."""
    outcome, spans, _ = ran(agent, IN_A_ROW, tmp_path)
    path = [(piece.span.name, round(piece.duration_ns / 1e9, 3)) for piece in critical_path(spans)]
    assert outcome.type == "answered"
    assert [piece for piece in path if piece[1]] == [
        ("chat simulated", 1.1),
        *zip(LOOK_UPS, (2.1, 1.9, 1.8), strict=True),
        ("chat simulated", 1.3),
    ]


def test_the_promise_comes_true(tmp_path: Path) -> None:
    """What the trace promises for the look-ups beside the first model call is what they take there, within 10%."""
    before, spans, said = ran(agent, IN_A_ROW, tmp_path)
    after, _, _ = ran(fast, SIDE_BY_SIDE, tmp_path)
    promise = what_if(spans, said)[0]
    assert [span.name for span in promise.spans] == ["chat simulated", *LOOK_UPS]
    assert promise.certainty == "proven"
    took = after.facts.duration.total_seconds()
    assert promise.trace_now_ns / 1e9 == pytest.approx(before.facts.duration.total_seconds(), rel=0.01)
    assert promise.trace_then_ns / 1e9 == pytest.approx(took, rel=0.1)
    assert took == pytest.approx(3.4, rel=0.01)


def test_nothing_is_left_to_do(tmp_path: Path) -> None:
    """The faster agent's look-ups hang below its run, beside the model call, and nothing more is found."""
    _, spans, said = ran(fast, SIDE_BY_SIDE, tmp_path)
    [root] = span_tree(spans)
    assert {*LOOK_UPS, "chat simulated", "execute_tool customer_file"} == {node.span.name for node in root.children}
    assert what_if(spans, said) == []


def test_the_lesson(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m handrail.examples.slow_crm` prints the steps, the finding, and the promise beside what came of it."""
    monkeypatch.setattr(sys, "argv", ["slow_crm"])
    lesson.main()
    said = capfd.readouterr().out
    assert "look up orders" in said
    assert "The trace would take 3.4 s instead of 8.2 s. Proven" in said
    assert said.endswith("  predicted 3.4 s\n  took      3.4 s\n")
