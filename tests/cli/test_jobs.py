"""`handrail jobs`: background work, its errors, and another try for it."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from handrail.cli.jobs import app
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import claim, enqueue, finish, give_up, retry_later
from handrail.kernel.errors import BadInput, NotFound

Command = Callable[..., Result]
DEAD, FAILED, DONE = (f"resume:run_01k8w5c3f9x2v7m4n6p8q0r1s{number}:1" for number in (1, 2, 3))
ERROR = "ResumeFailed: the agent's deps factory raised [red]OSError: no route to host"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The store in the directory that the commands run in."""
    store = Database.open("handrail.db", tmp_path)
    yield store
    store.close()


@pytest.fixture
def jobs(database: Database) -> Command:  # noqa: ARG001
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
        if isinstance(result.exception, Exception):
            raise result.exception
        return result

    return run


def fill(database: Database) -> None:
    """Stores a dead job, one that waits after an error, and one that is done."""
    now = SystemClock().now() - timedelta(minutes=5)
    for key, end in (
        (DEAD, lambda job: give_up(job, ERROR)),
        (FAILED, lambda job: retry_later(job, now + timedelta(hours=1), "NotFound: no agent")),
        (DONE, finish),
    ):
        database.write_now(enqueue(key.partition(":")[0], key, {"run_id": key.split(":")[1]}, now))
        [job] = database.write_now(claim(["resume"], "w", now, timedelta(minutes=1)))
        assert job is not None
        assert job.key == key
        database.write_now(end(job))


def test_an_empty_list_gives_advice(jobs: Command) -> None:
    """With an empty store the list says where jobs come from and what runs them."""
    out = jobs("list").stdout
    assert out.startswith("No jobs")
    assert "`handrail worker`" in out


def test_the_list(database: Database, jobs: Command) -> None:
    """Each job has its whole key, state, attempts and error; the list says how to requeue a dead one."""
    fill(database)
    out = jobs("list").stdout
    for part in (f"dead  {DEAD}", f"waiting  {FAILED}", f"done  {DONE}", "1 attempt", "`handrail jobs requeue KEY`"):
        assert part in out
    assert " ".join(ERROR.split()) in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert "requeue" not in jobs("list", "--state", "waiting").stdout
    [dead] = json.loads(jobs("list", "--state", "dead", "--json").stdout)
    assert (dead["key"], dead["state"], dead["error"], dead["attempts"]) == (DEAD, "dead", ERROR, 1)


def test_pages(database: Database, jobs: Command) -> None:
    """A full page names the option for the next one."""
    fill(database)
    first = jobs("list", "--limit", "2").stdout
    key = first.splitlines()[-1].removeprefix("Next page: --before ")
    following = json.loads(jobs("list", "--before", key, "--json").stdout)
    assert len(following) == 1
    assert following[0]["key"] not in first


def test_a_dead_job_is_requeued(database: Database, jobs: Command) -> None:
    """A requeued job waits again with all its attempts; one that is not dead, or unknown, is an error."""
    fill(database)
    assert jobs("requeue", DEAD).stdout.splitlines() == [f"Requeued {DEAD}. `handrail worker` runs it next."]
    [dead] = [job for job in json.loads(jobs("list", "--json").stdout) if job["key"] == DEAD]
    assert (dead["state"], dead["attempts"]) == ("waiting", 0)
    for key in (DEAD, DONE):
        with pytest.raises(BadInput, match="only dead jobs"):
            jobs("requeue", key)
    with pytest.raises(NotFound, match="`handrail jobs list`"):
        jobs("requeue", "resume:x:1")
