"""`handrail traces`: lists, one trace, what is slow, what is dear, what was for nothing."""

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from handrail.cli.app import app
from handrail.cli.output import span_trees
from handrail.cli.time_ranges import moment, spread
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.kernel.money import NanoUsd
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span, Usage
from handrail.traces.store.spans import StoreSpans
from tests.cli.terminal import Ended, Folder
from tests.traces.span_builders import S, made, slow_run

CENT = 10_000_000


def traces(folder: Folder, *arguments: str) -> Ended:
    """`handrail traces` in that folder, within this process: starting one would take longer than the answer."""
    with contextlib.chdir(folder.path):
        done = CliRunner().invoke(app, ["traces", *arguments], catch_exceptions=False)
    return Ended(done.exit_code, done.stdout, done.stderr)


_numbers = count(1)


def stored(spans: list[Span], seconds_ago: int, **changed: Any) -> list[Span]:
    """The spans as a trace of their own that began so long ago."""
    trace_id, start = f"{next(_numbers):032x}", time.time_ns() - seconds_ago * S
    at = {span.span_id: f"{number:016x}" for number, span in enumerate(spans, start=1)}
    return [
        replace(
            span,
            trace_id=trace_id,
            span_id=at[span.span_id],
            parent_id=None if span.parent_id is None else at.get(span.parent_id, "f" * 16),
            start_ns=start + span.start_ns,
            end_ns=start + span.end_ns,
            **changed,
        )
        for span in spans
    ]


def slow_crm() -> list[Span]:
    """The slow CRM's run with what was said in it."""
    said: dict[str, dict[str, Any]] = {
        "first": {"messages": ["Where?"], "response": [{"part_kind": "tool-call", "args": {}}]},
        **{name: {"arguments": {"customer": "u-1077"}, "result": name} for name in ("orders", "tickets", "invoices")},
    }
    return [replace(span, payload=said.get(span.span_id)) for span in slow_run()]


def asking(cost: int, *, searches: int = 1, held: int | None = CENT, error: str | None = None) -> list[Span]:
    """A run of one model request, with so many searches."""
    return [
        made("run", None, 0, 3, kind="agent", name="invoke_agent shop", agent="shop", error_type=error),
        made(
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
        *(made(f"s{n}", "run", 1, 2, kind="tool", name="execute_tool search", agent="shop") for n in range(searches)),
    ]


@pytest.fixture(scope="module")
def filled(lasting: Folder) -> Folder:
    """A store with two slow runs, ten dear and forty cheap ones, one that failed, and one around the ceilings."""
    spans = [span for ago in (50, 40) for span in stored(slow_crm(), ago)]
    spans += [span for _ in range(10) for span in stored(asking(90 * CENT, searches=6), 300, tenant="big", user="u-9")]
    spans += [span for _ in range(40) for span in stored(asking(CENT), 200)]
    spans += stored(asking(2 * CENT, error="ModelTimeoutError"), 100)
    spans += stored(asking(3 * CENT, held=None), 90)
    database = Database.open("handrail.db", lasting.path)
    database.write_now(StoreSpans(spans))
    database.close()
    return lasting


def test_empty_answers_say_what_to_do(folder: Folder) -> None:
    """Where nothing is stored yet, each question names the command that makes something."""
    for question in ("list", "slow", "cost", "waste"):
        ended = traces(folder, question)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("No ")
        assert "`handrail demo`" in ended.out


def test_lists_by_cost(filled: Folder) -> None:
    """The dearest come first, and the next page goes on where the first one ended."""
    first = traces(filled, "list", "--sort", "cost", "--limit", "10")
    assert first.out.count("$0.90") == 10
    [more] = [line for line in first.out.splitlines() if line.startswith("More: ")]
    second = traces(filled, "list", "--limit", "2", *more.removeprefix("More: ").split(), "--json").json
    assert [trace["cost"] for trace in second] == [3 * CENT, 2 * CENT]


def test_lists_of_some(filled: Folder) -> None:
    """Traces are found by tenant, user, agent, age and a part of their name; where there are none, it says so."""
    by = ("list", "--json", "--limit", "100")
    assert len(traces(filled, *by, "--tenant", "big", "--user", "u-9", "--agent", "shop").json) == 10
    assert len(traces(filled, *by, "--find", "DESK", "--since", "1h").json) == 2
    none = traces(filled, "list", "--user", "nobody")
    assert (none.code, none.out) == (
        0,
        "No traces are like that; ask for less, or `handrail traces list` for all.\n",
    )


def test_one_trace(filled: Folder) -> None:
    """A trace is a tree whose critical path is marked, each span with its time and what it took itself."""
    [newest] = traces(filled, "list", "--limit", "1", "--json").json
    shown = traces(filled, "show", newest["trace_id"])
    assert shown.code == 0
    lines = [line.strip(" │├└─") for line in shown.out.splitlines()]
    assert "● orders  2.1 s" in lines
    assert "execute_tool crm  5.8 s, 0 ms itself" in lines
    assert lines[-1] == "● what it waited for: 8.2 s of machine time"
    found = traces(filled, "show", newest["trace_id"], "--json").json
    pieces = found["critical_path"]
    assert sum(piece["end_ns"] - piece["start_ns"] for piece in pieces) == 8_200_000_000
    assert (len(pieces), len(found["self_ns"]), found["missing"]) == (5, 7, 0)


def test_a_trace_that_is_not_whole(folder: Folder) -> None:
    """People's time stands apart, and spans that are not there are told."""
    spans = [
        made("run", None, 0, 2, kind="agent"),
        made("people", "run", 2, 3_602, kind="wait"),
        made("orphan", "lost", 1, 2),
    ]
    trace = stored(spans, 10)
    database = Database.open("handrail.db", folder.path)
    database.write_now(StoreSpans(trace))
    database.close()
    shown = traces(folder, "show", trace[0].trace_id)
    assert "2.0 s of machine time, 60.0 min waiting for people" in shown.out
    assert "not whole: 1 span is named as parents and not here" in shown.out
    assert "(its parent is missing)" in shown.out
    slow = traces(folder, "slow")
    assert "People's time, apart from this: people once" in slow.out


def test_a_deep_trace() -> None:
    """A chain of 5,000 spans is a tree as deep."""
    chain = [made("s0", None, 0, 1), *(made(f"s{n}", f"s{n - 1}", 0, 1) for n in range(1, 5_000))]
    tree, depth = span_trees("deep", span_tree(chain)), 0
    while tree.children:
        [tree] = tree.children
        depth += 1
    assert depth == 5_000


def test_what_is_slow(filled: Folder) -> None:
    """Steps have their percentiles and shares; the look-ups are named, with what they would take side by side."""
    shown = traces(filled, "slow", "--agent", "a")
    assert shown.code == 0
    row = next(line for line in shown.out.splitlines() if line.startswith("orders"))
    assert row.split()[1:3] == ["2", "0"]
    assert row.endswith("26%")
    assert "The trace would take 3.4 s instead of 8.2 s." in shown.out
    assert "and so in 2 of them" in shown.out
    found = traces(filled, "slow", "--agent", "a", "--json").json
    assert (found["looked_at"], found["searched"]) == (2, 2)
    orders = next(step for step in found["steps"] if step["name"] == "orders")
    assert orders["self_ns"] == 2 * 2_100_000_000
    assert orders["p99_ns"] == pytest.approx(2.1e9, rel=0.025)
    finding = found["findings"][0]
    assert [span["name"] for span in finding["spans"]] == ["chat m", "orders", "tickets", "invoices"]
    assert (finding["trace_then_ns"], finding["traces"]) == (3_400_000_000, 2)


def test_nothing_to_run_side_by_side(filled: Folder) -> None:
    """Where nothing is found, that is said."""
    shown = traces(filled, "slow", "--tenant", "big", "--traces", "1")
    assert "(in the trace)" in shown.out
    assert "Nothing was found that ran one after the other without needing to." in shown.out


def test_what_is_dear(filled: Folder) -> None:
    """Cost by tenant, how few traces make most of it, and what is different about them."""
    shown = traces(filled, "cost", "--by", "tenant")
    assert shown.code == 0
    assert "9 of 54 traces (17%) make 86% of the cost ($8.10 of $9.45)." in shown.out
    assert "- tenant big: 100% of them, 2% of the rest" in shown.out
    found = traces(filled, "cost", "--by", "user", "--json").json
    assert [(row["tenant"], row["key"]) for row in found["rows"]] == [("big", "u-9"), ("acme", "u-1")]
    assert (found["few"]["count"], found["compared"]) == (9, {"dear": 9, "rest": 45})
    names = [each["name"] for each in found["differences"]]
    assert {"execute_tool search", "big", "u-9"} <= set(names)


def test_what_was_for_nothing(filled: Folder) -> None:
    """Failed requests are waste, by step; spend that nobody held money for stands apart."""
    shown = traces(filled, "waste")
    assert shown.code == 0
    assert "$0.02 of $9.45 and 3.0 s of" in shown.out
    assert "Spent around every ceiling" in shown.out
    found = traces(filled, "waste", "--json").json
    assert found["looked_at"] == 54
    assert found["waste"]["items"][0]["reason"] == "failed"
    [around] = found["ungoverned"]
    assert (around["agent"], around["model"], around["cost"]) == ("shop", "big", 3 * CENT)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("slow", "--since", "soon"), "'soon' is neither an age such as 90m, 24h, 7d or 4w nor a date"),
        (("cost", "--since", "2026-13-01"), "is neither an age"),
        (("waste", "--since", "100000w"), "is neither an age"),
        (("list", "--after", "yesterday"), "is no place in a list"),
    ],
)
def test_what_cannot_be_read(folder: Folder, arguments: tuple[str, ...], says: str) -> None:
    """An age, a date or a place that is none is turned down, with what it should look like."""
    with pytest.raises(BadInput, match=says):
        traces(folder, *arguments)


@pytest.mark.parametrize("since", ["2026-01-31", "2026-01-31T10:00", "2026-01-31T10:00+02:00", "90m", "4w"])
def test_how_far_back(since: str) -> None:
    """An age counts back from now; a date is of UTC where it does not say otherwise."""
    now = datetime(2026, 2, 1, tzinfo=UTC)
    begin = {"90m": timedelta(minutes=90), "4w": timedelta(weeks=4)}
    expected = now - begin[since] if since in begin else datetime.fromisoformat(since)
    assert moment(since, now) == (expected if expected.tzinfo else expected.replace(tzinfo=UTC))


@pytest.mark.parametrize(("since", "year"), [("99999w", 1970), ("0001-01-01", 1970), ("9999-12-31", 2026)])
def test_very_far_back(since: str, year: int) -> None:
    """Time begins in 1970, where the store's does, and ends now."""
    assert moment(since, datetime(2026, 2, 1, tzinfo=UTC)).year == year


@given(st.lists(st.integers(), max_size=30), st.integers(1, 12))
def test_a_sample_is_spread(found: list[Any], most: int) -> None:
    """A sample is no larger than asked for, in order, begins with the first, and is all where all fit."""
    sample = spread(found, most)
    assert len(sample) <= most
    assert list(sample[:1]) == found[:1]
    assert len(found) > most or list(sample) == found


@pytest.mark.parametrize("command", ["list", "show", "slow", "cost", "waste"])
def test_help_has_examples(folder: Folder, command: str) -> None:
    """Each command's help shows how it is called."""
    assert f"handrail traces {command}" in " ".join(traces(folder, command, "--help").out.split())
