"""The comparison of two eval runs: arithmetic, order and filters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.compare.case_diff import CHANGE_KINDS, compare_trials, diff_lines, filter_cases
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd
from tests.evals.scorer_contexts import trial

runs = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.booleans(), min_size=1, max_size=3), min_size=1)


def trials_of(run: dict[str, list[bool]]) -> list[Trial]:
    return [
        trial(case_id, passed, number) for case_id, results in run.items() for number, passed in enumerate(results, 1)
    ]


@given(runs, runs)
def test_values_and_order(before: dict[str, list[bool]], after: dict[str, list[bool]]) -> None:
    """Every case of both runs has its mean on each side, and the case with the largest drop comes first."""
    diff = compare_trials(trials_of(before), trials_of(after))
    both = before.keys() & after.keys()
    assert {case.case_id for case in diff.cases} == both
    for case in diff.cases:
        for value, results in ((case.before, before[case.case_id]), (case.after, after[case.case_id])):
            assert value == pytest.approx(sum(results) / len(results))
    drops = [case.drop for case in diff.cases]
    assert drops == sorted(drops, reverse=True)
    assert set(diff.not_compared) == before.keys() ^ after.keys()


@given(runs, runs)
def test_changes(before: dict[str, list[bool]], after: dict[str, list[bool]]) -> None:
    """A case is newly failing or passing if its mean fell or rose, and its example trials differ at least as much."""
    for case in compare_trials(trials_of(before), trials_of(after)).cases:
        assert ("newly-failing" in case.changes) == (case.drop > 0)
        assert ("newly-passing" in case.changes) == (case.drop < 0)
        first, second = (example.value for example in case.example_trials)
        assert first - second >= case.drop if case.drop >= 0 else second - first >= -case.drop


@given(runs)
def test_a_run_compared_with_itself(run: dict[str, list[bool]]) -> None:
    """A run compared with itself has no changes and equal figures."""
    diff = compare_trials(trials_of(run), trials_of(run))
    assert diff.before == diff.after
    assert filter_cases(diff, ()) == ()


def test_other_changes() -> None:
    """Another output with an equal score, and another path, are changes; the stored output takes precedence."""
    before = [trial("same", True), trial("output", True), trial("path", True), trial("hidden", True)]
    after = [
        trial("same", True),
        trial("output", True, observed={"category": "billing"}),
        trial("path", True, path="fallback"),
        trial("hidden", True, run_id="run_2"),
    ]
    diff = compare_trials(before, after, {"run_hidden_1": "Hello", "run_2": "Good morning"})
    changes = {case.case_id: set(case.changes) for case in diff.cases}
    assert changes == {
        "same": set(),
        "output": {"same-score-different-output"},
        "path": {"path-changed"},
        "hidden": {"same-score-different-output"},
    }
    assert [case.case_id for case in filter_cases(diff, ["path-changed"])] == ["path"]
    assert {case.case_id for case in filter_cases(diff, CHANGE_KINDS)} == {"output", "path", "hidden"}


def test_infrastructure_faults() -> None:
    """Trials that failed because of the infrastructure are ignored; a case without other trials is not compared."""
    before = [trial("a", True), trial("b", True)]
    after = [trial("a", True), trial("a", False, 2, error="model_timeout"), trial("b", False, error="model_timeout")]
    diff = compare_trials(before, after)
    assert [(case.case_id, case.after) for case in diff.cases] == [("a", 1.0)]
    assert (diff.not_compared, diff.after.errors, diff.after.trials) == (("b",), 2, 1)


def test_figures() -> None:
    """The cost is of one trial of each case; latencies are nearest-rank percentiles over all trials."""
    durations = {n: n * 1_000 for n in range(1, 21)}
    trials = [trial("a", True, n, duration_ns=duration, cost=NanoUsd(10 * n)) for n, duration in durations.items()]
    side = compare_trials(trials, trials).before
    assert (side.median_ns, side.p95_ns) == (10_000, 19_000)
    assert side.cost == round(sum(10 * n for n in durations) / 20)
    assert side.score is not None
    assert side.score.cases == 1


def test_texts() -> None:
    """The diff of a prompt has its changed lines with context; equal prompts have none."""
    diff: Any = diff_lines("be kind\nbe short", "be kind\nbe thorough")
    assert diff == ("--- before", "+++ after", "@@ -1,2 +1,2 @@", " be kind", "-be short", "+be thorough")
    assert diff_lines("a", "a") == ()
