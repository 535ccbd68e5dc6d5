"""The commands that show what is stored: for people, for programs, and where nothing is there yet."""

import pytest

from handrail.config.settings import Settings
from handrail.evals.eval_set.model import freeze
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.schema import REVISIONS
from handrail.runs.runtime import Runtime, use_runtime
from tests.cli import shop
from tests.cli.terminal import Folder


@pytest.fixture(scope="module")
def filled(lasting: Folder) -> Folder:
    """A folder whose set is frozen and whose store has an answered run of tenant acme and, later, a failed one."""
    freeze(lasting.path / "cases.yaml", "first", SystemClock().now().date())
    runtime = Runtime(Settings(base=lasting.path))
    with use_runtime(runtime):
        shop.echo.run_sync("hello", user="u-1", tenant="acme")
        shop.down.run_sync("hello", user="u-2", tenant="other")
    runtime.close()
    return lasting


@pytest.mark.parametrize("group", ["runs", "traces", "eval"])
def test_an_empty_list_says_what_to_do(folder: Folder, group: str) -> None:
    """Where nothing is stored yet, a list names the command that makes something."""
    ended = folder.handrail(group, "list")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("No ")
    assert "`handrail " in ended.out


def test_the_list_of_runs_as_json(filled: Folder) -> None:
    """Runs are listed newest first, with how they ended."""
    failed, answered = filled.handrail("runs", "list", "--limit", "2", "--json").json
    assert (failed["agent"], failed["status"], failed["fault"]) == ("down", "failed", "model_unavailable")
    assert (answered["agent"], answered["status"], answered["path"]) == ("echo", "answered", "happy")


def test_a_run_is_shown_with_its_question_and_its_spans(filled: Folder) -> None:
    """A run's story has its input, its outcomes and its spans; the beginning of its id is enough."""
    run = filled.runs()[-1]
    shown = filled.handrail("runs", "show", run.run_id[:-1], "--json").json
    assert (shown["run"]["run_id"], shown["input"]) == (run.run_id, "hello")
    assert [outcome["type"] for outcome in shown["outcomes"]] == ["answered"]
    assert [span["kind"] for span in shown["spans"]] == ["agent", "model"]


def test_ids_are_never_broken_in_a_table(filled: Folder) -> None:
    """Ids stay on one line, also in 80 columns: they are there to be copied."""
    narrow = {"COLUMNS": "80"}
    runs, traces = filled.handrail("runs", "list", env=narrow), filled.handrail("traces", "list", env=narrow)
    for run in filled.runs():
        assert run.run_id in runs.out
        assert run.trace_id in traces.out


def test_traces_as_json(filled: Folder) -> None:
    """A trace is found by the list's id, and has what was said where that is asked for."""
    [listed] = filled.handrail("traces", "list", "--tenant", "acme", "--json").json
    shown = filled.handrail("traces", "show", listed["trace_id"], "--content", "--json").json
    assert shown["trace"] == listed
    root = shown["spans"][0]
    assert root["name"] == "invoke_agent echo"
    assert shown["content"][root["span_id"]]["input"] == "hello"


def test_an_eval_run_from_its_score_to_its_cases(filled: Folder) -> None:
    """An eval run prints its score, is listed with it, and shows the wrong case first."""
    ran = filled.handrail("eval", "run", "echo", "--json")
    assert ran.code == 0
    report = ran.json["report"]
    assert report["score"] == {"mean": 0.5, "error": 0.5, "cases": 2}
    [listed] = filled.handrail("eval", "list", "--json").json
    assert listed["eval_run"]["eval_run_id"] == report["eval_run_id"]
    assert (listed["trials"], listed["score"]) == (2, report["score"])
    shown = filled.handrail("eval", "show", report["eval_run_id"])
    assert [line.split()[:2] for line in shown.out.splitlines()[1:3]] == [["silence", "wrong"], ["hello", "right"]]
    assert shown.out.splitlines()[-1] == "Score 50.0% ± 50.0 (2 cases)"
    assert len(filled.handrail("eval", "show", report["eval_run_id"], "--json").json["trials"]) == 2


def test_a_set_that_changed_is_not_run_before_it_is_frozen(folder: Folder) -> None:
    """An unfrozen set ends in exit code 2 and the command to freeze it; that command's JSON names the lock."""
    refused = folder.handrail("eval", "run", "echo")
    assert refused.code == 2
    assert "handrail eval freeze echo --why" in refused.err
    frozen = folder.handrail("eval", "freeze", "echo", "--why", "the first cases", "--json")
    assert frozen.code == 0
    assert frozen.json["written"] is True
    assert (folder.path / "cases.lock").read_text().count(frozen.json["hash"]) == 2


def test_an_upgrade_says_where_the_tables_stood(folder: Folder) -> None:
    """`db upgrade` makes the tables of a new store, and tells the version before and after."""
    upgraded = folder.handrail("db", "upgrade", "--json").json
    assert (upgraded["before"], upgraded["after"]) == (None, REVISIONS[-1])
    assert upgraded["store"].endswith("handrail.db")
