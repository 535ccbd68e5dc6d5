"""An eval run as JUnit XML, which every CI shows: a test for each trial, a failure where it is wrong."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pydantic_core import to_jsonable_python

from handrail.evals.eval_set.model import Case
from handrail.evals.store.eval_runs import EvalRunView, Trial

# What XML 1.0 cannot hold, not even escaped.
_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(view: EvalRunView, trials: Sequence[Trial], cases: Iterable[Case] = ()) -> str:
    """The document, times in seconds. A trial that the infrastructure failed is an error, not a failure.

    `cases` are those of the set as it was: with them a failure says what was expected.
    """
    expected = {case.id: case.expect for case in cases}
    failed = sum(not each.verdict.passed for each in trials if each.error is None)
    faults = sum(each.error is not None for each in trials)
    counts = {"tests": str(len(trials)), "failures": str(failed), "errors": str(faults)}
    root = Element("testsuites", counts)
    took = _seconds(sum(each.duration_ns for each in trials))
    began = view.started_at.isoformat(timespec="seconds")
    suite = SubElement(root, "testsuite", {"name": _said(view.agent), **counts, "time": took, "timestamp": began})
    properties = SubElement(suite, "properties")
    for name, value in (("eval_run", view.eval_run_id), ("set", view.set_hash)):
        SubElement(properties, "property", {"name": name, "value": _said(value)})
    for each in trials:
        _add(suite, view.agent, each, expected.get(each.case_id, {}))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _add(suite: Element, agent: str, trial: Trial, expected: Mapping[str, Any]) -> None:
    name = trial.case_id if trial.trial == 1 else f"{trial.case_id} (trial {trial.trial})"
    named = {"classname": _said(agent), "name": _said(name), "time": _seconds(trial.duration_ns)}
    test = SubElement(suite, "testcase", named)
    if trial.error is not None:
        SubElement(test, "error", {"message": _said(trial.error)}).text = _said(f"run {trial.run_id}")
    elif not trial.verdict.passed:
        wrong = [name for name, right in trial.verdict.fields.items() if not right]
        lines = [f"{name}: {_why(name, trial, expected)}" for name in wrong] + [f"run {trial.run_id}"]
        message = f"wrong: {', '.join(wrong)}" if wrong else f"counts {trial.value:.2f}"
        SubElement(test, "failure", {"message": _said(message)}).text = _said("\n".join(lines))


def _why(name: str, trial: Trial, expected: Mapping[str, Any]) -> str:
    said = []
    if name in expected:
        found = _json(trial.observed[name]) if name in trial.observed else f"nothing ({trial.outcome})"
        said.append(f"{_json(expected[name])} expected, {found} found")
    if name in trial.verdict.scores:
        said.append(f"score {trial.verdict.scores[name]:.2f}")
    if name in trial.verdict.notes:
        said.append(trial.verdict.notes[name])
    return "; ".join(said) or "does not hold"


def _json(value: Any) -> str:
    return json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.3f}"


def _said(text: str) -> str:
    return _UNSAYABLE.sub("\ufffd", text)
