"""The store of runs, on every engine."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.runs.fingerprint import Fingerprint, FingerprintedRequest, sha256
from handrail.runs.store import runs as runs_store
from handrail.runs.store.queries import (
    RunView,
    existing_runs,
    last_outcomes,
    list_runs,
    load_conversation,
    load_input,
    load_outcomes,
    load_prompt,
    load_run,
)
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def progress(**overrides: Any) -> dict[str, Any]:
    defaults = {
        "lease_until": NOW + runs_store.LEASE,
        "model": "test:model",
        "requests": 1,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost": 7,
        "template_hash": None,
        "rendered_hash": None,
        "agent_hash": None,
    }
    return {**defaults, **overrides}


def started(run_id: str, *, tenant: str = "acme", agent: str = "a", input_: object = "hi") -> Any:
    row = {
        "run_id": run_id,
        "agent": agent,
        "tenant": tenant,
        "user": "u-1",
        "conversation_id": "c-1",
        "trace_id": "t-1",
        "started_at": NOW,
    }
    return runs_store.start_run({**row, **progress()}, input_)


def ended(run_id: str, type_: str = "answered", path: Any = "happy", **body: Any) -> Any:
    return runs_store.append_outcome(runs_store.Claim(run_id), type_, path, None, NOW, body, progress())


async def load(database: Database, run_id: str, tenant: str | None = None) -> RunView:
    return await database.read(load_run(run_id=run_id, now=NOW, tenant=tenant))


async def test_a_started_run(database: Database) -> None:
    """A started run is stored as running, with its input."""
    await database.write(started("run_1", input_={"text": "é\0 \U0001f600"}))
    run = await load(database, "run_1")
    assert (run.status, run.path, run.ended_at, run.duration) == ("running", None, None, None)
    assert (run.agent, run.tenant, run.user, run.conversation_id, run.trace_id) == ("a", "acme", "u-1", "c-1", "t-1")
    assert (run.requests, run.input_tokens, run.output_tokens, run.cost, run.fingerprint) == (1, 10, 5, 7, None)
    assert await database.read(load_input(run_id="run_1")) == {"text": "é\0 \U0001f600"}


async def test_a_run_is_updated(database: Database) -> None:
    """Updating a run changes only that run, and stores very large costs."""
    await database.write(started("run_1"), started("run_2"))
    hashes = {"template_hash": "t", "rendered_hash": "r", "agent_hash": "a"}
    await database.write(runs_store.update_run(runs_store.Claim("run_1"), progress(cost=2**62, requests=3, **hashes)))
    changed, same = await load(database, "run_1"), await load(database, "run_2")
    assert (changed.cost, changed.requests, changed.fingerprint) == (2**62, 3, Fingerprint("t", "r", "a"))
    assert (same.cost, same.fingerprint) == (7, None)


async def test_outcomes_are_appended(database: Database) -> None:
    """A second outcome is added after the first, which is unchanged; the run's status is that of the last."""
    await database.write(started("run_1"), started("run_2"))
    await database.write(ended("run_1", "awaiting_approval", None, n=1))
    waiting = await load(database, "run_1")
    await database.write(ended("run_1", "answered", "happy", n=2), ended("run_2", "failed", "failed", n=3))
    stored = await database.read(load_outcomes(run_id="run_1"))
    assert [(outcome.type, outcome.path, outcome.body) for outcome in stored] == [
        ("awaiting_approval", None, {"n": 1}),
        ("answered", "happy", {"n": 2}),
    ]
    run = await load(database, "run_1")
    assert (waiting.status, waiting.path) == ("awaiting_approval", None)
    assert (run.status, run.path, run.ended_at, run.duration) == ("answered", "happy", NOW, timedelta(0))
    assert (await load(database, "run_2")).status == "failed"


async def test_last_outcomes(database: Database) -> None:
    """The last outcomes of any number of runs are loaded at once; runs without one are left out."""
    await database.write(started("run_1"), ended("run_1", "awaiting_approval", None), ended("run_1", output="done"))
    await database.write(started("run_2"), started("run_3", tenant="globex"), ended("run_3", output="hi"))
    run_ids = [f"run_{number}" for number in range(2_500)]
    outcomes = await database.read(last_outcomes(run_ids=run_ids))
    assert {run_id: outcome.body["output"] for run_id, outcome in outcomes.items()} == {"run_1": "done", "run_3": "hi"}
    assert await database.read(existing_runs(run_ids=run_ids, tenant=None)) == {"run_1", "run_2", "run_3"}
    assert await database.read(existing_runs(run_ids=run_ids, tenant="acme")) == {"run_1", "run_2"}


async def test_an_outcome_is_all_or_nothing(database: Database) -> None:
    """A commit whose later part fails leaves neither an outcome nor a changed run."""

    def fail(_conn: Connection) -> None:
        raise RuntimeError("fail")

    await database.write(started("run_1"))
    with pytest.raises(RuntimeError, match="fail"):
        await database.write(ended("run_1"), fail)
    assert (await load(database, "run_1")).status == "running"
    assert await database.read(load_outcomes(run_id="run_1")) == []


async def test_interrupted(database: Database) -> None:
    """A run without an outcome counts as interrupted once its lease has expired; one with an outcome never does."""
    await database.write(started("run_1"), started("run_2"), ended("run_2"))
    over = NOW + runs_store.LEASE
    views = [await database.read(load_run(run_id="run_1", now=at)) for at in (over - timedelta(microseconds=1), over)]
    assert [(run.status, run.path, run.fault) for run in views] == [
        ("running", None, None),
        ("interrupted", "failed", "interrupted"),
    ]
    assert (await database.read(load_run(run_id="run_2", now=over))).status == "answered"


async def store_messages(
    database: Database, run_id: str, body: list[int], *, tenant: str = "acme", seconds: int = 0
) -> None:
    at = NOW + timedelta(seconds=seconds)
    await database.write(runs_store.store_messages(run_id, tenant, "c-1", at, body))


async def conversation(database: Database, tenant: str = "acme") -> Sequence[bytes]:
    bodies = await database.read(load_conversation(tenant=tenant, conversation_id="c-1"))
    return [body.replace(b",", b", ") for body in bodies]


async def test_the_order_of_a_conversation(database: Database) -> None:
    """A conversation is ordered by the ends of its runs, and by their ids if they ended together."""
    await store_messages(database, "run_2", [2], seconds=5)
    await store_messages(database, "run_3", [3], seconds=1)
    await store_messages(database, "run_1", [1], seconds=5)
    assert await conversation(database) == [b"[3]", b"[1]", b"[2]"]


async def test_conversations_belong_to_tenants(database: Database) -> None:
    """The same conversation id in another tenant is another conversation."""
    await store_messages(database, "run_1", [1])
    await store_messages(database, "run_2", [2], tenant="other")
    assert await conversation(database) == [b"[1]"]
    assert await conversation(database, "other") == [b"[2]"]
    assert await conversation(database, "nobody") == []


async def test_a_resumed_run_replaces_its_messages(database: Database) -> None:
    """A run's messages are stored once: those of a later end replace the earlier ones."""
    await store_messages(database, "run_1", [1])
    await store_messages(database, "run_1", [1, 2], seconds=9)
    assert await conversation(database) == [b"[1, 2]"]


async def test_prompts_by_hash(database: Database) -> None:
    """The prompts behind a fingerprint are stored once, with characters that no database can store escaped."""
    rendered = "sent\0\udc80"
    sent = FingerprintedRequest(Fingerprint(sha256("written"), sha256(rendered), sha256("{}")), rendered, "{}")
    store = runs_store.store_definition(sent, "written", "a", NOW)
    await asyncio.gather(*(database.write(store) for _ in range(5)))
    texts = [await database.read(load_prompt(hash_=sha256(text))) for text in ("written", rendered, "other")]
    assert texts == ["written", r"sent\x00\udc80", None]


async def test_lists(database: Database) -> None:
    """Runs are listed newest first, in pages, and can be limited to a tenant and an agent."""
    stored = [("run_1", "acme", "a"), ("run_2", "other", "a"), ("run_3", "acme", "b"), ("run_4", "acme", "a")]
    await database.write(*(started(run_id, tenant=tenant, agent=agent) for run_id, tenant, agent in stored))

    async def ids(**overrides: Any) -> list[str]:
        filters: dict[str, Any] = {"tenant": None, "agent": None, "limit": 100, "before": None, **overrides}
        return [run.run_id for run in await database.read(list_runs(now=NOW, **filters))]

    assert await ids() == ["run_4", "run_3", "run_2", "run_1"]
    assert await ids(limit=2) == ["run_4", "run_3"]
    assert await ids(limit=2, before="run_3") == ["run_2", "run_1"]
    assert await ids(tenant="acme") == ["run_4", "run_3", "run_1"]
    assert await ids(tenant="acme", agent="a", before="run_4") == ["run_1"]


async def test_prefixes(database: Database) -> None:
    """A unique prefix finds its run; SQL wildcards in it are plain characters."""
    await database.write(started("run_1a"), started("run_2b", tenant="other"))
    assert (await load(database, "run_1")).run_id == "run_1a"
    assert (await load(database, "run_", "other")).run_id == "run_2b"
    for prefix, tenant in (("run_", None), ("run_1a", "other"), ("r_n", None), ("%", None)):
        with pytest.raises(NotFound, match="handrail runs list"):
            await load(database, prefix, tenant)
