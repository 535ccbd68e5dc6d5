"""`handrail eval baseline`, `gate` and `add`: what an agent has to beat, whether it does, and cases from production."""

import asyncio
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from handrail.cli.options import By, Should, person, read_fields
from handrail.cli.output import AsJson, console, excerpt, print_json, table
from handrail.cli.runtime import opened
from handrail.evals.compare import markdown as summary
from handrail.evals.compare.case_diff import chosen
from handrail.evals.compare.comparison import compare_eval_runs, look_closer
from handrail.evals.eval_set.model import EvalSet
from handrail.evals.from_production.from_run import Grown, add_case
from handrail.evals.gate import report
from handrail.evals.gate.decision_rule import Margin, absolute, relative
from handrail.evals.gate.gate import Gated, plan_of, promote, set_baseline
from handrail.evals.gate.gate import gate as run_gate
from handrail.evals.gate.report import short
from handrail.evals.gate.trial_plan import Plan
from handrail.evals.mismatches import show_value
from handrail.evals.runner.eval_run import frozen_set, score_of
from handrail.evals.store.baseline_file import Carried, read_baseline, write_baseline
from handrail.evals.store.baselines import Baseline
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.kernel.errors import BadInput
from handrail.registry import find_agent
from handrail.runs.runtime import Runtime

from .trials import kept_in, watched

_IN_FULL = 3
AgentName = Annotated[str, typer.Argument(help="The agent's name.")]
AtOnce = Annotated[int, typer.Option(min=1, max=1_000, help="How many trials side by side.")]
CachedIn = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FILE", help="Keep the model's responses here, and use those that are."),
]
RecordedIn = Annotated[
    Path | None, typer.Option("--recorded", metavar="FILE", help="Use only the responses kept here; no model is asked.")
]


Carry = Annotated[
    Path | None, typer.Option("--write", metavar="FILE", help="Write it to this file too, to be kept beside the set.")
]
CarriedIn = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="FILE", help="Compare with the baseline that `baseline --write` wrote here."),
]


def baseline(
    agent: AgentName,
    from_: Annotated[
        str | None, typer.Option("--from", help="An eval run that is there, instead of a new one.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000, help="Trials of each case; 8, or what the measured flips ask for.")
    ] = None,
    at_once: AtOnce = 1,
    cache: CachedIn = None,
    recorded: RecordedIn = None,
    write: Carry = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Set what the gate compares with: the agent as it is in production.

    Examples: `handrail eval baseline support-triage`, `handrail eval baseline support-triage --write baseline.jsonl`
    """
    if write is not None and not write.parent.is_dir():
        raise BadInput(f"--write {write}: there is no folder {write.parent}; make it, or name a file elsewhere")
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        loaded, _ = frozen_set(governed)
        if from_ is not None:
            found = asyncio.run(promote(runtime, governed, from_, by=person(by)))
        else:
            with watched(agent, len(loaded.cases), trials or 8, hidden=as_json) as advance:
                running = set_baseline(
                    runtime,
                    governed,
                    by=person(by),
                    trials=trials,
                    at_once=at_once,
                    responses=kept_in(cache, recorded),
                    on_trial=advance,
                )
                found = asyncio.run(running)
        view, made = runtime.database.read_now(lambda conn: load_eval_run(conn, found.eval_run_id))
        if write is not None:
            carried = Carried(path=write, baseline=found, view=view, trials=tuple(made))
            write_baseline(carried, [case.id for case in loaded.cases])
        plan = asyncio.run(plan_of(made))
    if as_json:
        print_json({"baseline": found, "score": score_of(made), "plan": plan, "file": write})
    else:
        _show_baseline(found, made, plan, write)


def gate(
    agent: AgentName,
    margin: Annotated[
        str,
        typer.Option(metavar="POINTS|SHARE%", help="How far the score may fall: 3 points, or 3% of the baseline's."),
    ] = "3",
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000, help="At most so many trials of each case, 1 for recorded answers.")
    ] = None,
    carried: CarriedIn = None,
    at_once: AtOnce = 1,
    cache: CachedIn = None,
    recorded: RecordedIn = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a summary for a pull request here.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report here.")] = None,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the scores here, as .svg or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the agent with its baseline; exit code 1 where its score fell too far, 2 where nobody can tell.

    Examples: `handrail eval gate support-triage`, `handrail eval gate support-triage --baseline baseline.jsonl
    --recorded recorded.jsonl --trials 1`
    """
    allowed = read_margin(margin)
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        loaded, _ = frozen_set(governed)
        with watched(agent, len(loaded.cases), hidden=as_json) as advance:
            running = run_gate(
                runtime,
                governed,
                margin=allowed,
                trials=trials,
                carried=read_baseline(carried) if carried else None,
                at_once=at_once,
                responses=kept_in(cache, recorded),
                on_trial=advance,
            )
            gated = asyncio.run(running)
        apart = asyncio.run(_diff(runtime, gated)) if markdown else []
    _write_reports(gated, loaded, apart, markdown, junit, chart)
    if as_json:
        print_json(report.as_json(gated))
    else:
        _show_gate(gated, loaded)
    if not gated.verdict.passed:
        raise typer.Exit(1)


def read_margin(written: str) -> Margin:
    """`3` as points, `3%` as a share of the baseline's score. Raises BadInput."""
    try:
        share = Fraction(written.strip().removesuffix("%")) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise BadInput(
            f"--margin {written!r}: give points from 0 to 100, such as 3, or a share of the score, such as 3%"
        )
    return relative(share) if written.strip().endswith("%") else absolute(share)


def add(
    agent: AgentName,
    from_run: Annotated[str, typer.Option(help="A run id, or its beginning.")],
    why: Annotated[str, typer.Option(help="The reason, kept in the lock's history.")],
    should: Should = None,
    id_: Annotated[str | None, typer.Option("--id", help="The case's name.")] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Make a run of production a case of the frozen set. What is right is what `handrail runs mark` said of the run.

    Example: `handrail eval add support-triage --from-run run_01k --should refund=true --why "asked twice, paid once"`
    """
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        fields = read_fields(should or ())
        adding = add_case(runtime, governed, from_run, why=why, by=person(by), should=fields, case_id=id_)
        grown = asyncio.run(adding)
    if as_json:
        frozen = grown.frozen
        print_json({"case": grown.case, "lock": frozen.lock, "hash": frozen.content_hash, "written": frozen.written})
    else:
        _show_case(agent, grown)


def _show_baseline(found: Baseline, made: Sequence[Trial], plan: Plan | None, file: Path | None) -> None:
    screen = console()
    screen.print(
        f"[bold]Baseline {score_of(made)}[/], {found.trials} trial{'' if found.trials == 1 else 's'} of each case, "
        f"agent {short(found.agent_hash)}, set {short(found.set_hash)}"
    )
    screen.print(
        f"{plan}." if plan else "One trial of each case says nothing of flips: give --trials 8.", soft_wrap=True
    )
    command = f"handrail eval gate {found.agent}"
    if file is not None:
        screen.print(f"Written to {excerpt(str(file), 300)}: review it and commit it beside the set.", soft_wrap=True)
        command += f" --baseline {excerpt(str(file), 300)}"
    screen.print(f"[dim]`{command}` compares the agent with it after a change.[/]", soft_wrap=True)


def _write_reports(
    gated: Gated, loaded: EvalSet, apart: Sequence[str], markdown: Path | None, junit: Path | None, chart: Path | None
) -> None:
    if chart is not None:
        report.draw_chart(gated, chart)
    if markdown is not None:
        markdown.write_text(report.markdown(gated, loaded, chart, apart), encoding="utf-8")
    if junit is not None:
        junit.write_text(report.junit(gated, loaded), encoding="utf-8")


async def _diff(runtime: Runtime, gated: Gated) -> list[str]:
    """What separates the candidate from the baseline, with the cases that fell furthest, or else changed most."""
    compared = await compare_eval_runs(runtime, gated.baseline.eval_run_id, gated.report.eval_run_id)
    worst = chosen(compared.diff, ["newly-failing"]) or chosen(compared.diff, [])
    return summary.apart(compared, [await look_closer(runtime, each) for each in worst[:_IN_FULL]])


def _show_gate(gated: Gated, loaded: EvalSet) -> None:
    screen, verdict = console(), gated.verdict
    screen.print(f"[bold {'green' if verdict.passed else 'red'}]{report.says(verdict)}[/]", soft_wrap=True)
    for name, reasons in gated.distrusted.items():
        screen.print(f"[yellow]Judge {excerpt(name, 80)} is not trusted:[/] {'; '.join(reasons)}.", soft_wrap=True)
    if moved := report.failing(gated, loaded):
        shown = table(
            "newly failing" if verdict.newly_failing else "lost most", "before", "now", "what differed", "run"
        )
        for each in moved:
            shares = (f"{100 * each.before:.0f}%", f"{100 * each.after:.0f}%")
            shown.add_row(each.case_id, *shares, excerpt(each.differed, 300), each.run_id)
        screen.print(shown)
    if verdict.newly_passing:
        screen.print(f"Newly passing: {', '.join(verdict.newly_passing)}")
    for fact in report.facts(gated):
        screen.print(f"[dim]{excerpt(fact, 400)}.[/]", soft_wrap=True)
    screen.print(f"[dim]`handrail eval show {gated.report.eval_run_id}` shows every case.[/]")


def _show_case(agent: str, grown: Grown) -> None:
    screen, case = console(), grown.case
    screen.print(f"[bold]{case.id}[/]  {excerpt(case.source, 300)}", soft_wrap=True)
    screen.print(f"Asked  {excerpt(case.input, 600)}", soft_wrap=True)
    expected = ", ".join(f"{name}: {show_value(value)}" for name, value in case.expect.items())
    screen.print(f"Right  {excerpt(expected, 600)}", soft_wrap=True)
    screen.print(
        f"Frozen as {grown.frozen.content_hash[:12]}. The user's words are in the set now: read them before you commit."
    )
    screen.print(f"[dim]The set has changed: `handrail eval baseline {agent}` is next, before the agent changes.[/]")
