"""Approvals, feedback and spending at the terminal."""

import json

import pytest

from tests.cli.terminal import CommandResult, Folder


def waiting_run(folder: Folder) -> tuple[str, str]:
    """The ids of a run that waits for an approval, and of the approval."""
    result = folder.handrail("run", "payer", "I was charged twice", "--user", "u-1", "--tenant", "acme", "--json")
    [approval] = result.json["outcome"]["approvals"]
    return approval["run_id"], approval["approval_id"]


def refunds(folder: Folder) -> list[str]:
    log = folder.path / "refunds"
    return log.read_text().split() if log.exists() else []


def error_code(result: CommandResult) -> str:
    return str(json.loads(result.err)["error"]["code"])


def test_from_the_message_to_the_refund(folder: Folder) -> None:
    """A waiting run's approval is listed and approved, the worker pays once, and the run shows all of it."""
    first = folder.handrail("run", "payer", "I was charged twice", "--tenant", "acme")
    assert first.code == 0
    assert "Waiting for role:lead: refund {'order': '1042'}" in first.out
    [approval] = folder.handrail("approvals", "list", "--json").json
    listed = folder.handrail("approvals", "list")
    assert "lead (mia)" in listed.out
    assert "1042" in folder.handrail("approvals", "show", approval["approval_id"]).out
    assert refunds(folder) == []

    decided = folder.handrail("approvals", "approve", approval["approval_id"], "--by", "mia", "--note", "twice indeed")
    assert decided.code == 0
    assert "`handrail worker` resumes" in decided.out
    worked = folder.handrail("worker", "--once")
    assert (worked.code, refunds(folder)) == (0, ["1042"])
    assert f"resume:{approval['run_id']}:1" in worked.out
    assert "Nothing was due." in folder.handrail("worker", "--once").out

    shown = folder.handrail("runs", "show", approval["run_id"]).out
    for text in ("awaiting_approval", "executed", "by mia, twice indeed", "answered", "Order 1042 is refunded."):
        assert text in shown
    assert len(shown.splitlines()) < 40
    assert "No approvals." in folder.handrail("approvals", "list").out


@pytest.mark.slow
def test_denied(folder: Folder) -> None:
    """A denied action is not executed, and the run is answered without it."""
    run_id, approval_id = waiting_run(folder)
    assert folder.handrail("approvals", "deny", approval_id[:-1], "--by", "mia").code == 0
    [job] = folder.handrail("worker", "--once", "--json").json
    assert (job["error"], refunds(folder)) == (None, [])
    assert folder.handrail("runs", "show", run_id, "--json").json["run"]["status"] == "answered"


@pytest.mark.slow
def test_a_decision_without_the_role(folder: Folder) -> None:
    """Somebody without the role gets exit code 2 and the names of those who have it; a second decision is refused."""
    _, approval_id = waiting_run(folder)
    refused = folder.handrail("approvals", "approve", approval_id, "--by", "eve", "--json")
    assert (refused.code, error_code(refused)) == (2, "not_permitted")
    assert "mia" in refused.err
    assert folder.handrail("approvals", "approve", approval_id, "--by", "mia").code == 0
    again = folder.handrail("approvals", "deny", approval_id, "--by", "mia", "--json")
    assert (again.code, error_code(again)) == (2, "already_decided")


@pytest.mark.slow
def test_feedback(folder: Folder) -> None:
    """Feedback says that a run was wrong and what was expected; the run shows it, and the next command is named."""
    folder.handrail("run", "echo", "hello")
    [run] = folder.runs()
    given = folder.handrail("runs", "feedback", run.run_id, "--wrong", "--expected", 'reply="hi"', "--by", "ann")
    assert given.code == 0
    assert f"handrail eval add echo --from-run {run.run_id}" in given.out
    [entry] = folder.handrail("runs", "show", run.run_id, "--json").json["feedback"]
    assert (entry["right"], entry["expected"], entry["by"]) == (False, {"reply": "hi"}, "ann")
    assert "wrong, by ann" in folder.handrail("runs", "show", run.run_id).out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--wrong", "--expected", "reply"], "is not FIELD=VALUE"),
        (["--wrong", "--by", " "], "by: ' ' is not a valid name"),
    ],
)
@pytest.mark.slow
def test_invalid_feedback(folder: Folder, arguments: list[str], problem: str) -> None:
    """A field without a value and a person without a name are refused, and nothing is stored."""
    folder.handrail("run", "echo", "hello")
    [run] = folder.runs()
    refused = folder.handrail("runs", "feedback", run.run_id, *arguments)
    assert refused.code == 2
    assert problem in refused.err
    assert folder.handrail("runs", "show", run.run_id, "--json").json["feedback"] == []


def test_no_feedback_on_a_waiting_run(folder: Folder) -> None:
    """A run that has not ended takes no feedback."""
    run_id, _ = waiting_run(folder)
    refused = folder.handrail("runs", "feedback", run_id, "--right", "--by", "ann", "--json")
    assert (refused.code, error_code(refused)) == (2, "bad_input")


@pytest.mark.slow
def test_spending(folder: Folder) -> None:
    """Spending of users and tenants is listed with their ceilings; an empty list says that nothing was spent."""
    assert "Nothing was spent" in folder.handrail("spend").out
    folder.handrail("run", "echo", "hello", "--user", "u-1", "--tenant", "acme")
    balances = {row["scope"]: row for row in folder.handrail("spend", "--json").json}
    assert (balances["user"]["tenant"], balances["user"]["user"], balances["user"]["cutoff"]) == (
        "acme",
        "u-1",
        20 * 10**9,
    )
    assert balances["tenant"]["cutoff"] is None
    shown = folder.handrail("spend").out
    assert "acme/u-1" in shown
    assert "$20.00" in shown
    assert "no ceiling" in shown


def test_a_refused_run(folder: Folder) -> None:
    """A run over its ceiling ends with exit code 1, a message for its user and the arithmetic of the refusal."""
    refused = folder.handrail("run", "echo", "hello", env={"HANDRAIL_CEILINGS__RUN_INPUT_TOKENS": "1"})
    assert refused.code == 1
    assert "Refused  refused" in refused.out
    assert "too large to handle at once" in refused.out
    assert "input tokens left" in refused.out
