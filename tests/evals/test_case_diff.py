"""Two eval runs side by side: the arithmetic, the order and the filters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.compare.case_diff import CHANGES, chosen, compare_trials, text_diff
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd
from tests.evals.scorer_contexts import trial

runs = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.booleans(), min_size=1, max_size=3), min_size=1)


def trials_of(run: dict[str, list[bool]]) -> list[Trial]:
    return [trial(case_id, passed, number) for case_id, found in run.items() for number, passed in enumerate(found, 1)]


@given(runs, runs)
def test_values_and_order(before: dict[str, list[bool]], after: dict[str, list[bool]]) -> None:
    """Every case of both runs has its mean on each side, and the one that fell most stands first."""
    diff = compare_trials(trials_of(before), trials_of(after))
    both = before.keys() & after.keys()
    assert {case.case_id for case in diff.cases} == both
    for case in diff.cases:
        for value, found in ((case.before, before[case.case_id]), (case.after, after[case.case_id])):
            assert value == pytest.approx(sum(found) / len(found))
    drops = [case.drop for case in diff.cases]
    assert drops == sorted(drops, reverse=True)
    assert set(diff.apart) == before.keys() ^ after.keys()


@given(runs, runs)
def test_changes(before: dict[str, list[bool]], after: dict[str, list[bool]]) -> None:
    """A case is newly failing, newly passing or the same by its means; the two trials shown tell that difference."""
    for case in compare_trials(trials_of(before), trials_of(after)).cases:
        assert ("newly-failing" in case.changes) == (case.drop > 0)
        assert ("newly-passing" in case.changes) == (case.drop < 0)
        first, second = (each.value for each in case.shown)
        assert first - second >= case.drop if case.drop >= 0 else second - first >= -case.drop


@given(runs)
def test_a_run_beside_itself(run: dict[str, list[bool]]) -> None:
    """A run beside itself has no change and two equal sides."""
    diff = compare_trials(trials_of(run), trials_of(run))
    assert diff.before == diff.after
    assert chosen(diff, ()) == ()


def test_what_else_may_change() -> None:
    """An equal score by another output and another path are changes of their own; the stored output goes before."""
    before = [trial("same", True), trial("said", True), trial("path", True), trial("hidden", True)]
    after = [
        trial("same", True),
        trial("said", True, observed={"category": "billing"}),
        trial("path", True, path="fallback"),
        trial("hidden", True, run_id="run_2"),
    ]
    diff = compare_trials(before, after, {"run_hidden_1": "Hello", "run_2": "Good morning"})
    changes = {case.case_id: set(case.changes) for case in diff.cases}
    assert changes == {
        "same": set(),
        "said": {"same-score-different-output"},
        "path": {"path-changed"},
        "hidden": {"same-score-different-output"},
    }
    assert [case.case_id for case in chosen(diff, ["path-changed"])] == ["path"]
    assert {case.case_id for case in chosen(diff, CHANGES)} == {"said", "path", "hidden"}


def test_faults_of_the_infrastructure() -> None:
    """A trial that the infrastructure failed counts for nobody; a case with no other trial is not compared."""
    before = [trial("a", True), trial("b", True)]
    after = [trial("a", True), trial("a", False, 2, error="model_timeout"), trial("b", False, error="model_timeout")]
    diff = compare_trials(before, after)
    assert [(case.case_id, case.after) for case in diff.cases] == [("a", 1.0)]
    assert (diff.apart, diff.after.errors, diff.after.trials) == (("b",), 2, 1)


def test_sides() -> None:
    """Cost is of one trial of each case, latency by trial: the smallest that half, and 95%, do not exceed."""
    durations = {n: n * 1_000 for n in range(1, 21)}
    found: list[Trial] = [trial("a", True, n, duration_ns=each, cost=NanoUsd(10 * n)) for n, each in durations.items()]
    side = compare_trials(found, found).before
    assert (side.median_ns, side.p95_ns) == (10_000, 19_000)
    assert side.cost == round(sum(10 * n for n in durations) / 20)
    assert side.score is not None
    assert side.score.cases == 1


def test_texts() -> None:
    """A prompt's diff has its changed lines between the lines around them; the same prompt has none."""
    found: Any = text_diff("be kind\nbe short", "be kind\nbe thorough")
    assert found == ("--- before", "+++ after", "@@ -1,2 +1,2 @@", " be kind", "-be short", "+be thorough")
    assert text_diff("a", "a") == ()
