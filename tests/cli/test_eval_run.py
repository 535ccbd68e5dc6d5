"""`handrail eval run` and its options."""

import json

from handrail.evals.eval_set.model import freeze
from handrail.kernel.clock import SystemClock
from tests.cli.terminal import Folder


def frozen(folder: Folder) -> Folder:
    freeze(folder.path / "cases.yaml", "first", SystemClock().now().date())
    return folder


def test_several_trials(folder: Folder) -> None:
    """Each case is tried as often as asked for, and the score is over the cases."""
    report = frozen(folder).handrail("eval", "run", "echo", "--trials", "3", "--at-once", "4", "--json").json["report"]
    assert len(report["trials"]) == 6
    assert (report["score"]["mean"], report["score"]["cases"]) == (0.5, 2)


def test_kept_responses(folder: Folder) -> None:
    """Responses are kept in a file; with these alone the eval runs again, and another case has none."""
    frozen(folder).handrail("eval", "run", "echo", "--cache", "kept.jsonl")
    assert len((folder.path / "kept.jsonl").read_text().splitlines()) == 2
    again = folder.handrail("eval", "run", "echo", "--recorded", "kept.jsonl", "--json")
    assert (again.code, again.json["report"]["score"]["mean"]) == (0, 0.5)
    missing = folder.handrail("eval", "run", "echo", "--trials", "2", "--recorded", "kept.jsonl", "--json")
    assert (missing.code, json.loads(missing.err)["error"]["code"]) == (2, "not_recorded")


def test_one_way_of_keeping(folder: Folder) -> None:
    """A cache and recorded responses together are refused."""
    both = frozen(folder).handrail("eval", "run", "echo", "--cache", "a", "--recorded", "b")
    assert both.code == 2
    assert "--cache and --recorded" in both.err


def test_going_on_with_none(folder: Folder) -> None:
    """An eval run that is not there is not gone on with."""
    ended = frozen(folder).handrail("eval", "run", "echo", "--resume", "eval_none", "--json")
    assert (ended.code, json.loads(ended.err)["error"]["code"]) == (2, "not_found")


def test_a_whole_eval_that_is_gone_on_with(folder: Folder) -> None:
    """An eval run that is complete has nothing left to try, and gives its report again."""
    first = frozen(folder).handrail("eval", "run", "echo", "--json").json["report"]
    again = folder.handrail("eval", "run", "echo", "--resume", first["eval_run_id"], "--json").json["report"]
    assert again["trials"] == first["trials"]
    assert len(folder.runs()) == 2
