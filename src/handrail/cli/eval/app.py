"""`handrail eval`: the frozen set, and how an agent does on it."""

import asyncio
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import Console

from handrail.cli.output import AsJson, console, excerpt, print_json, show_path, show_time, table
from handrail.cli.runtime import opened
from handrail.evals.eval_set.model import freeze
from handrail.evals.runner.eval_run import EvalReport, frozen_set, run_evals, score_of
from handrail.evals.runner.history import eval_runs_over_time
from handrail.evals.store.eval_runs import cost_per_trial, load_eval_run
from handrail.kernel.errors import BadInput
from handrail.kernel.money import NanoUsd, nano_usd, show_usd
from handrail.kernel.text import format_duration
from handrail.registry import find_agent
from handrail.runs.runtime import Runtime

from . import diff, eval_set, gate, labels
from .gate import AgentName, AtOnce, CachedIn, RecordedIn
from .trials import kept_in, watched

app = typer.Typer(help="The frozen set, and how an agent does on it.", no_args_is_help=True)
app.command("baseline")(gate.baseline)
app.command("gate")(gate.gate)
app.command("add")(gate.add)
app.command("diff")(diff.diff)
app.command("schema")(eval_set.schema)
app.command("history")(eval_set.history_of)
app.command("lint")(eval_set.lint)
app.command("draw")(eval_set.draw)
app.command("take")(eval_set.take)
app.command("import")(eval_set.import_)
app.command("export")(eval_set.export)
app.command("label")(labels.label)
app.command("calibrate")(labels.calibrate)


Resume = Annotated[str | None, typer.Option(metavar="EVAL", help="Go on with an eval run that was stopped; its id.")]
MaxCost = Annotated[float | None, typer.Option(min=0, metavar="DOLLARS", help="Stop before more than this is spent.")]


@app.command("run")
def run(
    agent: AgentName,
    trials: Annotated[int, typer.Option(min=1, max=1_000, help="How often each case is tried.")] = 1,
    at_once: AtOnce = 1,
    resume: Resume = None,
    max_cost: MaxCost = None,
    cache: CachedIn = None,
    recorded: RecordedIn = None,
    as_json: AsJson = False,
) -> None:
    """Try the agent on every case of its frozen set.

    Examples: `handrail eval run support-triage`, `handrail eval run support-triage --trials 4 --at-once 8 --max-cost 2`
    """
    responses = kept_in(cache, recorded)
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        cases = len(frozen_set(governed)[0].cases)
        _show_expected(runtime, console(stderr=as_json), agent, trials * cases)
        began = runtime.clock.now()
        with watched(agent, cases, trials, hidden=as_json) as advance:
            evaluation = run_evals(
                runtime,
                governed,
                trials=trials,
                at_once=at_once,
                responses=responses,
                resume=resume,
                max_cost=None if max_cost is None else nano_usd(Decimal(str(max_cost))),
                on_trial=advance,
            )
            report = asyncio.run(evaluation)
        took = runtime.clock.now() - began
    if as_json:
        print_json({"report": report, "seconds": took.total_seconds()})
    else:
        _show(report, took)


@app.command("freeze")
def freeze_set(
    agent: AgentName,
    why: Annotated[str, typer.Option(help="The reason, kept in the lock's history.")],
    as_json: AsJson = False,
) -> None:
    """Accept the cases as they are now. Example: `handrail eval freeze support-triage --why "two new ways to ask"`"""
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        if governed.trials is None:
            raise BadInput(f"agent {agent} has no eval set")
        frozen = freeze(governed.trials.cases, why, runtime.clock.now().date())
    if as_json:
        print_json({"lock": frozen.lock, "hash": frozen.content_hash, "written": frozen.written})
    elif frozen.written:
        console().print(f"Frozen as {frozen.content_hash[:12]}: {frozen.difference}.", soft_wrap=True)
    else:
        console().print(f"Nothing changed: {frozen.content_hash[:12]} is frozen already.")


@app.command("list")
def list_(
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest eval runs. Example: `handrail eval list --agent support-triage`"""
    with opened() as runtime:
        found = runtime.database.read_now(lambda conn: eval_runs_over_time(conn, agent, limit))
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("No eval runs yet. `handrail eval run support-triage` makes one.")
        return
    shown = table("eval run", "began", "agent", "fingerprint", "set", "trials", "score", right=("trials",))
    for each in found:
        view = each.eval_run
        state = f"{each.trials}" if view.ended_at else f"{each.trials} of {view.cases}, stopped"
        marks = (view.eval_run_id, show_time(view.started_at), excerpt(view.agent, 30))
        prints = ((each.agent_hash or "no model")[:12], view.set_hash[:12])
        shown.add_row(*marks, *prints, state, str(each.score or ""))
    console().print(shown)


@app.command("show")
def show(
    eval_run_id: Annotated[str, typer.Argument(help="An id from `handrail eval list`.")], as_json: AsJson = False
) -> None:
    """One eval run, case by case, the wrong ones first. Example: `handrail eval show EVAL`"""
    with opened() as runtime:
        view, trials = runtime.database.read_now(lambda conn: load_eval_run(conn, eval_run_id))
    if as_json:
        print_json({"eval_run": view, "trials": trials, "score": score_of(trials)})
        return
    shown = table("case", "", "path", "took", "wrong", "run")
    for trial in sorted(trials, key=lambda trial: (trial.verdict.passed, trial.case_id)):
        wrong = excerpt(", ".join(name for name, right in trial.verdict.fields.items() if not right), 200)
        mark = "[green]right[/]" if trial.verdict.passed else "[red]wrong[/]"
        took = format_duration(timedelta(microseconds=trial.duration_ns // 1_000))
        shown.add_row(trial.case_id, mark, show_path(trial.path), took, wrong, trial.run_id)
    console().print(shown)
    console().print(f"Score {score_of(trials)}", style="bold")


def _show_expected(runtime: Runtime, screen: Console, agent: str, trials: int) -> None:
    expected = runtime.database.read_now(lambda conn: cost_per_trial(conn, agent))
    if expected is not None:
        about = show_usd(NanoUsd(expected * trials))
        screen.print(f"[dim]About {about} for {trials} trials, by what earlier ones cost.[/]")


def _show(report: EvalReport, took: timedelta) -> None:
    screen = console()
    fields = Counter[str]()
    for trial in report.trials:
        fields.update(name for name, right in trial.verdict.fields.items() if right)
    names = list(dict.fromkeys(name for trial in report.trials for name in trial.verdict.fields))
    asked = Counter(name for trial in report.trials for name in trial.verdict.fields)
    paths = Counter(trial.path for trial in report.trials)
    models = sorted({trial.model or "no model" for trial in report.trials})
    screen.print(f"[bold]Score {report.score or 'none: no trial could be judged'}[/]")
    shares = (f"{excerpt(name, 40)} {100 * fields[name] / asked[name]:.0f}%" for name in names)
    screen.print("By field: " + ", ".join(shares))
    screen.print(
        "Paths: " + ", ".join(f"{show_path(path) or 'waiting'} {count}" for path, count in paths.most_common())
    )
    if report.errors:
        faults = Counter(trial.error for trial in report.errors)
        found = ", ".join(f"{count} {name}" for name, count in faults.most_common())
        screen.print(f"[yellow]Not judged, since the model could not be asked: {found}[/]")
    cost = show_usd(NanoUsd(sum(trial.cost for trial in report.trials)))
    asked_models = excerpt(", ".join(models), 200)
    screen.print(f"{asked_models}; {format_duration(took)} in all, {cost}; set {report.set_hash[:12]}")
    screen.print(f"[dim]`handrail eval show {report.eval_run_id}` shows every case.[/]")
