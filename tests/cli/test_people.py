"""People at the terminal: what waits for them, what they decide and what they say of a run."""

import json

import pytest

from tests.cli.terminal import Ended, Folder


def waiting(folder: Folder) -> tuple[str, str]:
    """The ids of a run that waits and of its approval."""
    ended = folder.handrail("run", "payer", "I was charged twice", "--user", "u-1", "--tenant", "acme", "--json")
    [approval] = ended.json["outcome"]["approvals"]
    return approval["run_id"], approval["approval_id"]


def paid(folder: Folder) -> list[str]:
    log = folder.path / "refunds"
    return log.read_text().split() if log.exists() else []


def code_of(ended: Ended) -> str:
    return str(json.loads(ended.err)["error"]["code"])


def test_from_the_question_to_the_refund(folder: Folder) -> None:
    """A run waits, its approval is listed and shown, mia approves, the worker pays once, and the story tells it all."""
    asked = folder.handrail("run", "payer", "I was charged twice", "--tenant", "acme")
    assert asked.code == 0
    assert "Waits for role:lead: refund {'order': '1042'}" in asked.out
    [approval] = folder.handrail("approvals", "list", "--json").json
    listed = folder.handrail("approvals", "list")
    assert "lead (mia)" in listed.out
    assert "1042" in folder.handrail("approvals", "show", approval["approval_id"]).out
    assert paid(folder) == []

    decided = folder.handrail("approvals", "approve", approval["approval_id"], "--by", "mia", "--note", "twice indeed")
    assert decided.code == 0
    assert "`handrail worker` resumes" in decided.out
    worked = folder.handrail("worker", "--once")
    assert (worked.code, paid(folder)) == (0, ["1042"])
    assert f"resume:{approval['run_id']}:1" in worked.out
    assert "Nothing was due." in folder.handrail("worker", "--once").out

    story = folder.handrail("runs", "show", approval["run_id"]).out
    for told in ("awaiting_approval", "executed", "by mia, twice indeed", "answered", "Order 1042 is refunded."):
        assert told in story
    assert len(story.splitlines()) < 40
    assert "No approvals." in folder.handrail("approvals", "list").out


def test_denied(folder: Folder) -> None:
    """What mia denies is not done, and the run is answered without it."""
    run_id, approval_id = waiting(folder)
    assert folder.handrail("approvals", "deny", approval_id[:-1], "--by", "mia").code == 0
    [done] = folder.handrail("worker", "--once", "--json").json
    assert (done["error"], paid(folder)) == (None, [])
    assert folder.handrail("runs", "show", run_id, "--json").json["run"]["status"] == "answered"


def test_who_may_not_decide(folder: Folder) -> None:
    """Somebody without the role gets exit code 2 and is told who may; nothing is decided, and mia decides once."""
    _, approval_id = waiting(folder)
    refused = folder.handrail("approvals", "approve", approval_id, "--by", "eve", "--json")
    assert (refused.code, code_of(refused)) == (2, "not_permitted")
    assert "mia" in refused.err
    assert folder.handrail("approvals", "approve", approval_id, "--by", "mia").code == 0
    again = folder.handrail("approvals", "deny", approval_id, "--by", "mia", "--json")
    assert (again.code, code_of(again)) == (2, "already_decided")


def test_a_verdict(folder: Folder) -> None:
    """A run is marked wrong with what it should have been, and shows it; the next command is named."""
    folder.handrail("run", "echo", "hello")
    [run] = folder.runs()
    marked = folder.handrail("runs", "mark", run.run_id, "--wrong", "--should", 'said="hi"', "--by", "ann")
    assert marked.code == 0
    assert f"handrail eval add echo --from-run {run.run_id}" in marked.out
    [verdict] = folder.handrail("runs", "show", run.run_id, "--json").json["verdicts"]
    assert (verdict["right"], verdict["should"], verdict["by"]) == (False, {"said": "hi"}, "ann")
    assert "wrong, says ann" in folder.handrail("runs", "show", run.run_id).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--wrong", "--should", "said"], "is not FIELD=VALUE"),
        (["--wrong", "--by", " "], "by: ' ' is not a name"),
    ],
)
def test_a_verdict_that_is_none(folder: Folder, arguments: list[str], said: str) -> None:
    """A field without a value and a person without a name are refused, and nothing is kept."""
    folder.handrail("run", "echo", "hello")
    [run] = folder.runs()
    refused = folder.handrail("runs", "mark", run.run_id, *arguments)
    assert refused.code == 2
    assert said in refused.err
    assert folder.handrail("runs", "show", run.run_id, "--json").json["verdicts"] == []


def test_a_run_that_waits_is_not_judged(folder: Folder) -> None:
    """A run that has not ended gets no verdict."""
    run_id, _ = waiting(folder)
    refused = folder.handrail("runs", "mark", run_id, "--right", "--by", "ann", "--json")
    assert (refused.code, code_of(refused)) == (2, "bad_input")


def test_spending(folder: Folder) -> None:
    """Where users and tenants stand is shown against where they stop; nothing is said where nothing was spent."""
    assert "Nothing is spent" in folder.handrail("spend").out
    folder.handrail("run", "echo", "hello", "--user", "u-1", "--tenant", "acme")
    found = {row["scope"]: row for row in folder.handrail("spend", "--json").json}
    assert (found["user"]["tenant"], found["user"]["user"], found["user"]["cutoff"]) == ("acme", "u-1", 20 * 10**9)
    assert found["tenant"]["cutoff"] is None
    shown = folder.handrail("spend").out
    assert "acme/u-1" in shown
    assert "$20.00" in shown
    assert "no ceiling" in shown


def test_a_run_that_is_refused(folder: Folder) -> None:
    """A run over its ceiling ends with exit code 1, words for its user and the arithmetic for its engineer."""
    refused = folder.handrail("run", "echo", "hello", env={"HANDRAIL_CEILINGS__RUN_INPUT_TOKENS": "1"})
    assert refused.code == 1
    assert "Refused  refused" in refused.out
    assert "more than can be dealt with" in refused.out
    assert "input tokens fits" in refused.out
