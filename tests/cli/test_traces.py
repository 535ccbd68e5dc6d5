"""`handrail traces`: lists, one trace, latency, cost and waste."""

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from typer.testing import CliRunner

from handrail.cli.app import app
from handrail.cli.output import render_span_tree
from handrail.cli.time_ranges import parse_since
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.kernel.money import NanoUsd
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span, Usage
from handrail.traces.store.spans import SpanBatch
from tests.cli.terminal import CommandResult, Folder
from tests.traces.span_builders import S, make_span, slow_run

CENT = 10_000_000


def traces(folder: Folder, *arguments: str) -> CommandResult:
    """Runs `handrail traces` within this process, since starting another takes longer than the test."""
    with contextlib.chdir(folder.path):
        result = CliRunner().invoke(app, ["traces", *arguments], catch_exceptions=False)
    return CommandResult(result.exit_code, result.stdout, result.stderr)


_numbers = count(1)


def as_new_trace(spans: list[Span], seconds_ago: int, **changed: Any) -> list[Span]:
    """A copy of the spans as a new trace that started `seconds_ago`."""
    trace_id, start = f"{next(_numbers):032x}", time.time_ns() - seconds_ago * S
    new_ids = {span.span_id: f"{number:016x}" for number, span in enumerate(spans, start=1)}
    return [
        replace(
            span,
            trace_id=trace_id,
            span_id=new_ids[span.span_id],
            parent_id=None if span.parent_id is None else new_ids.get(span.parent_id, "f" * 16),
            start_ns=start + span.start_ns,
            end_ns=start + span.end_ns,
            **changed,
        )
        for span in spans
    ]


def slow_crm() -> list[Span]:
    """The slow CRM's run with its payloads."""
    payloads: dict[str, dict[str, Any]] = {
        "first": {"messages": ["Where?"], "response": [{"part_kind": "tool-call", "args": {}}]},
        **{name: {"arguments": {"customer": "u-1077"}, "result": name} for name in ("orders", "tickets", "invoices")},
    }
    return [replace(span, payload=payloads.get(span.span_id)) for span in slow_run()]


def request_run(cost: int, *, searches: int = 1, held: int | None = CENT, error: str | None = None) -> list[Span]:
    """A run of one model request with some searches."""
    return [
        make_span("run", None, 0, 3, kind="agent", name="invoke_agent shop", agent="shop", error_type=error),
        make_span(
            "ask",
            "run",
            0,
            1,
            kind="model",
            name="chat big",
            agent="shop",
            model="big",
            cost=NanoUsd(cost),
            held=None if held is None else NanoUsd(held),
            usage=Usage(input=900, output=40),
            error_type=error,
        ),
        *(
            make_span(f"s{n}", "run", 1, 2, kind="tool", name="execute_tool search", agent="shop")
            for n in range(searches)
        ),
    ]


@pytest.fixture(scope="module")
def filled(shared_folder: Folder) -> Folder:
    """A store with two slow runs, ten expensive and forty cheap ones, one that failed, and one without a ceiling."""
    spans = [span for ago in (50, 40) for span in as_new_trace(slow_crm(), ago)]
    spans += [
        span
        for _ in range(10)
        for span in as_new_trace(request_run(90 * CENT, searches=6), 300, tenant="big", user="u-9")
    ]
    spans += [span for _ in range(40) for span in as_new_trace(request_run(CENT), 200)]
    spans += as_new_trace(request_run(2 * CENT, error="ModelTimeoutError"), 100)
    spans += as_new_trace(request_run(3 * CENT, held=None), 90)
    database = Database.open("handrail.db", shared_folder.path)
    database.write_now(SpanBatch(spans))
    database.close()
    return shared_folder


def test_empty_reports(folder: Folder) -> None:
    """If nothing is stored yet, each report names the command that records something."""
    for report in ("list", "slow", "cost", "waste"):
        result = traces(folder, report)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith("No ")
        assert "`handrail demo`" in result.out


def test_lists_by_cost(filled: Folder) -> None:
    """The most expensive come first, and the next page continues where the first one ended."""
    first = traces(filled, "list", "--sort", "cost", "--limit", "10")
    assert first.out.count("$0.90") == 10
    [more] = [line for line in first.out.splitlines() if line.startswith("More: ")]
    second = traces(filled, "list", "--limit", "2", *more.removeprefix("More: ").split(), "--json").json
    assert [trace["cost"] for trace in second] == [3 * CENT, 2 * CENT]


def test_filters(filled: Folder) -> None:
    """Traces are filtered by tenant, user, agent, age and part of their name; an empty result says so."""
    by = ("list", "--json", "--limit", "100")
    assert len(traces(filled, *by, "--tenant", "big", "--user", "u-9", "--agent", "shop").json) == 10
    assert len(traces(filled, *by, "--find", "DESK", "--since", "1h").json) == 2
    none = traces(filled, "list", "--user", "nobody")
    assert (none.code, none.out) == (
        0,
        "No traces match. Drop a filter, or run `handrail traces list` to see all.\n",
    )


def test_one_trace(filled: Folder) -> None:
    """A trace is a tree with its critical path marked, and each span has its duration and own time."""
    [newest] = traces(filled, "list", "--limit", "1", "--json").json
    shown = traces(filled, "show", newest["trace_id"])
    assert shown.code == 0
    lines = [line.strip(" │├└─") for line in shown.out.splitlines()]
    assert "● orders  2.1 s" in lines
    assert "execute_tool crm  5.8 s, 0 ms itself" in lines
    assert lines[-1] == "● critical path: 8.2 s of machine time"
    document = traces(filled, "show", newest["trace_id"], "--json").json
    pieces = document["critical_path"]
    assert sum(piece["end_ns"] - piece["start_ns"] for piece in pieces) == 8_200_000_000
    assert (len(pieces), len(document["self_ns"]), document["missing"]) == (5, 7, 0)


def test_an_incomplete_trace(folder: Folder) -> None:
    """Waiting for people is reported separately, and missing parent spans are reported."""
    spans = [
        make_span("run", None, 0, 2, kind="agent"),
        make_span("people", "run", 2, 3_602, kind="wait"),
        make_span("orphan", "lost", 1, 2),
    ]
    trace = as_new_trace(spans, 10)
    database = Database.open("handrail.db", folder.path)
    database.write_now(SpanBatch(trace))
    database.close()
    shown = traces(folder, "show", trace[0].trace_id)
    assert "2.0 s of machine time, and 60.0 min waiting for people" in shown.out
    assert "incomplete: 1 parent span is missing" in shown.out
    assert "(parent missing)" in shown.out
    slow = traces(folder, "slow")
    assert "Waiting for people, not included above: people once" in slow.out


def test_a_deep_trace() -> None:
    """A chain of 5,000 spans is rendered as a tree of the same depth."""
    chain = [make_span("s0", None, 0, 1), *(make_span(f"s{n}", f"s{n - 1}", 0, 1) for n in range(1, 5_000))]
    tree, depth = render_span_tree("deep", span_tree(chain)), 0
    while tree.children:
        [tree] = tree.children
        depth += 1
    assert depth == 5_000


def test_slow(filled: Folder) -> None:
    """Steps have percentiles and shares, and look-ups that could run in parallel are named with the time saved."""
    shown = traces(filled, "slow", "--agent", "a")
    assert shown.code == 0
    row = next(line for line in shown.out.splitlines() if line.startswith("orders"))
    assert row.split()[1:3] == ["2", "0"]
    assert row.endswith("26%")
    assert "The trace would take 3.4 s instead of 8.2 s." in shown.out
    assert "and the same in 2 of them" in shown.out
    document = traces(filled, "slow", "--agent", "a", "--json").json
    assert (document["traces"], document["searched"]) == (2, 2)
    orders = next(step for step in document["steps"] if step["name"] == "orders")
    assert orders["self_ns"] == 2 * 2_100_000_000
    assert orders["p99_ns"] == pytest.approx(2.1e9, rel=0.025)
    opportunity = document["opportunities"][0]
    assert [span["name"] for span in opportunity["spans"]] == ["chat m", "orders", "tickets", "invoices"]
    assert (opportunity["trace_then_ns"], opportunity["traces"]) == (3_400_000_000, 2)


def test_nothing_to_run_in_parallel(filled: Folder) -> None:
    """A trace without parallelism to gain says so."""
    shown = traces(filled, "slow", "--tenant", "big", "--traces", "1")
    assert "(in the trace)" in shown.out
    assert "Nothing ran one after the other without need." in shown.out


def test_cost(filled: Folder) -> None:
    """The report has cost by tenant, the few traces that make up most of it, and how they differ."""
    shown = traces(filled, "cost", "--by", "tenant")
    assert shown.code == 0
    assert "9 of 54 traces (17%) make up 86% of the cost ($8.10 of $9.45)." in shown.out
    assert "- tenant big: 100% of these, 2% of the rest" in shown.out
    document = traces(filled, "cost", "--by", "user", "--json").json
    assert [(row["tenant"], row["key"]) for row in document["rows"]] == [("big", "u-9"), ("acme", "u-1")]
    assert (document["concentration"]["traces"], document["compared"]) == (9, {"expensive": 9, "rest": 45})
    names = [driver["name"] for driver in document["drivers"]]
    assert {"execute_tool search", "big", "u-9"} <= set(names)


def test_waste(filled: Folder) -> None:
    """Failed requests are waste, by step, and ungoverned spend is separate."""
    shown = traces(filled, "waste")
    assert shown.code == 0
    assert "$0.02 of $9.45 and 3.0 s of" in shown.out
    assert "Ungoverned spend" in shown.out
    document = traces(filled, "waste", "--json").json
    assert document["traces"] == 54
    assert document["waste"]["items"][0]["reason"] == "failed"
    [spend] = document["ungoverned"]
    assert (spend["agent"], spend["model"], spend["cost"]) == ("shop", "big", 3 * CENT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slow", "--since", "soon"), "'soon' is neither an age such as 90m, 24h, 7d or 4w, nor a date"),
        (("cost", "--since", "2026-13-01"), "is neither an age"),
        (("waste", "--since", "100000w"), "is neither an age"),
        (("list", "--after", "yesterday"), "is not a cursor"),
    ],
)
def test_invalid_options(folder: Folder, arguments: tuple[str, ...], message: str) -> None:
    """An invalid age, date or cursor is rejected with the expected format."""
    with pytest.raises(BadInput, match=message):
        traces(folder, *arguments)


@pytest.mark.parametrize("since", ["2026-01-31", "2026-01-31T10:00", "2026-01-31T10:00+02:00", "90m", "4w"])
def test_since(since: str) -> None:
    """An age counts back from now; a date without a zone is in UTC."""
    now = datetime(2026, 2, 1, tzinfo=UTC)
    begin = {"90m": timedelta(minutes=90), "4w": timedelta(weeks=4)}
    expected = now - begin[since] if since in begin else datetime.fromisoformat(since)
    assert parse_since(since, now) == (expected if expected.tzinfo else expected.replace(tzinfo=UTC))


@pytest.mark.parametrize(("since", "year"), [("99999w", 1970), ("0001-01-01", 1970), ("9999-12-31", 2026)])
def test_since_is_bounded(since: str, year: int) -> None:
    """A date is limited to the time from 1970 until now."""
    assert parse_since(since, datetime(2026, 2, 1, tzinfo=UTC)).year == year


@pytest.mark.parametrize("command", ["list", "show", "slow", "cost", "waste"])
def test_help_has_examples(folder: Folder, command: str) -> None:
    """The help of each command has an example."""
    assert f"handrail traces {command}" in " ".join(traces(folder, command, "--help").out.split())
