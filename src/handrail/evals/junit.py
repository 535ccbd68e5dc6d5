"""JUnit XML, which every CI system displays, and an eval run in it: a test for each trial."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from handrail.evals.eval_set.model import Case
from handrail.evals.store.eval_runs import EvalRunView, Trial
from handrail.kernel.text import format_json

# Characters that XML 1.0 does not allow, not even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, kw_only=True)
class JUnitTest:
    """One test. `failure` says what was wrong, `error` what prevented the test; `details` is the text below it."""

    name: str
    seconds: float
    failure: str | None = None
    error: str | None = None
    details: str = ""


@dataclass(frozen=True, kw_only=True)
class JUnitSuite:
    """Tests of one agent, which is their class name."""

    name: str
    agent: str
    tests: Sequence[JUnitTest]
    properties: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime | None = None


def junit_document(suite: JUnitSuite) -> str:
    """The suite as an XML document. Characters that XML does not allow become U+FFFD."""
    counts = {
        "tests": str(len(suite.tests)),
        "failures": str(sum(test.failure is not None for test in suite.tests)),
        "errors": str(sum(test.error is not None for test in suite.tests)),
    }
    root = Element("testsuites", counts)
    total = _seconds(sum(test.seconds for test in suite.tests))
    element = SubElement(root, "testsuite", {"name": _clean(suite.name), **counts, "time": total})
    if suite.started_at is not None:
        element.set("timestamp", suite.started_at.isoformat(timespec="seconds"))
    if suite.properties:
        properties = SubElement(element, "properties")
        for name, value in suite.properties.items():
            SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for test in suite.tests:
        names = {"classname": _clean(suite.agent), "name": _clean(test.name), "time": _seconds(test.seconds)}
        testcase = SubElement(element, "testcase", names)
        for kind, message in (("error", test.error), ("failure", test.failure)):
            if message is not None:
                SubElement(testcase, kind, {"message": _clean(message)}).text = _clean(test.details)
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def eval_run_to_junit(view: EvalRunView, trials: Sequence[Trial], cases: Iterable[Case] = ()) -> str:
    """An eval run as JUnit XML. A trial that the infrastructure failed is an error, a wrong one a failure.

    Args:
        view: The eval run.
        trials: Its trials.
        cases: The cases of the set as it was; with them, a failure says what was expected.
    """
    expected = {case.id: case.expect for case in cases}
    tests = [_test_of(trial, expected.get(trial.case_id, {})) for trial in trials]
    properties = {"eval_run": view.eval_run_id, "set": view.set_hash}
    suite = JUnitSuite(
        name=view.agent, agent=view.agent, tests=tests, properties=properties, started_at=view.started_at
    )
    return junit_document(suite)


def _test_of(trial: Trial, expected: Mapping[str, Any]) -> JUnitTest:
    name = trial.case_id if trial.trial == 1 else f"{trial.case_id} (trial {trial.trial})"
    seconds, run = trial.duration_ns / 1e9, f"run {trial.run_id}"
    if trial.error is not None:
        return JUnitTest(name=name, seconds=seconds, error=trial.error, details=run)
    if trial.score.passed:
        return JUnitTest(name=name, seconds=seconds)
    wrong = [field_name for field_name, right in trial.score.fields.items() if not right]
    details = [f"{field_name}: {_explain(field_name, trial, expected)}" for field_name in wrong]
    message = f"wrong: {', '.join(wrong)}" if wrong else f"counts {trial.value:.2f}"
    return JUnitTest(name=name, seconds=seconds, failure=message, details="\n".join([*details, run]))


def _explain(name: str, trial: Trial, expected: Mapping[str, Any]) -> str:
    """Why a field is wrong: what was expected and observed, its score, and its scorer's note."""
    reasons = []
    if name in expected:
        observed = format_json(trial.observed[name]) if name in trial.observed else f"nothing ({trial.outcome})"
        reasons.append(f"{format_json(expected[name])} expected, {observed} found")
    if name in trial.score.scores:
        reasons.append(f"score {trial.score.scores[name]:.2f}")
    if name in trial.score.notes:
        reasons.append(trial.score.notes[name])
    return "; ".join(reasons) or "does not hold"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)
