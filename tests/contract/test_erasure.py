"""Erasing a user's runs, approvals and feedback, on every engine."""

from datetime import timedelta
from typing import Any

import pytest

from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import decide, erase_approvals, propose
from handrail.review.feedback import Feedback, add_feedback, erase_feedback, load_feedback
from handrail.runs.fingerprint import Fingerprint, FingerprintedRequest, sha256
from handrail.runs.store import runs as runs_store
from handrail.runs.store.erasure import erase_runs, runs_of_user
from handrail.runs.store.queries import load_conversation, load_input, load_prompt, load_run
from tests.review.samples import NOW, ROLES, approval

TEMPLATE = "You answer customers."
COLUMNS = {"lease_until": NOW + runs_store.LEASE, "requests": 1, "input_tokens": 1, "output_tokens": 1}


def _run(run_id: str, rendered: str, *, user: str = "u-1", tenant: str = "acme") -> list[Any]:
    """Operations that store a running run with its prompt and messages."""
    sent = FingerprintedRequest(Fingerprint(sha256(TEMPLATE), sha256(rendered), "agent"), rendered, "{}")
    row = {
        "run_id": run_id,
        "agent": "a",
        "tenant": tenant,
        "user": user,
        "conversation_id": f"c-{run_id}",
        "trace_id": "t",
        "started_at": NOW,
        "cost": 1,
        "model": None,
        "template_hash": sha256(TEMPLATE),
        "rendered_hash": sha256(rendered),
        "agent_hash": "agent",
        **COLUMNS,
    }
    return [
        runs_store.start_run(row, {"text": "my secret"}),
        runs_store.store_definition(sent, TEMPLATE, "a", NOW),
        runs_store.store_messages(run_id, tenant, f"c-{run_id}", NOW, ["my secret"]),
    ]


def _ended(run_id: str) -> Any:
    return runs_store.append_outcome(
        runs_store.Claim(run_id), "answered", "happy", None, NOW, {"output": "my secret"}, COLUMNS
    )


async def test_an_ended_run_is_erased(database: Database) -> None:
    """An ended run is erased with its input, outcomes, messages and the prompt that only it has."""
    await database.write(*_run("run_1", "Talk to Ann."), *_run("run_2", "Talk to Bob.", user="u-2"))
    await database.write(_ended("run_1"), _ended("run_2"))
    user_runs = await database.read(runs_of_user("acme", "u-1", NOW))
    assert (user_runs.ended, user_runs.under_way) == (["run_1"], 0)
    [removed] = await database.write(erase_runs(user_runs.ended, NOW))
    assert removed == {"run_inputs": 1, "outcomes": 1, "messages": 1, "pauses": 0, "runs": 1, "prompts": 1}
    with pytest.raises(NotFound):
        await database.read(load_run(run_id="run_1", now=NOW))
    assert await database.read(load_conversation(tenant="acme", conversation_id="c-run_1")) == []
    assert await database.read(load_prompt(hash_=sha256("Talk to Ann."))) is None
    assert await database.read(load_prompt(hash_=sha256("Talk to Bob."))) == "Talk to Bob."
    assert await database.read(load_prompt(hash_=sha256(TEMPLATE))) == TEMPLATE
    assert await database.read(load_input(run_id="run_2")) == {"text": "my secret"}


async def test_a_shared_prompt_is_kept(database: Database) -> None:
    """A prompt is erased with the last run that has it, unless it is a template."""
    await database.write(*_run("run_1", "Same."), *_run("run_2", "Same."), *_run("run_3", TEMPLATE))
    await database.write(*(_ended(f"run_{number}") for number in (1, 2, 3)))
    prompts = [(await database.write(erase_runs([run], NOW)))[0]["prompts"] for run in ("run_1", "run_3", "run_2")]
    assert prompts == [0, 0, 1]


async def test_a_running_run_is_kept(database: Database) -> None:
    """A running run is kept and counted; once its lease has expired it is erased."""
    await database.write(*_run("run_1", "x"))
    user_runs = await database.read(runs_of_user("acme", "u-1", NOW))
    assert (user_runs.ended, user_runs.under_way) == ([], 1)
    assert (await database.write(erase_runs(["run_1"], NOW)))[0]["runs"] == 0
    late = NOW + runs_store.LEASE + timedelta(seconds=1)
    assert (await database.read(runs_of_user("acme", "u-1", late))).ended == ["run_1"]
    assert (await database.write(erase_runs(["run_1"], late)))[0]["runs"] == 1


async def test_a_user_of_another_tenant_is_another(database: Database) -> None:
    """The same user name in another tenant has its own runs."""
    await database.write(*_run("run_1", "x"), *_run("run_2", "x", tenant="other"), _ended("run_1"), _ended("run_2"))
    user_runs = await database.read(runs_of_user("other", "u-1", NOW))
    assert user_runs.ended == ["run_2"]


async def test_approvals_are_emptied(database: Database) -> None:
    """Approvals keep tool and decision but lose arguments and notes, and those that were not executed are withdrawn."""
    await database.write(propose([approval("apr_1"), approval("apr_2"), approval("apr_3", run_id="run_2")]))
    await database.write(decide("apr_1", "approved", "ann", ROLES, "she was angry", NOW))
    assert await database.write(erase_approvals(["run_1"])) == [2]
    first, second = await database.read(load_approvals("run_1", NOW))
    assert (first.state, first.decided_by, first.tool) == ("withdrawn", "ann", "refund")
    assert (dict(first.arguments), first.note) == ({}, None)
    assert (second.state, dict(second.arguments)) == ("withdrawn", {})
    [other] = await database.read(load_approvals("run_2", NOW))
    assert other == approval("apr_3", run_id="run_2")


async def test_feedback_is_erased(database: Database) -> None:
    """Feedback on the run is erased, and feedback on other runs is kept."""
    for number in (1, 2):
        entry = Feedback(
            feedback_id=f"v{number}",
            run_id=f"run_{number}",
            tenant="acme",
            right=False,
            expected={"reply": "my secret"},
            note="x",
            by="ann",
            at=NOW,
        )
        await database.write(add_feedback(entry))
    assert await database.write(erase_feedback(["run_1"])) == [1]
    counts = [len(await database.read(load_feedback(run_id=f"run_{number}"))) for number in (1, 2)]
    assert counts == [0, 1]
