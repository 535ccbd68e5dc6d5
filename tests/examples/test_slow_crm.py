"""The slow CRM: its trace shows what is slow, and the predicted saving is achieved."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from handrail import GovernedAgent, Outcome, Runtime
from handrail.examples.slow_crm import __main__ as program
from handrail.examples.slow_crm.agent import agent, fast
from handrail.examples.slow_crm.crm import use_sleep
from handrail.examples.slow_crm.simulation import PARALLEL, SEQUENTIAL, Simulation
from handrail.testing import sandbox
from handrail.traces.analysis.critical_path import critical_path
from handrail.traces.analysis.parallelism import find_parallelism
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.store.spans import load_payload, load_trace

LOOK_UPS = ["look up orders", "look up tickets", "look up invoices"]


def simulate(
    governed: GovernedAgent[Any, str], concurrency: Sequence[int], folder: Path
) -> tuple[Outcome[str], list[Span], Any]:
    """Makes a simulated run and returns its outcome, its spans and their payloads."""
    simulation = Simulation()
    with sandbox(folder, clock=simulation.clock) as runtime, use_sleep(simulation.sleep):
        outcome = asyncio.run(simulation.run(governed.run("Where is my parcel?", user="u-1077"), concurrency))
        return outcome, *load_spans(runtime, outcome.facts.trace_id)


def load_spans(runtime: Runtime, trace_id: str) -> tuple[list[Span], Mapping[str, Mapping[str, Any]]]:
    _, spans = runtime.database.read_now(load_trace(trace_id, None))
    payloads: dict[str, Mapping[str, Any]] = {}
    for span in spans:
        payload = runtime.database.read_now(load_payload(trace_id=trace_id, span_id=span.span_id))
        payloads.update({} if payload is None else {span.span_id: payload})
    return spans, payloads


def test_where_the_time_goes(tmp_path: Path) -> None:
    """Of 8.2 s the model takes 2.4; the look-ups, one after the other, take 5.8."""
    outcome, spans, _ = simulate(agent, SEQUENTIAL, tmp_path)
    path = [(piece.span.name, round(piece.duration_ns / 1e9, 3)) for piece in critical_path(spans)]
    assert outcome.type == "answered"
    assert [piece for piece in path if piece[1]] == [
        ("chat simulated", 1.1),
        *zip(LOOK_UPS, (2.1, 1.9, 1.8), strict=True),
        ("chat simulated", 1.3),
    ]


def test_the_prediction_is_right(tmp_path: Path) -> None:
    """The predicted duration with parallel look-ups is the duration of the faster agent, within 10%."""
    before, spans, payloads = simulate(agent, SEQUENTIAL, tmp_path)
    after, _, _ = simulate(fast, PARALLEL, tmp_path)
    opportunity = find_parallelism(spans, payloads)[0]
    assert [span.name for span in opportunity.spans] == ["chat simulated", *LOOK_UPS]
    assert opportunity.certainty == "proven"
    duration = after.facts.duration.total_seconds()
    assert opportunity.trace_now_ns / 1e9 == pytest.approx(before.facts.duration.total_seconds(), rel=0.01)
    assert opportunity.trace_then_ns / 1e9 == pytest.approx(duration, rel=0.1)
    assert duration == pytest.approx(3.4, rel=0.01)


def test_the_faster_agent_has_no_opportunity(tmp_path: Path) -> None:
    """The faster agent's look-ups run beside the model call, and no further opportunity is found."""
    _, spans, payloads = simulate(fast, PARALLEL, tmp_path)
    [root] = span_tree(spans)
    assert {*LOOK_UPS, "chat simulated", "execute_tool customer_file"} == {node.span.name for node in root.children}
    assert find_parallelism(spans, payloads) == []


def test_the_program(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m handrail.examples.slow_crm` prints the steps, the opportunity, and the predicted and real duration."""
    monkeypatch.setattr(sys, "argv", ["slow_crm"])
    program.main()
    output = capfd.readouterr().out
    assert "look up orders" in output
    assert "The trace would take 3.4 s instead of 8.2 s. Proven" in output
    assert output.endswith("  predicted 3.4 s\n  took      3.4 s\n")
