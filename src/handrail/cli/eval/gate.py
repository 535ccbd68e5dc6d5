"""`handrail eval gate`: compares a changed agent with its baseline."""

import asyncio
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from handrail.cli.options import AsJson
from handrail.cli.output import console, excerpt, print_json, table
from handrail.cli.runtime import open_runtime
from handrail.evals.compare.case_diff import filter_cases
from handrail.evals.compare.comparison import compare_eval_runs, load_case_detail
from handrail.evals.compare.markdown import format_comparison
from handrail.evals.eval_set.model import EvalSet
from handrail.evals.gate import report
from handrail.evals.gate.decision_rule import Margin, absolute_margin, relative_margin
from handrail.evals.gate.gate import GateResult, run_gate
from handrail.evals.runner.eval_run import load_frozen_set
from handrail.evals.store.baseline_file import read_baseline_file
from handrail.kernel.errors import BadInput
from handrail.registry import find_eval_spec
from handrail.runs.runtime import Runtime

from .options import AgentName, CacheFile, Concurrency, RecordedFile, open_responses
from .progress import trial_progress

_DETAILED_CASES = 3
_MarginText = Annotated[
    str,
    typer.Option(
        metavar="POINTS|SHARE%", help="How far the score may drop: 3 is 3 points, 3% a share of the baseline's score."
    ),
]
_MaxTrials = Annotated[
    int | None, typer.Option(min=1, max=1_000, help="Trials of each case, at most; 1 for recorded responses.")
]
_BaselineFrom = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Compare with the baseline in this file, written by `eval baseline --write`."),
]
_MarkdownFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a summary for a pull request here.")]
_JUnitFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report here.")]
_ChartFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the scores here, as .svg or .png.")]


def gate(
    agent: AgentName,
    margin: _MarginText = "3",
    trials: _MaxTrials = None,
    baseline: _BaselineFrom = None,
    concurrency: Concurrency = 1,
    cache: CacheFile = None,
    recorded: RecordedFile = None,
    markdown: _MarkdownFile = None,
    junit: _JUnitFile = None,
    chart: _ChartFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the agent with its baseline: exit code 1 if its score dropped too far, 2 if there is no verdict.

    Examples: `handrail eval gate support-triage`, `handrail eval gate support-triage --baseline baseline.jsonl
    --recorded recorded.jsonl --trials 1`
    """
    allowed = read_margin(margin)
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        eval_set = load_frozen_set(spec)
        with trial_progress(agent, len(eval_set.cases), hidden=as_json) as advance:
            gate_run = run_gate(
                runtime,
                spec,
                margin=allowed,
                trials=trials,
                baseline_file=read_baseline_file(baseline) if baseline else None,
                concurrency=concurrency,
                responses=open_responses(cache, recorded),
                on_trial=advance,
            )
            result = asyncio.run(gate_run)
        comparison = asyncio.run(_comparison(runtime, result)) if markdown else []
    _write_reports(result, eval_set, comparison, markdown, junit, chart)
    if as_json:
        print_json(report.to_json(result))
    else:
        _show(result, eval_set)
    if not result.verdict.passed:
        raise typer.Exit(1)


def read_margin(text: str) -> Margin:
    """`3` as points, `3%` as a share of the baseline's score. Raises BadInput."""
    try:
        share = Fraction(text.strip().removesuffix("%")) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise BadInput(f"--margin {text!r}: give points from 0 to 100, such as 3, or a share of the score, such as 3%")
    return relative_margin(share) if text.strip().endswith("%") else absolute_margin(share)


def _write_reports(
    result: GateResult,
    eval_set: EvalSet,
    comparison: Sequence[str],
    markdown: Path | None,
    junit: Path | None,
    chart: Path | None,
) -> None:
    if chart is not None:
        report.draw_chart(result, chart)
    if markdown is not None:
        markdown.write_text(report.to_markdown(result, eval_set, chart, comparison), encoding="utf-8")
    if junit is not None:
        junit.write_text(report.to_junit(result, eval_set), encoding="utf-8")


async def _comparison(runtime: Runtime, result: GateResult) -> list[str]:
    """How the candidate differs from the baseline, with the cases that dropped furthest, or else changed most."""
    compared = await compare_eval_runs(runtime, result.baseline.eval_run_id, result.report.eval_run_id)
    cases = filter_cases(compared.diff, ["newly-failing"]) or filter_cases(compared.diff, [])
    return format_comparison(compared, [await load_case_detail(runtime, case) for case in cases[:_DETAILED_CASES]])


def _show(result: GateResult, eval_set: EvalSet) -> None:
    screen, verdict = console(), result.verdict
    colour = "green" if verdict.passed else "red"
    screen.print(f"[bold {colour}]{report.verdict_sentence(verdict)}[/]", soft_wrap=True)
    for name, reasons in result.distrusted.items():
        screen.print(f"[yellow]Judge {excerpt(name, 80)} is not trusted:[/] {'; '.join(reasons)}.", soft_wrap=True)
    if changes := report.failing_cases(result, eval_set):
        title = "newly failing" if verdict.newly_failing else "largest drops"
        rows = table(title, "before", "now", "what was wrong", "run")
        for change in changes:
            shares = (f"{100 * change.before:.0f}%", f"{100 * change.after:.0f}%")
            rows.add_row(change.case_id, *shares, excerpt(change.mismatch, 300), change.run_id)
        screen.print(rows)
    if verdict.newly_passing:
        screen.print(f"Newly passing: {', '.join(verdict.newly_passing)}")
    for fact in report.comparison_facts(result):
        screen.print(f"[dim]{excerpt(fact, 400)}.[/]", soft_wrap=True)
    screen.print(f"[dim]`handrail eval show {result.report.eval_run_id}` shows every case.[/]")
