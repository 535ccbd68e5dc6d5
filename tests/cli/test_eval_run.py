"""`handrail eval run` and its options."""

import json

import pytest

from handrail.evals.eval_set.lock import freeze
from handrail.kernel.clock import SystemClock
from tests.cli.terminal import Folder


def frozen(folder: Folder) -> Folder:
    freeze(folder.path / "cases.yaml", "first", SystemClock().now().date())
    return folder


def test_several_trials(folder: Folder) -> None:
    """Each case gets the requested number of trials, and the score is the mean over the cases."""
    report = (
        frozen(folder).handrail("eval", "run", "echo", "--trials", "3", "--concurrency", "4", "--json").json["report"]
    )
    assert len(report["trials"]) == 6
    assert (report["score"]["mean"], report["score"]["cases"]) == (0.5, 2)


@pytest.mark.slow
def test_recorded_responses(folder: Folder) -> None:
    """Responses are recorded in a file and replayed from it; a trial without a recorded response is an error."""
    frozen(folder).handrail("eval", "run", "echo", "--cache", "responses.jsonl")
    assert len((folder.path / "responses.jsonl").read_text().splitlines()) == 2
    again = folder.handrail("eval", "run", "echo", "--recorded", "responses.jsonl", "--json")
    assert (again.code, again.json["report"]["score"]["mean"]) == (0, 0.5)
    missing = folder.handrail("eval", "run", "echo", "--trials", "2", "--recorded", "responses.jsonl", "--json")
    assert (missing.code, json.loads(missing.err)["error"]["code"]) == (2, "not_recorded")


def test_cache_and_recorded(folder: Folder) -> None:
    """A cache and recorded responses together are refused."""
    both = frozen(folder).handrail("eval", "run", "echo", "--cache", "a", "--recorded", "b")
    assert both.code == 2
    assert "--cache and --recorded" in both.err


def test_resuming_an_unknown_eval_run(folder: Folder) -> None:
    """Resuming an unknown eval run is an error."""
    refused = frozen(folder).handrail("eval", "run", "echo", "--resume", "eval_none", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["code"]) == (2, "not_found")


def test_resuming_a_complete_eval_run(folder: Folder) -> None:
    """Resuming a complete eval run runs nothing and gives its report again."""
    first = frozen(folder).handrail("eval", "run", "echo", "--json").json["report"]
    again = folder.handrail("eval", "run", "echo", "--resume", first["eval_run_id"], "--json").json["report"]
    assert again["trials"] == first["trials"]
    assert len(folder.runs()) == 2
