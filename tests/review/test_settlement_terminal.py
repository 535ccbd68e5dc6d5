"""`handrail approvals` for actions that may have happened, and approvals that nobody decided in time."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from handrail.cli.approvals import app
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import list_jobs
from handrail.kernel.errors import NotFound
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted
from handrail.review.approvals.model import DECISION_PERIOD
from handrail.review.approvals.store import begin, decide, fail, propose
from tests.review.samples import DIGEST, ROLES, approval

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
    def run(*arguments: str, columns: int = 200) -> Result:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)})
        if isinstance(result.exception, Exception):
            raise result.exception
        return result

    return run


def add_uncertain(database: Database, *ids: str, ago: timedelta = timedelta(hours=1)) -> None:
    """Stores approved actions of one run whose tool raised."""
    now = SystemClock().now()
    proposed_at = now - ago
    proposed = [approval(id_, proposed_at=proposed_at, expires_at=proposed_at + DECISION_PERIOD) for id_ in ids]
    database.write_now(propose(proposed))
    for id_ in ids:
        database.write_now(decide(id_, "approved", "ann", ROLES, "paid twice", now))
        database.write_now(begin(id_, DIGEST, now))
        database.write_now(fail(id_, "TimeoutError: no answer from [b]the bank"))


def resumptions(database: Database) -> list[str]:
    jobs = database.read_now(list_jobs(SystemClock().now(), state=None, limit=100, before=None))
    return [job.key for job in jobs if job.kind == "resume_run"]


def test_uncertain_actions_are_listed_first(database: Database, approvals: Command) -> None:
    """The list of what needs a person starts with actions that may have happened, and names the command for them."""
    now = SystemClock().now()
    times = {"proposed_at": now - timedelta(hours=2), "expires_at": now + DECISION_PERIOD}
    pending = approval("apr_old", run_id="run_2", **times)
    database.write_now(propose([pending]))
    add_uncertain(database, "apr_new")
    ids = [row["approval_id"] for row in json.loads(approvals("list", "--json").stdout)]
    assert ids == ["apr_new", "apr_old"]
    lines = approvals("list").stdout.splitlines()
    assert "needs a person: failed, may have happened" in lines[1]
    assert "pending, expires in" in lines[2]
    assert "`handrail approvals settle ID`" in lines[3]
    assert "apr_old" not in approvals("list", "--state", "uncertain").stdout
    assert "apr_new" not in approvals("list", "--state", "pending").stdout


def test_the_list_fits_in_80_columns(database: Database, approvals: Command) -> None:
    """In 80 columns no line is longer, and ids stay whole."""
    id_ = "appr_01k8w5c3f9x2v7m4n6p8q0r1s3"
    add_uncertain(database, id_)
    out = approvals("list", columns=80).stdout
    assert id_ in out
    assert max(map(len, out.splitlines())) <= 80


def test_an_overdue_approval_is_expired(database: Database, approvals: Command) -> None:
    """An approval past its time is listed and shown as expired, though no worker has looked at it."""
    proposed_at = SystemClock().now() - DECISION_PERIOD - timedelta(seconds=1)
    database.write_now(propose([approval(proposed_at=proposed_at, expires_at=proposed_at + DECISION_PERIOD)]))
    assert approvals("list").stdout.startswith("No approvals")
    assert json.loads(approvals("list", "--state", "pending", "--json").stdout) == []
    assert [row["state"] for row in json.loads(approvals("list", "--state", "all", "--json").stdout)] == ["expired"]
    assert "expired" in approvals("list", "--state", "expired").stdout
    assert json.loads(approvals("show", "apr_1", "--json").stdout)["state"] == "expired"


def test_an_uncertain_action_is_shown_with_the_way_to_settle_it(database: Database, approvals: Command) -> None:
    """The error of the tool, the idempotency key to look for and both commands are shown."""
    add_uncertain(database, "apr_1")
    out = approvals("show", "apr_1").stdout
    for part in ("needs a person", 'error: "TimeoutError: no answer from [b]the bank"', "settle apr_1 --happened"):
        assert part in out


@pytest.mark.parametrize(
    ("option", "state", "said", "shown"),
    [
        ("--happened", "executed", "It happened, says bob", "it happened"),
        (
            "--again",
            "approved",
            "It did not happen, and is executed again, says bob",
            "it did not happen; run it again",
        ),
    ],
)
def test_settled(database: Database, approvals: Command, option: str, state: str, said: str, shown: str) -> None:
    """The answer is stored with who gave it, when and how they know, beside the decision, and a job resumes the run."""
    add_uncertain(database, "apr_1")
    before = resumptions(database)
    out = approvals("settle", "apr", option, "--by", "bob", "--note", "asked the bank").stdout
    assert out.splitlines() == [
        f'{said}: refund(order=1042, reason="charged twice")',
        "`handrail worker` resumes run_1.",
    ]
    stored = json.loads(approvals("show", "apr_1", "--json").stdout)
    assert (stored["state"], stored["happened"], stored["settled_by"]) == (state, option == "--happened", "bob")
    assert (stored["reason"], stored["note"], stored["decided_by"]) == ("asked the bank", "paid twice", "ann")
    text = approvals("show", "apr_1").stdout
    assert f"by bob: {shown}" in text
    assert "reason: asked the bank" in text
    assert len(resumptions(database)) == len(before) + 1


def test_the_run_waits_for_the_last_settlement(database: Database, approvals: Command) -> None:
    """While another action of the run is uncertain, its id is printed and nothing resumes the run."""
    add_uncertain(database, "apr_1", "apr_2")
    before = resumptions(database)
    assert approvals("settle", "apr_1", "--again", "--by", "ann").stdout.splitlines()[-1].endswith("too: apr_2")
    assert resumptions(database) == before
    assert json.loads(approvals("settle", "apr_2", "--happened", "--by", "ann", "--json").stdout)["state"] == "executed"
    assert len(resumptions(database)) == len(before) + 1


def test_settlements_that_are_refused(database: Database, approvals: Command) -> None:
    """An answer is required; an unknown approval, a person without the role and a settled action are errors."""
    assert approvals("settle", "apr_1", "--by", "ann").exit_code == 2
    with pytest.raises(NotFound, match="`handrail approvals list`"):
        approvals("settle", "apr_1", "--happened", "--by", "ann")
    add_uncertain(database, "apr_1")
    with pytest.raises(NotPermitted, match=r"eve may not settle it; .*ann, bob"):
        approvals("settle", "apr_1", "--happened", "--by", "eve")
    approvals("settle", "apr_1", "--happened", "--by", "ann")
    with pytest.raises(AlreadyDecided, match="not in doubt"):
        approvals("settle", "apr_1", "--again", "--by", "ann")
