"""The commands that list and show stored runs, traces and eval runs, as text and as JSON."""

import pytest

from handrail.config.settings import Settings
from handrail.evals.eval_set.lock import freeze
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.schema import REVISIONS
from handrail.runs.runtime import Runtime, use_runtime
from tests.cli import shop
from tests.cli.terminal import Folder


@pytest.fixture(scope="module")
def filled(shared_folder: Folder) -> Folder:
    """A directory with a frozen eval set and a store with an answered run of acme and a later failed run of other."""
    freeze(shared_folder.path / "cases.yaml", "first", SystemClock().now().date())
    runtime = Runtime(Settings(base=shared_folder.path))
    with use_runtime(runtime):
        shop.echo.run_sync("hello", user="u-1", tenant="acme")
        shop.down.run_sync("hello", user="u-2", tenant="other")
    runtime.close()
    return shared_folder


@pytest.mark.parametrize("group", ["runs", "traces", "eval"])
def test_an_empty_list_gives_advice(folder: Folder, group: str) -> None:
    """With an empty store, a list names the command that fills it."""
    result = folder.handrail(group, "list")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("No ")
    assert "`handrail " in result.out


def test_the_list_of_runs_as_json(filled: Folder) -> None:
    """Runs are listed newest first, with status, path and fault."""
    failed, answered = filled.handrail("runs", "list", "--limit", "2", "--json").json
    assert (failed["agent"], failed["status"], failed["fault"]) == ("down", "failed", "model_unavailable")
    assert (answered["agent"], answered["status"], answered["path"]) == ("echo", "answered", "happy")


def test_a_run_is_shown_with_its_input_and_its_spans(filled: Folder) -> None:
    """A run is shown with its input, outcomes and spans; the beginning of its id is enough."""
    run = filled.runs()[-1]
    shown = filled.handrail("runs", "show", run.run_id[:-1], "--json").json
    assert (shown["run"]["run_id"], shown["input"]) == (run.run_id, "hello")
    assert [outcome["type"] for outcome in shown["outcomes"]] == ["answered"]
    assert [span["kind"] for span in shown["spans"]] == ["agent", "model"]


@pytest.mark.slow
def test_ids_are_never_broken_in_a_table(filled: Folder) -> None:
    """Ids stay on one line in 80 columns, so that they can be copied."""
    narrow = {"COLUMNS": "80"}
    runs, traces = filled.handrail("runs", "list", env=narrow), filled.handrail("traces", "list", env=narrow)
    for run in filled.runs():
        assert run.run_id in runs.out
        assert run.trace_id in traces.out


def test_traces_as_json(filled: Folder) -> None:
    """A listed trace is shown by its id, with `--content` including inputs and outputs."""
    [listed] = filled.handrail("traces", "list", "--tenant", "acme", "--json").json
    shown = filled.handrail("traces", "show", listed["trace_id"], "--content", "--json").json
    assert shown["trace"] == listed
    root = shown["spans"][0]
    assert root["name"] == "invoke_agent echo"
    assert shown["content"][root["span_id"]]["input"] == "hello"


@pytest.mark.slow
def test_an_eval_run_from_its_score_to_its_cases(filled: Folder) -> None:
    """An eval run prints its score, is listed with it, and shows failed cases first."""
    result = filled.handrail("eval", "run", "echo", "--json")
    assert result.code == 0
    report = result.json["report"]
    assert report["score"] == {"mean": 0.5, "error": 0.5, "cases": 2}
    [listed] = filled.handrail("eval", "list", "--json").json
    assert listed["eval_run"]["eval_run_id"] == report["eval_run_id"]
    assert (listed["trials"], listed["score"]) == (2, report["score"])
    shown = filled.handrail("eval", "show", report["eval_run_id"])
    assert [line.split()[:2] for line in shown.out.splitlines()[1:3]] == [["silence", "wrong"], ["hello", "right"]]
    assert shown.out.splitlines()[-1] == "Score 50.0% ± 50.0 (2 cases)"
    assert len(filled.handrail("eval", "show", report["eval_run_id"], "--json").json["trials"]) == 2


def test_an_unfrozen_set_is_not_run(folder: Folder) -> None:
    """An unfrozen set ends in exit code 2 and names the command that freezes it, whose JSON has the lock's hash."""
    refused = folder.handrail("eval", "run", "echo")
    assert refused.code == 2
    assert "handrail eval freeze echo --why" in refused.err
    frozen = folder.handrail("eval", "freeze", "echo", "--why", "the first cases", "--json")
    assert frozen.code == 0
    assert frozen.json["written"] is True
    assert (folder.path / "cases.lock").read_text().count(frozen.json["hash"]) == 2


def test_an_upgrade_reports_the_versions(folder: Folder) -> None:
    """`db upgrade` creates the tables of a new store, and prints the version before and after."""
    upgraded = folder.handrail("db", "upgrade", "--json").json
    assert (upgraded["before"], upgraded["after"]) == (None, REVISIONS[-1])
    assert upgraded["store"].endswith("handrail.db")
