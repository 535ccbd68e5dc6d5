"""`handrail eval`: the commands, and those that run an eval set and show eval runs."""

import asyncio
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import Console

from handrail.cli.options import AsJson
from handrail.cli.output import add_cells, console, excerpt, format_path, format_time, print_json, table
from handrail.cli.runtime import open_runtime
from handrail.evals.eval_set.lock import freeze
from handrail.evals.runner.eval_run import EvalReport, load_frozen_set, overall_score, run_evals
from handrail.evals.store.eval_runs import load_eval_run, mean_trial_cost
from handrail.evals.store.history import list_eval_run_summaries
from handrail.kernel.money import NanoUsd, format_usd, nano_usd
from handrail.kernel.text import format_duration
from handrail.registry import find_eval_spec
from handrail.runs.runtime import Runtime

from . import add, baseline, diff, eval_set, gate, labels
from .options import AgentName, CacheFile, Concurrency, Reason, RecordedFile, open_responses
from .progress import trial_progress

app = typer.Typer(help="Evaluate agents: eval sets, eval runs, baselines and the gate.", no_args_is_help=True)
app.command("baseline")(baseline.baseline)
app.command("gate")(gate.gate)
app.command("add")(add.add)
app.command("diff")(diff.diff)
app.command("schema")(eval_set.schema)
app.command("history")(eval_set.history)
app.command("lint")(eval_set.lint)
app.command("sample")(eval_set.sample)
app.command("accept")(eval_set.accept)
app.command("import")(eval_set.import_)
app.command("export")(eval_set.export)
app.command("label")(labels.label)
app.command("calibrate")(labels.calibrate)


Resume = Annotated[str | None, typer.Option(metavar="EVAL_RUN", help="Resume an eval run that was stopped, by its id.")]
MaxCost = Annotated[
    float | None, typer.Option(min=0, metavar="DOLLARS", help="Stop before more than this amount is spent.")
]


@app.command("run")
def run(
    agent: AgentName,
    trials: Annotated[int, typer.Option(min=1, max=1_000, help="Trials of each case.")] = 1,
    concurrency: Concurrency = 1,
    resume: Resume = None,
    max_cost: MaxCost = None,
    cache: CacheFile = None,
    recorded: RecordedFile = None,
    as_json: AsJson = False,
) -> None:
    """Run the agent on every case of its frozen eval set.

    Examples: `handrail eval run support-triage`, `handrail eval run support-triage --trials 4 --concurrency 8
    --max-cost 2`
    """
    responses = open_responses(cache, recorded)
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        cases = len(load_frozen_set(spec).cases)
        _show_estimate(runtime, console(stderr=as_json), agent, trials * cases)
        started = runtime.clock.now()
        with trial_progress(agent, cases, trials, hidden=as_json) as advance:
            evaluation = run_evals(
                runtime,
                spec,
                trials=trials,
                concurrency=concurrency,
                responses=responses,
                resume=resume,
                max_cost=None if max_cost is None else nano_usd(Decimal(str(max_cost))),
                on_trial=advance,
            )
            report = asyncio.run(evaluation)
        duration = runtime.clock.now() - started
    if as_json:
        print_json({"report": report, "seconds": duration.total_seconds()})
    else:
        _show(report, duration)


@app.command("freeze")
def freeze_set(
    agent: AgentName,
    why: Reason,
    as_json: AsJson = False,
) -> None:
    """Accept the cases as they are now; an eval set that differs from its lock is not run.

    Example: `handrail eval freeze support-triage --why "two new ways to ask"`
    """
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        frozen = freeze(spec.cases, why, runtime.clock.now().date())
    if as_json:
        print_json({"lock": frozen.lock, "hash": frozen.content_hash, "written": frozen.written})
    elif frozen.written:
        console().print(f"Frozen as {frozen.content_hash[:12]}: {frozen.diff}.", soft_wrap=True)
    else:
        console().print(f"Nothing changed: {frozen.content_hash[:12]} is frozen already.")


@app.command("list")
def list_(
    agent: Annotated[str | None, typer.Option(help="Only eval runs of this agent.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many eval runs, at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest eval runs.

    Example: `handrail eval list --agent support-triage`
    """
    with open_runtime() as runtime:
        summaries = runtime.database.read_now(list_eval_run_summaries(agent, limit))
    if as_json:
        print_json(summaries)
        return
    if not summaries:
        console().print("No eval runs yet. `handrail eval run support-triage` starts one.")
        return
    hidden = ("started", "fingerprint", "set")
    columns = ("eval run", "started", "agent", "fingerprint", "set", "trials", "score")
    rows = table(*columns, right=("trials",), wide_only=hidden)
    for summary in summaries:
        view = summary.eval_run
        trials = f"{summary.trials}" if view.ended_at else f"{summary.trials} of {view.cases}, stopped"
        add_cells(
            rows,
            {
                "eval run": view.eval_run_id,
                "started": format_time(view.started_at),
                "agent": excerpt(view.agent, 30),
                "fingerprint": (summary.agent_hash or "no model")[:12],
                "set": view.set_hash[:12],
                "trials": trials,
                "score": str(summary.score or ""),
            },
        )
    console().print(rows)


@app.command("show")
def show(
    eval_run_id: Annotated[str, typer.Argument(help="An id from `handrail eval list`.")], as_json: AsJson = False
) -> None:
    """Show one eval run case by case, failed trials first.

    Example: `handrail eval show EVAL_RUN`
    """
    with open_runtime() as runtime:
        view, trials = runtime.database.read_now(load_eval_run(eval_run_id))
    if as_json:
        print_json({"eval_run": view, "trials": trials, "score": overall_score(trials)})
        return
    rows = table("case", "", "path", "duration", "wrong", "run")
    for trial in sorted(trials, key=lambda trial: (trial.score.passed, trial.case_id)):
        wrong = excerpt(", ".join(name for name, right in trial.score.fields.items() if not right), 200)
        mark = "[green]right[/]" if trial.score.passed else "[red]wrong[/]"
        duration = format_duration(timedelta(microseconds=trial.duration_ns // 1_000))
        rows.add_row(trial.case_id, mark, format_path(trial.path), duration, wrong, trial.run_id)
    console().print(rows)
    console().print(f"Score {overall_score(trials)}", style="bold")


def _show_estimate(runtime: Runtime, screen: Console, agent: str, trials: int) -> None:
    mean_cost = runtime.database.read_now(mean_trial_cost(agent))
    if mean_cost is not None:
        estimate = format_usd(NanoUsd(mean_cost * trials))
        screen.print(f"[dim]About {estimate} for {trials} trials, by the cost of earlier ones.[/]")


def _show(report: EvalReport, duration: timedelta) -> None:
    screen = console()
    right, scored = Counter[str](), Counter[str]()
    for trial in report.trials:
        scored.update(trial.score.fields)
        right.update(name for name, holds in trial.score.fields.items() if holds)
    paths = Counter(trial.path for trial in report.trials)
    models = sorted({trial.model or "no model" for trial in report.trials})
    screen.print(f"[bold]Score {report.score or 'none: no trial could be scored'}[/]")
    shares = (f"{excerpt(name, 40)} {100 * right[name] / count:.0f}%" for name, count in scored.items())
    screen.print("By field: " + ", ".join(shares))
    screen.print(
        "Paths: " + ", ".join(f"{format_path(path) or 'waiting'} {count}" for path, count in paths.most_common())
    )
    if report.errors:
        faults = Counter(trial.error for trial in report.errors)
        counts = ", ".join(f"{count} {fault}" for fault, count in faults.most_common())
        screen.print(f"[yellow]Not scored, since the model was not available: {counts}[/]")
    cost = format_usd(NanoUsd(sum(trial.cost for trial in report.trials)))
    names = excerpt(", ".join(models), 200)
    screen.print(f"{names}; {format_duration(duration)} in all, {cost}; set {report.set_hash[:12]}")
    screen.print(f"[dim]`handrail eval show {report.eval_run_id}` shows every case.[/]")
