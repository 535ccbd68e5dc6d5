"""`handrail eval diff`: two eval runs compared case by case, the worst first."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from handrail.cli.options import AsJson
from handrail.cli.output import console, excerpt, print_json, table
from handrail.cli.runtime import open_runtime
from handrail.evals.compare.alignment import Alignment, StepPair, TextPiece
from handrail.evals.compare.case_diff import CHANGE_KINDS, CaseDiff, ChangeKind, EvalRunStats, filter_cases
from handrail.evals.compare.comparison import CaseDetail, EvalRunComparison, compare_eval_runs, load_case_detail
from handrail.evals.compare.markdown import format_latency, format_step
from handrail.kernel.money import format_usd
from handrail.kernel.text import sanitize
from handrail.runs.runtime import Runtime

_STYLES = {" ": "", "-": "red", "+": "green"}
_MAX_SAME_STEPS = 3
_MAX_LINES = 60
_CONTEXT_LENGTH = 120


def diff(
    before: Annotated[str, typer.Argument(help="An eval run's id, or `baseline`.")] = "baseline",
    after: Annotated[str, typer.Argument(help="An eval run's id, or `newest`.")] = "newest",
    agent: Annotated[str | None, typer.Option(help="The agent whose eval runs to compare.")] = None,
    newly_failing: Annotated[bool, typer.Option("--newly-failing", help="Only cases that score lower.")] = False,
    newly_passing: Annotated[bool, typer.Option("--newly-passing", help="Only cases that score higher.")] = False,
    same_score: Annotated[
        bool, typer.Option("--same-score-different-output", help="Only cases with the same score and another output.")
    ] = False,
    path_changed: Annotated[
        bool, typer.Option("--path-changed", help="Only cases that ended on another path.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="How many cases to show in full.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Compare two eval runs: score, cost, latency and prompt, then each changed case, the worst first.

    Without a filter, every case with a change is shown; several filters add up.

    Example: `handrail eval diff baseline newest --agent support-triage --newly-failing`
    """
    flags = (newly_failing, newly_passing, same_score, path_changed)
    kinds = [kind for kind, flag in zip(CHANGE_KINDS, flags, strict=True) if flag]
    with open_runtime() as runtime:
        comparison, details = asyncio.run(_load(runtime, before, after, agent, kinds, limit))
    cases = filter_cases(comparison.diff, kinds)
    if as_json:
        print_json({"comparison": comparison, "cases": cases, "details": details})
        return
    screen = console()
    _show_stats(screen, comparison)
    _show_prompt(screen, comparison)
    _show_counts(screen, comparison)
    for detail in details:
        _show_case(screen, detail)
    if len(cases) > len(details):
        screen.print(f"\n[dim]{len(cases) - len(details)} more cases: --limit {len(cases)} shows them all.[/]")


async def _load(
    runtime: Runtime, before: str, after: str, agent: str | None, kinds: Sequence[ChangeKind], limit: int
) -> tuple[EvalRunComparison, list[CaseDetail]]:
    comparison = await compare_eval_runs(runtime, before, after, agent)
    return comparison, [await load_case_detail(runtime, case) for case in filter_cases(comparison.diff, kinds)[:limit]]


def _show_stats(screen: Console, comparison: EvalRunComparison) -> None:
    left, right = comparison.diff.before, comparison.diff.after
    rows = table("", "before", "after")
    rows.add_row("eval run", comparison.before.eval_run_id, comparison.after.eval_run_id)
    rows.add_row("score", str(left.score or ""), str(right.score or ""))
    rows.add_row("cost, all cases", format_usd(left.cost), format_usd(right.cost))
    rows.add_row("latency 50/95", format_latency(left), format_latency(right))
    rows.add_row("trials", *(f"{stats.trials}{_format_errors(stats)}" for stats in (left, right)))
    rows.add_row("agent", *((agent_hash or "no model was called")[:12] for agent_hash in comparison.agents))
    rows.add_row("model", *(excerpt(", ".join(models) or "none", 60) for models in comparison.models))
    screen.print(rows)
    if comparison.before.set_hash != comparison.after.set_hash:
        screen.print("[yellow]The eval set changed in between, so a case may differ between the two.[/]")
    if comparison.diff.not_compared:
        screen.print(f"[yellow]Not compared: {excerpt(', '.join(comparison.diff.not_compared), 300)}[/]")


def _show_prompt(screen: Console, comparison: EvalRunComparison) -> None:
    if comparison.prompt:
        screen.print("\n[bold]The prompt[/]")
        _show_lines(screen, comparison.prompt)
    elif comparison.agents[0] != comparison.agents[1] and not comparison.prompt_known:
        screen.print("The agent has changed. Whether its prompt has is unknown: this database lacks some of the runs.")
    elif comparison.agents[0] != comparison.agents[1]:
        screen.print("The prompt is the same; the agent differs in its model, settings, tools or code.")
    else:
        screen.print("The agent is the same on both sides.")


def _show_counts(screen: Console, comparison: EvalRunComparison) -> None:
    counts = {kind: sum(kind in case.changes for case in comparison.diff.cases) for kind in CHANGE_KINDS}
    summary = ", ".join(f"{kind.replace('-', ' ')} {count}" for kind, count in counts.items())
    screen.print(f"\n[bold]{len(comparison.diff.cases)} cases[/]: {summary}")


def _show_case(screen: Console, detail: CaseDetail) -> None:
    case = detail.case
    screen.print(
        f"\n[bold]{case.case_id}[/]  {_format_values(case)}  [dim]{', '.join(sorted(case.changes))}[/]", soft_wrap=True
    )
    before, after = case.example_trials
    if before.path != after.path:
        screen.print(f"path: {before.path or 'waiting'} -> {after.path or 'waiting'}")
    wrong = [name for name, holds in after.score.fields.items() if not holds]
    if wrong:
        screen.print(f"wrong: {excerpt(', '.join(wrong), 300)}")
    screen.print(_mark_changes(detail.output))
    _show_trajectory(screen, detail.trajectory)
    screen.print(f"[dim]runs {before.run_id or 'none'}\n     {after.run_id or 'none'}[/]")


def _show_trajectory(screen: Console, trajectory: Alignment) -> None:
    if trajectory.diverges_at is None:
        screen.print(f"[dim]the same {len(trajectory.pairs)} steps[/]")
        return
    index = 0
    for same, group in itertools.groupby(trajectory.pairs, lambda pair: pair.kind == "same"):
        pairs = list(group)
        if index == trajectory.diverges_at:
            screen.print("[bold]the first difference:[/]")
        index += len(pairs)
        if same and len(pairs) > _MAX_SAME_STEPS:
            screen.print(f"[dim]    {len(pairs)} equal steps[/]")
            continue
        for pair in pairs:
            _show_pair(screen, pair)
    if trajectory.cut:
        screen.print(f"[dim]and {trajectory.cut} more steps, which were not compared[/]")


def _show_pair(screen: Console, pair: StepPair) -> None:
    sides = [(" ", pair.before)] if pair.kind == "same" else [("-", pair.before), ("+", pair.after)]
    for mark, step in sides:
        if step is not None:
            screen.print(Text(f"  {mark} {format_step(step)}", style=_STYLES[mark]))


def _mark_changes(pieces: Sequence[TextPiece]) -> Text:
    """The output with removed and added words in brackets as well as in colour, for output without colours."""
    text = Text()
    for piece in pieces:
        content = sanitize(piece.text)
        match piece.kind:
            case "removed":
                text.append(f"[-{content}-]", style="red")
            case "added":
                text.append(f"{{+{content}+}}", style="green")
            case "same" if len(content) > 2 * _CONTEXT_LENGTH:
                text.append(f"{content[:_CONTEXT_LENGTH]} … {content[-_CONTEXT_LENGTH:]}")
            case "same":
                text.append(content)
    return text


def _show_lines(screen: Console, lines: Sequence[str]) -> None:
    for line in lines[:_MAX_LINES]:
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
        screen.print(Text(sanitize(line), style=style))
    if len(lines) > _MAX_LINES:
        screen.print(f"[dim]and {len(lines) - _MAX_LINES} more lines[/]")


def _format_values(case: CaseDiff) -> str:
    colour = "red" if case.drop > 0 else "green" if case.drop < 0 else "dim"
    return f"[{colour}]{case.before:.2f} -> {case.after:.2f}[/]"


def _format_errors(stats: EvalRunStats) -> str:
    return f", and {stats.errors} that failed because of the infrastructure" if stats.errors else ""
