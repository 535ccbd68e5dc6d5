"""`handrail approvals`, as who has to decide uses it."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from handrail.cli.approvals import app
from handrail.evals.tenant import TENANT as EVALS
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted
from handrail.review.approvals.model import EXPIRES, Approval
from handrail.review.approvals.store import load_approval, propose
from tests.review.samples import approval

TOML = '[roles]\nlead = ["ann", "bob"]\n'
Command = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The store of the folder that the commands run in."""
    (tmp_path / "handrail.toml").write_text(TOML)
    opened = Database.open("handrail.db", tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def approvals(database: Database) -> Command:  # noqa: ARG001
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        if isinstance(result.exception, Exception):
            raise result.exception
        return result

    return run


def _waits(database: Database, approval_id: str = "apr_1", **changed: Any) -> None:
    now = SystemClock().now() - timedelta(hours=1)
    fields = {"proposed_at": now, "expires_at": now + EXPIRES, **changed}
    database.write_now(propose([approval(approval_id, **fields)]))


def _load(database: Database) -> Approval:
    return database.read_now(lambda conn: load_approval(conn, "apr_1"))


def test_an_empty_list_says_where_approvals_come_from(approvals: Command) -> None:
    """Where nothing waits, the list says what would wait there and which command shows the runs."""
    out = approvals("list").stdout
    assert out.startswith("No approvals")
    assert "`handrail runs list`" in out


def test_the_list_says_what_waits_for_whom(database: Database, approvals: Command) -> None:
    """A line has the id, who may decide, the agent, the call and the time that is left."""
    _waits(database)
    _waits(database, "apr_2", approver="requester")
    _waits(database, "apr_3", approver="role:owner")
    first, second, third = approvals("list").stdout.splitlines()[1:]
    for part in ("apr_1", "lead (ann, bob)", "support", 'refund(order=1042, reason="charged twice")', "70 h"):
        assert part in first
    assert "u-17 (requester)" in second
    assert "owner (nobody; see [roles] in handrail.toml)" in third


def test_the_list_hides_what_trials_propose(database: Database, approvals: Command) -> None:
    """Approvals of eval trials are listed for their tenant only."""
    _waits(database, "apr_1", tenant=EVALS)
    _waits(database, "apr_2")
    assert [each["approval_id"] for each in json.loads(approvals("list", "--json").stdout)] == ["apr_2"]
    assert [each["approval_id"] for each in json.loads(approvals("list", "--tenant", EVALS, "--json").stdout)] == [
        "apr_1"
    ]


def test_the_list_goes_by_state_and_page(database: Database, approvals: Command) -> None:
    """What waits is the default; a state, all of them, and the next page can be had."""
    for id_ in ("apr_1", "apr_2", "apr_3"):
        _waits(database, id_)
    approvals("deny", "apr_2", "--by", "ann")
    assert "apr_2" not in approvals("list").stdout
    assert "denied (decided by ann)" in approvals("list", "--state", "denied").stdout
    page = approvals("list", "--state", "all", "--limit", "2").stdout
    assert page.splitlines()[-1] == "More: --before apr_2"
    assert "apr_3" in approvals("list", "--state", "all", "--before", "apr_2").stdout


def test_a_proposal_is_shown_whole_and_harmless(database: Database, approvals: Command) -> None:
    """Every argument is on a line of its own to its end, and nothing in it reaches the terminal as a command or as
    markup."""
    long = "x" * 3_000
    odd = {"note": f"[red]\x1b[2J\u202e{long}end", "a\nb": {"deep": [1.0]}}
    _waits(database, arguments=odd)
    out = approvals("show", "apr_1").stdout
    assert f'  "note": "[red]\\u001b[2J\ufffd{long}end"\n' in out
    assert '  "a\\nb": {"deep": [1.0]}\n' in out
    assert json.loads(approvals("show", "apr_1", "--json").stdout)["arguments"] == odd


def test_an_approval_is_decided_with_a_note(database: Database, approvals: Command) -> None:
    """Approving says what was approved, by whom, and that the worker goes on; a prefix of the id is enough."""
    _waits(database)
    out = approvals("approve", "apr", "--by", "ann", "--note", "paid twice indeed").stdout
    assert out.splitlines() == [
        'Approved by ann: refund(order=1042, reason="charged twice")',
        "`handrail worker` resumes run_1.",
    ]
    found = _load(database)
    assert (found.state, found.decided_by, found.note) == ("approved", "ann", "paid twice indeed")
    shown = approvals("show", "apr_1").stdout
    assert "approved (decided by ann)" in shown
    assert "note: paid twice indeed" in shown


def test_a_decision_names_what_its_run_waits_for_still(database: Database, approvals: Command) -> None:
    """While others of the round are open, the run does not go on, and their ids are printed."""
    _waits(database)
    _waits(database, "apr_2")
    _waits(database, "apr_3", round=2)
    assert approvals("deny", "apr_1", "--by", "ann").stdout.splitlines()[-1].endswith("is decided: apr_2")


def test_the_systems_user_decides_by_default(
    database: Database, approvals: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --by it is the user of the system, who may lack the role like anybody else."""
    _waits(database)
    monkeypatch.setenv("LOGNAME", "eve")
    with pytest.raises(NotPermitted, match=r"eve may not decide it; .*ann, bob"):
        approvals("approve", "apr_1")
    monkeypatch.setenv("LOGNAME", "bob")
    assert json.loads(approvals("approve", "apr_1", "--json").stdout)["decided_by"] == "bob"


def test_what_cannot_be_decided_is_an_error(database: Database, approvals: Command) -> None:
    """An approval that is not there, and one that is decided, are errors that say what to do or what was done."""
    with pytest.raises(NotFound, match="`handrail approvals list`"):
        approvals("approve", "apr_1", "--by", "ann")
    _waits(database)
    approvals("approve", "apr_1", "--by", "ann")
    with pytest.raises(AlreadyDecided, match="approved by ann"):
        approvals("deny", "apr_1", "--by", "bob")
