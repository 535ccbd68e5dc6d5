"""`handrail eval diff`: two eval runs side by side, case by case, the worst first."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from handrail.cli.output import AsJson, console, excerpt, print_json, table
from handrail.cli.runtime import opened
from handrail.evals.compare.alignment import Alignment, Pair, Piece
from handrail.evals.compare.case_diff import CHANGES, CaseDiff, Change, Side, chosen
from handrail.evals.compare.comparison import Close, Compared, compare_eval_runs, look_closer
from handrail.evals.compare.markdown import latency, said
from handrail.kernel.money import show_usd
from handrail.kernel.text import sanitize
from handrail.runs.runtime import Runtime

_STYLES = {" ": "", "-": "red", "+": "green"}
_SAME_SHOWN = 3
_LINES = 60
_AROUND = 120


def diff(
    before: Annotated[str, typer.Argument(help="An eval run's id, or `baseline`.")] = "baseline",
    after: Annotated[str, typer.Argument(help="An eval run's id, or `newest`.")] = "newest",
    agent: Annotated[str | None, typer.Option(help="Whose newest eval run.")] = None,
    newly_failing: Annotated[bool, typer.Option("--newly-failing", help="Cases that score lower.")] = False,
    newly_passing: Annotated[bool, typer.Option("--newly-passing", help="Cases that score higher.")] = False,
    same_score: Annotated[
        bool, typer.Option("--same-score-different-output", help="Cases that score the same by another output.")
    ] = False,
    path_changed: Annotated[bool, typer.Option("--path-changed", help="Cases that ended in another way.")] = False,
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="How many cases in full.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Compare two eval runs: score, cost, latency and prompt, then what changed case by case, the worst first.

    Without a filter, every case with a change is shown.

    Example: `handrail eval diff baseline newest --agent support-triage --newly-failing`
    """
    flags = (newly_failing, newly_passing, same_score, path_changed)
    wanted = [change for change, asked in zip(CHANGES, flags, strict=True) if asked]
    with opened() as runtime:
        compared, close = asyncio.run(_look(runtime, before, after, agent, wanted, limit))
    cases = chosen(compared.diff, wanted)
    if as_json:
        print_json({"compared": compared, "cases": cases, "close": close})
        return
    screen = console()
    _show_sides(screen, compared)
    _show_prompt(screen, compared)
    _show_counts(screen, compared)
    for each in close:
        _show_case(screen, each)
    if len(cases) > len(close):
        screen.print(f"\n[dim]{len(cases) - len(close)} cases more: --limit {len(cases)} shows them all.[/]")


async def _look(
    runtime: Runtime, before: str, after: str, agent: str | None, wanted: Sequence[Change], limit: int
) -> tuple[Compared, list[Close]]:
    compared = await compare_eval_runs(runtime, before, after, agent)
    return compared, [await look_closer(runtime, case) for case in chosen(compared.diff, wanted)[:limit]]


def _show_sides(screen: Console, compared: Compared) -> None:
    left, right = compared.diff.before, compared.diff.after
    shown = table("", "before", "after")
    shown.add_row("eval run", compared.before.eval_run_id, compared.after.eval_run_id)
    shown.add_row("score", str(left.score or ""), str(right.score or ""))
    shown.add_row("cost, a round", show_usd(left.cost), show_usd(right.cost))
    shown.add_row("latency 50/95", latency(left), latency(right))
    shown.add_row("trials", *(f"{each.trials}{_faults(each)}" for each in (left, right)))
    shown.add_row("agent", *((each or "no model was reached")[:12] for each in compared.agents))
    shown.add_row("model", *(excerpt(", ".join(each) or "none", 60) for each in compared.models))
    screen.print(shown)
    if compared.before.set_hash != compared.after.set_hash:
        screen.print("[yellow]The set changed between the two; a case may not be the same on both sides.[/]")
    if compared.diff.apart:
        screen.print(f"[yellow]Not compared: {excerpt(', '.join(compared.diff.apart), 300)}[/]")


def _show_prompt(screen: Console, compared: Compared) -> None:
    if compared.prompt:
        screen.print("\n[bold]The prompt[/]")
        _show_lines(screen, compared.prompt)
    elif compared.agents[0] != compared.agents[1] and not compared.prompt_known:
        screen.print(
            "The agent is another; whether its prompt is cannot be told, since not all runs are in this store."
        )
    elif compared.agents[0] != compared.agents[1]:
        screen.print("The prompt is the same; the agent differs in its model, settings, tools or code.")
    else:
        screen.print("The agent is the same on both sides.")


def _show_counts(screen: Console, compared: Compared) -> None:
    counts = {change: sum(change in case.changes for case in compared.diff.cases) for change in CHANGES}
    said = ", ".join(f"{change.replace('-', ' ')} {count}" for change, count in counts.items())
    screen.print(f"\n[bold]{len(compared.diff.cases)} cases[/]: {said}")


def _show_case(screen: Console, close: Close) -> None:
    case = close.case
    screen.print(
        f"\n[bold]{case.case_id}[/]  {_values(case)}  [dim]{', '.join(sorted(case.changes))}[/]", soft_wrap=True
    )
    before, after = case.shown
    if before.path != after.path:
        screen.print(f"path: {before.path or 'waiting'} -> {after.path or 'waiting'}")
    wrong = [name for name, right in after.verdict.fields.items() if not right]
    if wrong:
        screen.print(f"wrong: {excerpt(', '.join(wrong), 300)}")
    screen.print(_marked(close.output))
    _show_trajectory(screen, close.trajectory)
    screen.print(f"[dim]runs {before.run_id or 'none'}\n     {after.run_id or 'none'}[/]")


def _show_trajectory(screen: Console, trajectory: Alignment) -> None:
    if trajectory.diverges_at is None:
        screen.print(f"[dim]the same {len(trajectory.pairs)} steps[/]")
        return
    place = 0
    for same, group in itertools.groupby(trajectory.pairs, lambda pair: pair.fit == "same"):
        pairs = list(group)
        if place == trajectory.diverges_at:
            screen.print("[bold]they part here:[/]")
        place += len(pairs)
        if same and len(pairs) > _SAME_SHOWN:
            screen.print(f"[dim]    {len(pairs)} steps the same[/]")
            continue
        for pair in pairs:
            _show_pair(screen, pair)
    if trajectory.cut:
        screen.print(f"[dim]and {trajectory.cut} steps that were not compared[/]")


def _show_pair(screen: Console, pair: Pair) -> None:
    sides = [(" ", pair.before)] if pair.fit == "same" else [("-", pair.before), ("+", pair.after)]
    for mark, step in sides:
        if step is not None:
            screen.print(Text(f"  {mark} {said(step)}", style=_STYLES[mark]))


def _marked(pieces: Sequence[Piece]) -> Text:
    """The output with what was taken out and put in marked by brackets too, for terminals and files without colour."""
    text = Text()
    for piece in pieces:
        said = sanitize(piece.text)
        match piece.kind:
            case "removed":
                text.append(f"[-{said}-]", style="red")
            case "added":
                text.append(f"{{+{said}+}}", style="green")
            case "same":
                text.append(said if len(said) <= 2 * _AROUND else f"{said[:_AROUND]} … {said[-_AROUND:]}")
    return text


def _show_lines(screen: Console, lines: Sequence[str]) -> None:
    for line in lines[:_LINES]:
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
        screen.print(Text(sanitize(line), style=style))
    if len(lines) > _LINES:
        screen.print(f"[dim]and {len(lines) - _LINES} lines more[/]")


def _values(case: CaseDiff) -> str:
    colour = "red" if case.drop > 0 else "green" if case.drop < 0 else "dim"
    return f"[{colour}]{case.before:.2f} -> {case.after:.2f}[/]"


def _faults(side: Side) -> str:
    return f", and {side.errors} that the infrastructure failed" if side.errors else ""
