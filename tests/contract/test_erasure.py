"""What goes of a user's runs and of what people decided about them, whatever the engine."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.review.approvals.store import approvals_of, decide, forget_approvals, propose
from handrail.review.feedback import Verdict, forget_verdicts, give_verdict, verdicts_of
from handrail.runs.fingerprint import Fingerprint, Sent, sha256
from handrail.runs.store import runs as runs_store
from handrail.runs.store.erasure import forget_runs, runs_of_user
from handrail.runs.store.runs import load_conversation, load_input, load_prompt, load_run
from tests.review.samples import NOW, ROLES, approval

TEMPLATE = "You answer customers."
COLUMNS = {"lease_until_ns": unix_ns(NOW + runs_store.LEASE), "requests": 1, "input_tokens": 1, "output_tokens": 1}


def _run(run_id: str, rendered: str, *, user: str = "u-1", tenant: str = "acme") -> list[Any]:
    """Ops of a run that was given a prompt, talked, and is under way."""
    sent = Sent(Fingerprint(sha256(TEMPLATE), sha256(rendered), "agent"), rendered, "{}")
    row = {
        "run_id": run_id,
        "agent": "a",
        "tenant": tenant,
        "user_id": user,
        "conversation_id": f"c-{run_id}",
        "trace_id": "t",
        "started_ns": unix_ns(NOW),
        "cost": 1,
        "model": None,
        "template_hash": sha256(TEMPLATE),
        "rendered_hash": sha256(rendered),
        "agent_hash": "agent",
        **COLUMNS,
    }
    return [
        runs_store.start(row, {"text": "my secret"}),
        runs_store.remember(sent, TEMPLATE, "a", NOW),
        runs_store.keep_messages(run_id, tenant, f"c-{run_id}", NOW, ["my secret"]),
    ]


def _ended(run_id: str) -> Any:
    return runs_store.append_outcome(
        runs_store.Claim(run_id), "answered", "happy", None, NOW, {"output": "my secret"}, COLUMNS
    )


async def test_runs_go_with_what_was_said(database: Database) -> None:
    """An ended run goes with its input, outcomes, messages and the prompt that no other run has."""
    await database.write(*_run("run_1", "Talk to Ann."), *_run("run_2", "Talk to Bob.", user="u-2"))
    await database.write(_ended("run_1"), _ended("run_2"))
    found = await database.read(lambda conn: runs_of_user(conn, "acme", "u-1", NOW))
    assert (found.ended, found.under_way) == (["run_1"], 0)
    [gone] = await database.write(forget_runs(found.ended, NOW))
    assert gone == {"run_inputs": 1, "outcomes": 1, "messages": 1, "pauses": 0, "runs": 1, "prompts": 1}
    with pytest.raises(NotFound):
        await database.read(partial(load_run, run_id="run_1", now=NOW))
    assert await database.read(partial(load_conversation, tenant="acme", conversation_id="c-run_1")) == []
    assert await database.read(partial(load_prompt, hash_=sha256("Talk to Ann."))) is None
    assert await database.read(partial(load_prompt, hash_=sha256("Talk to Bob."))) == "Talk to Bob."
    assert await database.read(partial(load_prompt, hash_=sha256(TEMPLATE))) == TEMPLATE
    assert await database.read(partial(load_input, run_id="run_2")) == {"text": "my secret"}


async def test_a_prompt_that_others_were_given_stays(database: Database) -> None:
    """A prompt goes with the last run that was given it, and never where it is a template."""
    await database.write(*_run("run_1", "Same."), *_run("run_2", "Same."), *_run("run_3", TEMPLATE))
    await database.write(*(_ended(f"run_{number}") for number in (1, 2, 3)))
    prompts = [(await database.write(forget_runs([run], NOW)))[0]["prompts"] for run in ("run_1", "run_3", "run_2")]
    assert prompts == [0, 0, 1]


async def test_a_run_under_way_stays(database: Database) -> None:
    """A run whose process is there stays whole, and is told; once its lease is over it goes."""
    await database.write(*_run("run_1", "x"))
    found = await database.read(lambda conn: runs_of_user(conn, "acme", "u-1", NOW))
    assert (found.ended, found.under_way) == ([], 1)
    assert (await database.write(forget_runs(["run_1"], NOW)))[0]["runs"] == 0
    late = NOW + runs_store.LEASE + timedelta(seconds=1)
    assert (await database.read(lambda conn: runs_of_user(conn, "acme", "u-1", late))).ended == ["run_1"]
    assert (await database.write(forget_runs(["run_1"], late)))[0]["runs"] == 1


async def test_a_user_of_another_tenant_is_another(database: Database) -> None:
    """The same name in another tenant has runs of its own."""
    await database.write(*_run("run_1", "x"), *_run("run_2", "x", tenant="other"), _ended("run_1"), _ended("run_2"))
    found = await database.read(lambda conn: runs_of_user(conn, "other", "u-1", NOW))
    assert found.ended == ["run_2"]


async def test_approvals_are_emptied(database: Database) -> None:
    """Of an approval stay who asked for what tool and who decided; arguments and notes go, open ones are withdrawn."""
    await database.write(propose([approval("apr_1"), approval("apr_2"), approval("apr_3", run_id="run_2")]))
    await database.write(decide("apr_1", "approved", "ann", ROLES, "she was angry", NOW))
    assert await database.write(forget_approvals(["run_1"])) == [2]
    first, second = await database.read(lambda conn: approvals_of(conn, "run_1"))
    assert (first.state, first.decided_by, first.tool) == ("approved", "ann", "refund")
    assert (dict(first.arguments), first.note) == ({}, None)
    assert (second.state, dict(second.arguments)) == ("withdrawn", {})
    [other] = await database.read(lambda conn: approvals_of(conn, "run_2"))
    assert other == approval("apr_3", run_id="run_2")


async def test_verdicts_go(database: Database) -> None:
    """The verdicts on a run go, those on another stay."""
    for number in (1, 2):
        given = Verdict(
            verdict_id=f"v{number}",
            run_id=f"run_{number}",
            tenant="acme",
            right=False,
            should={"said": "my secret"},
            note="x",
            by="ann",
            at=NOW,
        )
        await database.write(give_verdict(given))
    assert await database.write(forget_verdicts(["run_1"])) == [1]
    left = [len(await database.read(partial(verdicts_of, run_id=f"run_{number}"))) for number in (1, 2)]
    assert left == [0, 1]
