"""`handrail db prune` and `handrail db forget`: what they remove, and what they say of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial

import pytest

from handrail.ceilings.ledger_queries import spending
from handrail.config.settings import Settings
from handrail.kernel.clock import SystemClock, unix_ns
from handrail.kernel.errors import NotFound
from handrail.review.feedback import Verdict, give_verdict, list_verdicts
from handrail.runs.runtime import Runtime, use_runtime
from handrail.runs.store.runs import load_conversation, load_run
from handrail.traces.store.queries import spend_by, top_traces
from handrail.traces.store.spans import StoreSpans, load_payload
from tests.cli import shop
from tests.cli.terminal import Folder
from tests.traces.samples import span


@contextmanager
def _opened(folder: Folder) -> Iterator[Runtime]:
    runtime = Runtime(Settings(base=folder.path))
    with use_runtime(runtime):
        yield runtime
    runtime.close()


@pytest.fixture
def aged(folder: Folder) -> Folder:
    """A folder whose store has a trace of 100 days ago, one of 50 and one of today, of two spans each."""
    now_ns = unix_ns(SystemClock().now())
    with _opened(folder) as runtime:
        for days in (100, 50, 0):
            at = now_ns - days * 86_400_000_000_000 - 10**9
            runtime.database.write_now(
                StoreSpans(
                    span(name, trace_id=f"t{days}", start_ns=at, end_ns=at + 1, payload={"said": "x"})
                    for name in ("s1", "s2")
                )
            )
    return folder


def _prune(folder: Folder, *options: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = folder.handrail("db", "prune", "--older-than", "90d", *options, "--json").json
    return found


def test_a_dry_run_counts_what_then_goes(aged: Folder) -> None:
    """`--dry-run` removes nothing, and its figures are those of the real one."""
    counted = _prune(aged, "--payloads", "4w", "--dry-run")["would_remove"]
    assert counted == {"traces": 1, "spans": 2, "payloads": 4}
    assert _prune(aged, "--payloads", "4w")["removed"] == counted
    with _opened(aged) as runtime:
        listed = runtime.database.read_now(lambda conn: top_traces(conn, tenant=None))
        assert [trace.trace_id for trace in listed] == ["t0", "t50"]
        assert runtime.database.read_now(lambda conn: load_payload(conn, "t50", "s1")) is None
        assert runtime.database.read_now(lambda conn: load_payload(conn, "t0", "s1")) == {"said": "x"}


def test_what_was_said_stays_where_only_traces_are_old(aged: Folder) -> None:
    """Without `--payloads`, what was said goes with its trace and not before."""
    said = aged.handrail("db", "prune", "--older-than", "60d").out
    assert said == "Removed 1 traces, 2 spans and 2 payloads.\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--older-than", "soon"), "36h, 90d, 12w"),
        (("--older-than", "30d", "--payloads", "60d"), "goes with its span"),
    ],
)
def test_an_age_that_is_none_is_refused(folder: Folder, options: tuple[str, ...], why: str) -> None:
    """An age that cannot be read, or payloads that should outlive their spans, end in exit code 2 and say why."""
    ended = folder.handrail("db", "prune", *options)
    assert ended.code == 2
    assert why in ended.err


@pytest.fixture
def talked(folder: Folder) -> Folder:
    """A folder whose store has a run of u-1 and one of u-2, both of acme, with a verdict on each."""
    with _opened(folder) as runtime:
        for user in ("u-1", "u-2"):
            facts = shop.echo.run_sync(f"{user} says hello", user=user, tenant="acme", conversation_id=user).facts
            now = runtime.clock.now()
            given = Verdict(
                verdict_id=f"v-{user}",
                run_id=facts.run_id,
                tenant="acme",
                right=True,
                should=None,
                note="x",
                by="ann",
                at=now,
            )
            runtime.database.write_now(give_verdict(given))
    return folder


def test_a_user_is_forgotten(talked: Folder) -> None:
    """Runs, traces, messages and verdicts of the user are gone, the other user's and the books are as they were."""
    mine, theirs = sorted(talked.runs(), key=lambda run: run.user)
    with _opened(talked) as runtime:
        now, limits = runtime.clock.now(), runtime.limits
        books = runtime.database.read_now(lambda conn: spending(conn, tenant="acme", now=now, limits=limits))
    removed = talked.handrail("db", "forget", "--user", "u-1", "--tenant", "acme", "--yes", "--json").json["removed"]
    assert {name: removed[name] for name in ("runs", "run_inputs", "outcomes", "messages", "verdicts", "traces")} == {
        **dict.fromkeys(("runs", "run_inputs", "outcomes", "messages", "verdicts", "traces"), 1)
    }
    assert removed["spans"] == removed["payloads"] == 2
    assert talked.runs() == [theirs]
    with _opened(talked) as runtime:
        database = runtime.database
        since: datetime = now - timedelta(days=1)
        with pytest.raises(NotFound):
            database.read_now(lambda conn: load_run(conn, mine.run_id, now))
        for conversation, kept in (("u-1", 0), ("u-2", 1)):
            said = database.read_now(partial(load_conversation, tenant="acme", conversation_id=conversation))
            assert len(said) == kept
        [verdict] = database.read_now(lambda conn: list_verdicts(conn, tenant="acme", limit=9, before=None))
        assert verdict.run_id == theirs.run_id
        [trace] = database.read_now(lambda conn: top_traces(conn, tenant="acme"))
        assert trace.trace_id == theirs.trace_id
        assert database.read_now(lambda conn: spending(conn, tenant="acme", now=now, limits=limits)) == books
        until = now + timedelta(days=1)
        rows = database.read_now(lambda conn: spend_by(conn, key="user", tenant="acme", since=since, until=until))
        assert {row.key for row in rows} == {"u-1", "u-2"}


def test_forgetting_asks_first(talked: Folder) -> None:
    """It says what there is and removes nothing without a yes; where it cannot ask, it wants `--yes`."""
    asked = talked.handrail("db", "forget", "--user", "u-1", "--tenant", "acme", stdin=b"n\n")
    assert asked.code == 1
    assert "has 1 runs and 2 spans in 1 traces" in asked.out
    unasked = talked.handrail("db", "forget", "--user", "u-1", "--tenant", "acme", "--json")
    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert len(talked.runs()) == 2
    nobody = talked.handrail("db", "forget", "--user", "u-1", "--tenant", "other", "--yes")
    assert nobody.out == "Nothing is stored of user u-1 of tenant other.\n"
