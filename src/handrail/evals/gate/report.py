"""Reports of the gate's verdict: Markdown for a pull request, JUnit XML for CI, JSON for programs, and a chart.

What users and models wrote appears in them as plain text: in Markdown, every character that could be markup is escaped.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from handrail.evals.eval_set.model import Case, EvalSet
from handrail.evals.junit import JUnitSuite, JUnitTest, junit_document
from handrail.evals.mismatches import describe_mismatches
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.errors import BadInput, MissingExtra
from handrail.kernel.text import sanitize

from .decision_rule import GateVerdict
from .gate import GateResult

_MAX_CASES = 20
_MAX_TEXT = 300
_BAR_WIDTH = 40
_MARKDOWN_UNSAFE = re.compile("[^a-zA-Z0-9 ,;\u00a0-\uffff]")


@dataclass(frozen=True)
class CaseChange:
    """A case whose score changed, from and to the mean value of its trials; `run_id` is a run that shows why."""

    case_id: str
    before: float
    after: float
    mismatch: str
    run_id: str


def failing_cases(result: GateResult, eval_set: EvalSet) -> list[CaseChange]:
    """The newly failing cases, the largest drop first; of a block without any, the cases that dropped most."""
    dropped = [change for change in _changes(result, eval_set) if change.after < change.before]
    newly = [change for change in dropped if change.case_id in result.verdict.newly_failing]
    shown = newly or ([] if result.verdict.passed else dropped)
    return sorted(shown, key=lambda change: (change.after - change.before, change.case_id))[:_MAX_CASES]


def passing_cases(result: GateResult, eval_set: EvalSet) -> list[CaseChange]:
    """The newly passing cases; the mismatch is what was wrong before."""
    changes = _changes(result, eval_set)
    return [change for change in changes if change.case_id in result.verdict.newly_passing][:_MAX_CASES]


def verdict_sentence(verdict: GateVerdict) -> str:
    """The verdict as a sentence."""
    text = str(verdict)
    return f"{text[0].upper()}{text[1:]}."


def to_json(result: GateResult) -> dict[str, Any]:
    """The result for programs: the verdict in numbers and in words, both fingerprints, the plan and the report."""
    verdict = result.verdict
    numbers = {name: float(value) if isinstance(value, Fraction) else value for name, value in asdict(verdict).items()}
    errors = {"error": verdict.error, "population_error": verdict.population_error}
    return {
        "verdict": {**numbers, **errors, "detectable": verdict.detectable_drop(verdict.margin)},
        "summary": str(verdict),
        "baseline": result.baseline,
        "agent_hash": result.agent_hash,
        "plan": result.plan,
        "distrusted": result.distrusted,
        "report": result.report,
    }


def to_markdown(
    result: GateResult, eval_set: EvalSet, chart: Path | None = None, comparison: Sequence[str] = ()
) -> str:
    """A summary for a pull request.

    Args:
        result: What the gate decided.
        eval_set: The set that it ran on.
        chart: A picture of the scores, to link; without it they are bars of text.
        comparison: Lines of Markdown about what changed, placed below the cases.
    """
    verdict = result.verdict
    lines = [
        f"## {'Passed' if verdict.passed else 'Blocked'}: {_escape(result.report.agent)}",
        "",
        _escape(verdict_sentence(verdict)),
        "",
    ]
    lines += [f"![scores](<{chart}>)", ""] if chart else ["```", *score_bars(verdict), "```", ""]
    lines += _table("Newly failing" if verdict.newly_failing else "Largest drops", failing_cases(result, eval_set))
    lines += _table("Newly passing", passing_cases(result, eval_set))
    lines += comparison
    for name, reasons in result.distrusted.items():
        text = f"Judge {name} is not trusted, so it cannot pass a change by itself: {'; '.join(reasons)}."
        lines += [_escape(text), ""]
    lines += [f"- {_escape(fact)}" for fact in comparison_facts(result)]
    return "\n".join(lines) + "\n"


def comparison_facts(result: GateResult) -> list[str]:
    """What was compared with what, one line each."""
    baseline, verdict = result.baseline, result.verdict
    same = ", the same as the baseline's" if result.agent_hash == baseline.agent_hash else ""
    created = f"{baseline.at:%Y-%m-%d}, by {baseline.by}"
    facts = [
        f"Baseline: agent {short_hash(baseline.agent_hash)}, {_trials(baseline.trials)}, {created}",
        f"Candidate: agent {short_hash(result.agent_hash)}{same}, {_trials(verdict.trials)}",
        f"Set {short_hash(baseline.set_hash)}, {verdict.cases} cases; eval run {result.report.eval_run_id}",
    ]
    if verdict.population_error is not None:
        low, high = (100 * (float(verdict.drop) + sign * 2 * verdict.population_error) for sign in (-1, 1))
        facts.append(
            f"Over all cases of this kind, not only these, the drop is between {low:.1f} and {high:.1f} points"
        )
    if result.report.errors:
        facts.append(f"{len(result.report.errors)} trials left out: their model was not available")
    if result.plan is not None:
        facts.append(str(result.plan))
    return facts


def score_bars(verdict: GateVerdict) -> list[str]:
    """Both scores as bars of text."""
    scores = {"baseline": float(verdict.baseline), "candidate": float(verdict.candidate)}
    filled = {name: round(_BAR_WIDTH * score) for name, score in scores.items()}
    return [
        f"{name:<9} {'█' * filled[name]}{'░' * (_BAR_WIDTH - filled[name])} {100 * score:.1f}%"
        for name, score in scores.items()
    ]


def to_junit(result: GateResult, eval_set: EvalSet) -> str:
    """JUnit XML: a test for the gate itself, and one for each case, which fails where the case is newly failing."""
    verdict, agent = result.verdict, result.report.agent
    mismatches = {change.case_id: change.mismatch for change in failing_cases(result, eval_set)}
    seconds = {trial.case_id: trial.duration_ns / 1e9 for trial in result.report.trials}
    tests = [JUnitTest(name="gate", seconds=0, failure=None if verdict.passed else verdict_sentence(verdict))]
    for case in eval_set.cases:
        newly_failing = case.id in verdict.newly_failing
        failure = mismatches.get(case.id) or "newly failing" if newly_failing else None
        tests.append(JUnitTest(name=case.id, seconds=seconds.get(case.id, 0), failure=failure))
    return junit_document(JUnitSuite(name=f"handrail eval gate {agent}", agent=agent, tests=tests))


def draw_chart(result: GateResult, file: Path) -> None:
    """Draws both scores, as SVG or PNG by the file's suffix.

    Raises:
        BadInput: The file has another suffix.
        MissingExtra: The packages that draw are not installed.
    """
    if file.suffix not in (".svg", ".png"):
        raise BadInput(f"--chart {file}: use a file name that ends in .svg or .png")
    try:
        import altair as alt
        import vl_convert
    except ImportError as error:
        raise MissingExtra("--chart", "server") from error
    verdict = result.verdict
    baseline, candidate = 100 * float(verdict.baseline), 100 * float(verdict.candidate)
    spread = 200 * (verdict.error or 0)
    rows = [
        {"side": "baseline", "score": baseline, "low": None, "high": None},
        {
            "side": "candidate",
            "score": candidate,
            "low": max(0, candidate - spread),
            "high": min(100, candidate + spread),
        },
    ]
    side = alt.Y("side:N", title=None)
    chart = alt.Chart({"values": rows}, width=420, height=70, title=verdict_sentence(verdict).partition(";")[0])
    colour = alt.value("#2f6f4f" if verdict.passed else "#b3413a")
    bars = chart.mark_bar(opacity=0.8).encode(
        x=alt.X("score:Q", title="score, %", scale=alt.Scale(domain=[0, 100])), y=side, color=colour
    )
    intervals = chart.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=side)
    spec = (bars + intervals).to_dict()
    if file.suffix == ".svg":
        file.write_bytes(vl_convert.vegalite_to_svg(spec).encode())
    else:
        file.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


def short_hash(fingerprint: str | None) -> str:
    """The first 12 digits of a fingerprint."""
    return fingerprint[:12] if fingerprint else "unknown (no model was reached)"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'} of each case"


def _changes(result: GateResult, eval_set: EvalSet) -> list[CaseChange]:
    changes = []
    for case in eval_set.cases:
        old = [trial for trial in result.baseline_trials if trial.case_id == case.id and trial.error is None]
        new = [trial for trial in result.report.trials if trial.case_id == case.id and trial.error is None]
        if not old or not new:
            continue
        before, after = (sum(trial.value for trial in side) / len(side) for side in (old, new))
        worst = min(new if after < before else old, key=lambda trial: (trial.value, trial.trial))
        changes.append(CaseChange(case.id, before, after, _mismatch(case, worst), worst.run_id))
    return changes


def _mismatch(case: Case, trial: Trial) -> str:
    """What a trial got wrong: the fields that the case expects, or else the first that does not hold and its note."""
    if trial.score.fields.keys() <= case.expect.keys():
        return describe_mismatches(case.expect, trial)
    wrong = (name for name, right in trial.score.fields.items() if not right)
    return next((f"{name} {trial.score.notes.get(f'{name}: why', '')}".strip() for name in wrong), "")


def _table(title: str, changes: Sequence[CaseChange]) -> list[str]:
    if not changes:
        return []
    head = [f"### {title}", "", "| case | before | now | what was wrong | run |", "| --- | --- | --- | --- | --- |"]
    rows = [
        f"| {_escape(change.case_id)} | {100 * change.before:.0f}% | {100 * change.after:.0f}% | "
        f"<code>{_escape(change.mismatch)}</code> | {_escape(change.run_id)} |"
        for change in changes
    ]
    return [*head, *rows, ""]


def _escape(text: str) -> str:
    """Any text on one line of Markdown, with every character that could be markup as an entity."""
    line = sanitize(" ".join(text.split()))
    cut = line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
    return _MARKDOWN_UNSAFE.sub(lambda match: f"&#{ord(match[0])};" if ord(match[0]) < 128 else match[0], cut)
