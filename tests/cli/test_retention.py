"""`handrail db prune` and `handrail db forget`: what they remove and what they print."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from handrail.ceilings.ledger_queries import load_spending
from handrail.config.settings import Settings
from handrail.kernel.clock import SystemClock, unix_ns
from handrail.kernel.errors import NotFound
from handrail.review.feedback import Feedback, add_feedback, list_feedback
from handrail.runs.runtime import Runtime, use_runtime
from handrail.runs.store.queries import load_conversation, load_run
from handrail.traces.store.rollup_queries import spend_by
from handrail.traces.store.spans import SpanBatch, load_payload
from handrail.traces.store.trace_queries import top_traces
from tests.cli import shop
from tests.cli.terminal import Folder
from tests.traces.samples import span


@contextmanager
def _open_runtime(folder: Folder) -> Iterator[Runtime]:
    runtime = Runtime(Settings(base=folder.path))
    with use_runtime(runtime):
        yield runtime
    runtime.close()


@pytest.fixture
def old_traces(folder: Folder) -> Folder:
    """A folder with a store with traces from 100 and 50 days ago and from today, of two spans each."""
    now_ns = unix_ns(SystemClock().now())
    with _open_runtime(folder) as runtime:
        for days in (100, 50, 0):
            at = now_ns - days * 86_400_000_000_000 - 10**9
            runtime.database.write_now(
                SpanBatch(
                    span(name, trace_id=f"t{days}", start_ns=at, end_ns=at + 1, payload={"text": "x"})
                    for name in ("s1", "s2")
                )
            )
    return folder


def _prune(folder: Folder, *options: str) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = folder.handrail("db", "prune", "--older-than", "90d", *options, "--json").json
    return counts


@pytest.mark.slow
def test_a_dry_run_counts_what_is_removed(old_traces: Folder) -> None:
    """`--dry-run` removes nothing and prints the counts that the real command then removes."""
    counted = _prune(old_traces, "--payloads", "4w", "--dry-run")["would_remove"]
    assert counted == {"traces": 1, "spans": 2, "payloads": 4}
    assert _prune(old_traces, "--payloads", "4w")["removed"] == counted
    with _open_runtime(old_traces) as runtime:
        listed = runtime.database.read_now(top_traces(tenant=None))
        assert [trace.trace_id for trace in listed] == ["t0", "t50"]
        assert runtime.database.read_now(load_payload("t50", "s1")) is None
        assert runtime.database.read_now(load_payload("t0", "s1")) == {"text": "x"}


@pytest.mark.slow
def test_payloads_stay_with_their_spans(old_traces: Folder) -> None:
    """Without `--payloads`, a payload is removed with its trace and not before."""
    printed = old_traces.handrail("db", "prune", "--older-than", "60d").out
    assert printed == "Removed 1 traces, 2 spans and 2 payloads.\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--older-than", "soon"), "36h, 90d, 12w"),
        (("--older-than", "30d", "--payloads", "60d"), "goes with its span"),
    ],
)
def test_an_invalid_age_is_refused(folder: Folder, options: tuple[str, ...], problem: str) -> None:
    """An invalid age, or payloads that would be kept longer than their spans, exit with 2 and say why."""
    result = folder.handrail("db", "prune", *options)
    assert result.code == 2
    assert problem in result.err


@pytest.fixture
def two_users(folder: Folder) -> Folder:
    """A folder whose store has a run of u-1 and one of u-2, both of acme, with feedback on each."""
    with _open_runtime(folder) as runtime:
        for user in ("u-1", "u-2"):
            facts = shop.echo.run_sync(f"{user} says hello", user=user, tenant="acme", conversation_id=user).facts
            now = runtime.clock.now()
            entry = Feedback(
                feedback_id=f"v-{user}",
                run_id=facts.run_id,
                tenant="acme",
                right=True,
                expected=None,
                note="x",
                by="ann",
                at=now,
            )
            runtime.database.write_now(add_feedback(entry))
    return folder


def test_a_user_is_erased(two_users: Folder) -> None:
    """The user's runs, traces, messages and feedback are erased; the other user's and the ledger are unchanged."""
    mine, theirs = sorted(two_users.runs(), key=lambda run: run.user)
    with _open_runtime(two_users) as runtime:
        now, limits = runtime.clock.now(), runtime.limits
        ledger = runtime.database.read_now(load_spending(tenant="acme", now=now, limits=limits))
    removed = two_users.handrail("db", "forget", "--user", "u-1", "--tenant", "acme", "--yes", "--json").json["removed"]
    assert {name: removed[name] for name in ("runs", "run_inputs", "outcomes", "messages", "feedback", "traces")} == {
        **dict.fromkeys(("runs", "run_inputs", "outcomes", "messages", "feedback", "traces"), 1)
    }
    assert removed["spans"] == removed["payloads"] == 2
    assert two_users.runs() == [theirs]
    with _open_runtime(two_users) as runtime:
        database = runtime.database
        since: datetime = now - timedelta(days=1)
        with pytest.raises(NotFound):
            database.read_now(load_run(mine.run_id, now))
        for conversation, kept in (("u-1", 0), ("u-2", 1)):
            messages = database.read_now(load_conversation(tenant="acme", conversation_id=conversation))
            assert len(messages) == kept
        [entry] = database.read_now(list_feedback(tenant="acme", limit=9, before=None))
        assert entry.run_id == theirs.run_id
        [trace] = database.read_now(top_traces(tenant="acme"))
        assert trace.trace_id == theirs.trace_id
        assert database.read_now(load_spending(tenant="acme", now=now, limits=limits)) == ledger
        until = now + timedelta(days=1)
        rows = database.read_now(spend_by(key="user", tenant="acme", since=since, until=until))
        assert {row.key for row in rows} == {"u-1", "u-2"}


@pytest.mark.slow
def test_erasing_needs_confirmation(two_users: Folder) -> None:
    """Without a yes nothing is erased; where the command cannot ask, it requires `--yes`."""
    declined = two_users.handrail("db", "forget", "--user", "u-1", "--tenant", "acme", stdin=b"n\n")
    assert declined.code == 1
    assert "has 1 runs and 2 spans in 1 traces" in declined.out
    unconfirmed = two_users.handrail("db", "forget", "--user", "u-1", "--tenant", "acme", "--json")
    assert unconfirmed.code == 2
    assert "--yes" in unconfirmed.err
    assert len(two_users.runs()) == 2
    unknown = two_users.handrail("db", "forget", "--user", "u-1", "--tenant", "other", "--yes")
    assert unknown.out == "Nothing is stored about user u-1 of tenant other.\n"
