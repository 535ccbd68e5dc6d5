"""`handrail eval label` and `calibrate`: people label trials, and a judge is measured against their labels."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from handrail.cli.options import AsJson, By, resolve_by
from handrail.cli.output import console, print_json
from handrail.cli.runtime import open_runtime
from handrail.evals.gate.baseline import find_baseline
from handrail.evals.labels.calibration import JudgeCalibration
from handrail.evals.labels.sampling import DEFAULT_SHARE, ensure_sample, find_judge, measure_judge, next_to_label
from handrail.evals.runner.eval_run import load_frozen_set
from handrail.evals.scorers.fingerprint import scorer_hashes
from handrail.evals.scorers.llm_judge import Judge
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.evals.store.labels import Label, Sample, add_label, load_labels
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput, NotFound
from handrail.kernel.text import format_json, sanitize
from handrail.registry import find_eval_spec
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import load_outcomes

from .options import AgentName

JudgeName = Annotated[str | None, typer.Option("--judge", help="The judge's name, if the agent has several.")]
_ANSWERS = {"r": True, "right": True, "w": False, "wrong": False, "s": None, "skip": None}


def label(
    agent: AgentName,
    judge_name: JudgeName = None,
    share: Annotated[float, typer.Option(help="The share of the baseline's trials to label.")] = DEFAULT_SHARE,
    by: By = None,
) -> None:
    """Label trials as right or wrong, one after another; stop with q and continue later.

    You do not see what the judge decided.

    Example: `handrail eval label support-triage --by ann`
    """
    labeller = resolve_by(by)
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        eval_set = load_frozen_set(spec)
        judge = find_judge(spec, judge_name)
        baseline = asyncio.run(find_baseline(runtime, agent, eval_set.content_hash))
        samples = asyncio.run(ensure_sample(runtime, judge, baseline, share))
        _, trials = runtime.database.read_now(load_eval_run(baseline.eval_run_id))
        trial_of = {(trial.case_id, trial.trial): trial for trial in trials}
        inputs = {case.id: case.input for case in eval_set.cases}
        done = 0
        while (sample := next_to_label(labeller, samples, _load_labels(runtime.database, samples))) is not None:
            trial = trial_of[sample.case_id, sample.trial]
            _show_trial(runtime.database, sample, trial, inputs[sample.case_id], judge)
            answer = _ask()
            if answer == "q":
                break
            runtime.database.write_now(add_label(_to_label(runtime, sample, labeller, _ANSWERS[answer])))
            done += 1
        remaining = sample is not None
    console().print(f"{done} labelled by {escape(labeller)}; {'continue later' if remaining else 'none left for you'}.")
    console().print(f"[dim]`handrail eval calibrate {agent}` measures the judge against the labels.[/]")


def calibrate(agent: AgentName, judge_name: JudgeName = None, as_json: AsJson = False) -> None:
    """Measure a judge against people's labels; exit code 1 if it is not trusted.

    Example: `handrail eval calibrate support-triage`
    """
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        load_frozen_set(spec)
        judge = find_judge(spec, judge_name)
        calibration, reasons = asyncio.run(measure_judge(runtime, agent, judge, scorer_hashes(spec)[judge.name]))
    if as_json:
        print_json({"judge": judge.name, "model": judge.model_name, "calibration": calibration, "distrusted": reasons})
    else:
        _show_calibration(agent, judge.name, calibration, reasons)
    if reasons:
        raise typer.Exit(1)


def _load_labels(database: Database, samples: list[Sample]) -> list[Label]:
    return database.read_now(load_labels(samples[0].eval_run_id, samples[0].judge))


def _to_label(runtime: Runtime, sample: Sample, by: str, right: bool | None) -> Label:
    return Label(
        eval_run_id=sample.eval_run_id,
        judge=sample.judge,
        case_id=sample.case_id,
        trial=sample.trial,
        by=by,
        right=right,
        at=runtime.clock.now(),
    )


def _show_trial(database: Database, sample: Sample, trial: Trial, case_input: str, judge: Judge) -> None:
    screen = console()
    screen.rule(f"{sample.position + 1}: {sample.case_id}")
    screen.print("[bold]Request[/]", escape(sanitize(case_input)), sep="\n", soft_wrap=True)
    screen.print("[bold]Answer[/]", escape(sanitize(_load_answer(database, trial))), sep="\n", soft_wrap=True)
    screen.print("[bold]Rubric[/]", escape(str(judge.rubric)), sep="\n", soft_wrap=True)


def _load_answer(database: Database, trial: Trial) -> str:
    """The output of the trial's run, or its message; for a trial without a run, what was observed."""
    try:
        outcomes = database.read_now(load_outcomes(trial.run_id))
    except NotFound:
        outcomes = []
    body: Mapping[str, Any] = outcomes[-1].body if outcomes else {"output": trial.observed}
    answer = body.get("output", body.get("message"))
    return answer if isinstance(answer, str) else format_json(answer)


def _ask() -> str:
    while True:
        try:
            answer = input("right, wrong, skip or quit (r/w/s/q): ").strip().lower()
        except EOFError:
            raise BadInput("there is no terminal to ask in; run this command interactively") from None
        if answer in ("q", "quit"):
            return "q"
        if answer in _ANSWERS:
            return answer


def _show_calibration(agent: str, name: str, calibration: JudgeCalibration | None, reasons: tuple[str, ...]) -> None:
    screen = console()
    if calibration is not None:
        screen.print(
            f"{calibration.labels} trials labelled, {calibration.failures} of them wrong, {calibration.doubled} by two "
            "people."
        )
        intervals = {
            "Sensitivity (right trials that it passes)": calibration.sensitivity,
            "Specificity (wrong trials that it fails)": calibration.specificity,
            "J (their sum minus 1)": calibration.j,
            "Agreement with people (kappa)": calibration.kappa,
            "Agreement between people (kappa)": calibration.human_kappa,
            "Score that people would give": calibration.corrected,
        }
        for title, interval in intervals.items():
            screen.print(f"{title}: {interval or 'not enough labels'}")
        implied = calibration.rogan_gladen
        diagnostic = "" if implied is None else f"; {implied:.2f} by Rogan and Gladen, a diagnostic"
        screen.print(f"Score that the judge gives: {calibration.raw:.2f}{diagnostic}")
    if reasons:
        screen.print(f"[bold red]Judge {escape(name)} is not to be trusted:[/] {'; '.join(reasons)}.", soft_wrap=True)
        screen.print(
            "It can block a change but not pass one by itself. "
            f"To label more: `handrail eval label {agent} --share 0.4`.",
            soft_wrap=True,
        )
    else:
        screen.print(f"[bold green]Judge {escape(name)} can be trusted.[/]")
