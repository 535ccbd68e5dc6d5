"""What the store of runs promises, whatever the engine."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.runs.fingerprint import Fingerprint, Sent, sha256
from handrail.runs.store import runs as runs_store
from handrail.runs.store.runs import (
    RunView,
    known_runs,
    last_outcomes,
    list_runs,
    load_input,
    load_outcomes,
    load_prompt,
    load_run,
)
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def standing(**changed: Any) -> dict[str, Any]:
    known = {
        "lease_until_ns": unix_ns(NOW + runs_store.LEASE),
        "model": "test:model",
        "requests": 1,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost": 7,
        "template_hash": None,
        "rendered_hash": None,
        "agent_hash": None,
    }
    return {**known, **changed}


def started(run_id: str, *, tenant: str = "acme", agent: str = "a", asked: object = "hi") -> Any:
    row = {
        "run_id": run_id,
        "agent": agent,
        "tenant": tenant,
        "user_id": "u-1",
        "conversation_id": "c-1",
        "trace_id": "t-1",
        "started_ns": unix_ns(NOW),
    }
    return runs_store.start({**row, **standing()}, asked)


def ended(run_id: str, type_: str = "answered", path: Any = "happy", **body: Any) -> Any:
    return runs_store.append_outcome(runs_store.Claim(run_id), type_, path, None, NOW, body, standing())


async def load(database: Database, run_id: str, tenant: str | None = None) -> RunView:
    return await database.read(partial(load_run, run_id=run_id, now=NOW, tenant=tenant))


async def test_a_run_comes_back(database: Database) -> None:
    """A run that began is there as running, with what it was asked."""
    await database.write(started("run_1", asked={"text": "é\0 \U0001f600"}))
    run = await load(database, "run_1")
    assert (run.status, run.path, run.ended_at, run.took) == ("running", None, None, None)
    assert (run.agent, run.tenant, run.user, run.conversation_id, run.trace_id) == ("a", "acme", "u-1", "c-1", "t-1")
    assert (run.requests, run.input_tokens, run.output_tokens, run.cost, run.fingerprint) == (1, 10, 5, 7, None)
    assert await database.read(partial(load_input, run_id="run_1")) == {"text": "é\0 \U0001f600"}


async def test_a_run_goes_on(database: Database) -> None:
    """Bringing a run up to date changes that run alone, and holds the largest costs."""
    await database.write(started("run_1"), started("run_2"))
    hashes = {"template_hash": "t", "rendered_hash": "r", "agent_hash": "a"}
    await database.write(runs_store.advance(runs_store.Claim("run_1"), standing(cost=2**62, requests=3, **hashes)))
    changed, same = await load(database, "run_1"), await load(database, "run_2")
    assert (changed.cost, changed.requests, changed.fingerprint) == (2**62, 3, Fingerprint("t", "r", "a"))
    assert (same.cost, same.fingerprint) == (7, None)


async def test_outcomes_are_appended(database: Database) -> None:
    """A second outcome is added after the first, which stays as it was; the run stands at the last."""
    await database.write(started("run_1"), started("run_2"))
    await database.write(ended("run_1", "awaiting_approval", None, n=1))
    waiting = await load(database, "run_1")
    await database.write(ended("run_1", "answered", "happy", n=2), ended("run_2", "failed", "failed", n=3))
    found = await database.read(partial(load_outcomes, run_id="run_1"))
    assert [(each.type, each.path, each.body) for each in found] == [
        ("awaiting_approval", None, {"n": 1}),
        ("answered", "happy", {"n": 2}),
    ]
    run = await load(database, "run_1")
    assert (waiting.status, waiting.path) == ("awaiting_approval", None)
    assert (run.status, run.path, run.ended_at, run.took) == ("answered", "happy", NOW, timedelta(0))
    assert (await load(database, "run_2")).status == "failed"


async def test_how_many_runs_stood_last(database: Database) -> None:
    """The last outcome of each run that has one, in one go, however many are asked for; unknown ones are left out."""
    await database.write(started("run_1"), ended("run_1", "awaiting_approval", None), ended("run_1", output="done"))
    await database.write(started("run_2"), started("run_3", tenant="globex"), ended("run_3", output="hi"))
    asked = [f"run_{number}" for number in range(2_500)]
    found = await database.read(partial(last_outcomes, run_ids=asked))
    assert {run_id: outcome.body["output"] for run_id, outcome in found.items()} == {"run_1": "done", "run_3": "hi"}
    assert await database.read(partial(known_runs, run_ids=asked, tenant=None)) == {"run_1", "run_2", "run_3"}
    assert await database.read(partial(known_runs, run_ids=asked, tenant="acme")) == {"run_1", "run_2"}


async def test_an_outcome_is_all_or_nothing(database: Database) -> None:
    """A commit whose later part fails leaves neither an outcome nor a changed run."""

    def boom(_conn: Connection) -> None:
        raise RuntimeError("boom")

    await database.write(started("run_1"))
    with pytest.raises(RuntimeError, match="boom"):
        await database.write(ended("run_1"), boom)
    assert (await load(database, "run_1")).status == "running"
    assert await database.read(partial(load_outcomes, run_id="run_1")) == []


async def test_interrupted(database: Database) -> None:
    """A run without an outcome counts as interrupted from the moment its lease is over; one with an outcome never."""
    await database.write(started("run_1"), started("run_2"), ended("run_2"))
    over = NOW + runs_store.LEASE
    seen = [
        await database.read(partial(load_run, run_id="run_1", now=at))
        for at in (over - timedelta(microseconds=1), over)
    ]
    assert [(run.status, run.path, run.fault) for run in seen] == [
        ("running", None, None),
        ("interrupted", "failed", "interrupted"),
    ]
    assert (await database.read(partial(load_run, run_id="run_2", now=over))).status == "answered"


async def keep(database: Database, run_id: str, body: list[int], *, tenant: str = "acme", seconds: int = 0) -> None:
    at = NOW + timedelta(seconds=seconds)
    await database.write(runs_store.keep_messages(run_id, tenant, "c-1", at, body))


async def conversation(database: Database, tenant: str = "acme") -> Sequence[bytes]:
    found = await database.read(partial(runs_store.load_conversation, tenant=tenant, conversation_id="c-1"))
    return [body.replace(b",", b", ") for body in found]


async def test_the_order_of_a_conversation(database: Database) -> None:
    """A conversation is in the order its runs ended, and in that of their ids where they ended together."""
    await keep(database, "run_2", [2], seconds=5)
    await keep(database, "run_3", [3], seconds=1)
    await keep(database, "run_1", [1], seconds=5)
    assert await conversation(database) == [b"[3]", b"[1]", b"[2]"]


async def test_a_conversation_is_the_tenants(database: Database) -> None:
    """Another tenant's conversation of the same name is another one."""
    await keep(database, "run_1", [1])
    await keep(database, "run_2", [2], tenant="other")
    assert await conversation(database) == [b"[1]"]
    assert await conversation(database, "other") == [b"[2]"]
    assert await conversation(database, "nobody") == []


async def test_a_resumed_run_says_it_anew(database: Database) -> None:
    """What a run said is kept once: a later ending of the same run takes the place of the earlier."""
    await keep(database, "run_1", [1])
    await keep(database, "run_1", [1, 2], seconds=9)
    assert await conversation(database) == [b"[1, 2]"]


async def test_texts_behind_hashes(database: Database) -> None:
    """The texts behind a fingerprint are kept once, whoever brings them, also with what no database holds."""
    rendered = "sent\0\udc80"
    sent = Sent(Fingerprint(sha256("written"), sha256(rendered), sha256("{}")), rendered, "{}")
    remember = runs_store.remember(sent, "written", "a", NOW)
    await asyncio.gather(*(database.write(remember) for _ in range(5)))
    texts = [await database.read(partial(load_prompt, hash_=sha256(text))) for text in ("written", rendered, "other")]
    assert texts == ["written", r"sent\x00\udc80", None]


async def test_lists(database: Database) -> None:
    """Runs are listed newest first, page by page, of one tenant and one agent where asked."""
    made = [("run_1", "acme", "a"), ("run_2", "other", "a"), ("run_3", "acme", "b"), ("run_4", "acme", "a")]
    await database.write(*(started(run_id, tenant=tenant, agent=agent) for run_id, tenant, agent in made))

    async def ids(**asked: Any) -> list[str]:
        where: dict[str, Any] = {"tenant": None, "agent": None, "limit": 100, "before": None, **asked}
        return [run.run_id for run in await database.read(partial(list_runs, now=NOW, **where))]

    assert await ids() == ["run_4", "run_3", "run_2", "run_1"]
    assert await ids(limit=2) == ["run_4", "run_3"]
    assert await ids(limit=2, before="run_3") == ["run_2", "run_1"]
    assert await ids(tenant="acme") == ["run_4", "run_3", "run_1"]
    assert await ids(tenant="acme", agent="a", before="run_4") == ["run_1"]


async def test_prefixes(database: Database) -> None:
    """A prefix finds the one run that has it; wildcards of SQL are plain characters in it."""
    await database.write(started("run_1a"), started("run_2b", tenant="other"))
    assert (await load(database, "run_1")).run_id == "run_1a"
    assert (await load(database, "run_", "other")).run_id == "run_2b"
    for prefix, tenant in (("run_", None), ("run_1a", "other"), ("r_n", None), ("%", None)):
        with pytest.raises(NotFound, match="handrail runs list"):
            await load(database, prefix, tenant)
