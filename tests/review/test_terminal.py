"""The commands of `handrail approvals`."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from handrail.cli.approvals import app
from handrail.evals.spec import EVALS_TENANT
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted
from handrail.review.approvals.model import DECISION_PERIOD, Approval
from handrail.review.approvals.queries import load_approval
from handrail.review.approvals.store import propose
from tests.review.samples import approval

TOML = '[roles]\nlead = ["ann", "bob"]\n'
Command = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The store in the directory that the commands run in."""
    (tmp_path / "handrail.toml").write_text(TOML)
    store = Database.open("handrail.db", tmp_path)
    yield store
    store.close()


@pytest.fixture
def approvals(database: Database) -> Command:  # noqa: ARG001
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        if isinstance(result.exception, Exception):
            raise result.exception
        return result

    return run


def _propose(database: Database, approval_id: str = "apr_1", **overrides: Any) -> None:
    now = SystemClock().now() - timedelta(hours=1)
    fields = {"proposed_at": now, "expires_at": now + DECISION_PERIOD, **overrides}
    database.write_now(propose([approval(approval_id, **fields)]))


def _load(database: Database) -> Approval:
    return database.read_now(load_approval("apr_1", SystemClock().now()))


def test_an_empty_list_explains_approvals(approvals: Command) -> None:
    """An empty list explains itself and names the command that lists runs."""
    out = approvals("list").stdout
    assert out.startswith("No approvals")
    assert "`handrail runs list`" in out


def test_the_list_of_pending_approvals(database: Database, approvals: Command) -> None:
    """A row has the id, who may decide, the agent, the call and the remaining time."""
    _propose(database)
    _propose(database, "apr_2", approver="requester")
    _propose(database, "apr_3", approver="role:owner")
    first, second, third = approvals("list").stdout.splitlines()[1:]
    for part in ("apr_1", "lead (ann, bob)", "support", 'refund(order=1042, reason="charged twice")', "70 h"):
        assert part in first
    assert "u-17 (requester)" in second
    assert "owner (nobody; see [roles] in handrail.toml)" in third


def test_the_list_hides_approvals_of_trials(database: Database, approvals: Command) -> None:
    """Approvals of eval trials are listed for their own tenant only."""
    _propose(database, "apr_1", tenant=EVALS_TENANT)
    _propose(database, "apr_2")
    assert [row["approval_id"] for row in json.loads(approvals("list", "--json").stdout)] == ["apr_2"]
    assert [row["approval_id"] for row in json.loads(approvals("list", "--tenant", EVALS_TENANT, "--json").stdout)] == [
        "apr_1"
    ]


def test_the_list_by_state_and_page(database: Database, approvals: Command) -> None:
    """Pending approvals are the default; --state selects others, and --before the next page."""
    for id_ in ("apr_1", "apr_2", "apr_3"):
        _propose(database, id_)
    approvals("deny", "apr_2", "--by", "ann")
    assert "apr_2" not in approvals("list").stdout
    assert "denied (decided by ann)" in approvals("list", "--state", "denied").stdout
    page = approvals("list", "--state", "all", "--limit", "2").stdout
    assert page.splitlines()[-1] == "Next page: --before apr_2"
    assert "apr_3" in approvals("list", "--state", "all", "--before", "apr_2").stdout


def test_a_proposal_is_shown_in_full_and_sanitized(database: Database, approvals: Command) -> None:
    """Every argument is shown in full on its own line, with markup and escape sequences as plain text."""
    long = "x" * 3_000
    odd = {"note": f"[red]\x1b[2J\u202e{long}end", "a\nb": {"deep": [1.0]}}
    _propose(database, arguments=odd)
    out = approvals("show", "apr_1").stdout
    assert f'  "note": "[red]\\u001b[2J[U+202E]{long}end"\n' in out
    assert '  "a\\nb": {"deep": [1.0]}\n' in out
    assert json.loads(approvals("show", "apr_1", "--json").stdout)["arguments"] == odd


def test_an_approval_is_decided_with_a_note(database: Database, approvals: Command) -> None:
    """Approving prints the action, who approved it, and what resumes the run; a prefix of the id is enough."""
    _propose(database)
    out = approvals("approve", "apr", "--by", "ann", "--note", "paid twice indeed").stdout
    assert out.splitlines() == [
        'Approved by ann: refund(order=1042, reason="charged twice")',
        "`handrail worker` resumes run_1.",
    ]
    decided = _load(database)
    assert (decided.state, decided.decided_by, decided.note) == ("approved", "ann", "paid twice indeed")
    shown = approvals("show", "apr_1").stdout
    assert "approved (decided by ann)" in shown
    assert "note: paid twice indeed" in shown


def test_a_decision_names_pending_approvals(database: Database, approvals: Command) -> None:
    """While others of the round are pending, the run does not resume, and their ids are printed."""
    _propose(database)
    _propose(database, "apr_2")
    _propose(database, "apr_3", round=2)
    assert approvals("deny", "apr_1", "--by", "ann").stdout.splitlines()[-1].endswith("are decided too: apr_2")


def test_the_system_user_decides_by_default(
    database: Database, approvals: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --by the system's user decides, who needs the role as well."""
    _propose(database)
    monkeypatch.setenv("LOGNAME", "eve")
    with pytest.raises(NotPermitted, match=r"eve may not decide it; .*ann, bob"):
        approvals("approve", "apr_1")
    monkeypatch.setenv("LOGNAME", "bob")
    assert json.loads(approvals("approve", "apr_1", "--json").stdout)["decided_by"] == "bob"


def test_invalid_decisions(database: Database, approvals: Command) -> None:
    """Deciding an unknown approval or a decided one is an error with advice or the earlier decision."""
    with pytest.raises(NotFound, match="`handrail approvals list`"):
        approvals("approve", "apr_1", "--by", "ann")
    _propose(database)
    approvals("approve", "apr_1", "--by", "ann")
    with pytest.raises(AlreadyDecided, match="approved by ann"):
        approvals("deny", "apr_1", "--by", "bob")
