"""`handrail eval label` and `calibrate`: people say what is right, and what that says of a judge."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from handrail.cli.options import By, person
from handrail.cli.output import AsJson, console, print_json
from handrail.cli.runtime import opened
from handrail.evals.gate.gate import baseline_for
from handrail.evals.labels.calibration import Calibration
from handrail.evals.labels.sampling import drawn_of, judge_of, measured, next_for
from handrail.evals.mismatches import show_value
from handrail.evals.runner.eval_run import frozen_set
from handrail.evals.scorers.fingerprint import scored_by
from handrail.evals.scorers.llm_judge import Judge
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.evals.store.labels import Label, Sample, add_label, load_labels
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput, NotFound
from handrail.kernel.text import sanitize
from handrail.registry import find_agent
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import load_outcomes

AgentName = Annotated[str, typer.Argument(help="The agent's name.")]
JudgeName = Annotated[str | None, typer.Option("--judge", help="Which judge, where the set has several.")]
_ANSWERS = {"r": True, "right": True, "w": False, "wrong": False, "s": None, "skip": None}


def label(
    agent: AgentName,
    judge: JudgeName = None,
    share: Annotated[float, typer.Option(help="The share of the baseline's trials that people look at.")] = 0.2,
    by: By = None,
) -> None:
    """Say of trials whether they are right, one after another; stop with q, and go on later.

    The judge's verdict is not shown. Example: `handrail eval label support-triage --by ann`
    """
    who = person(by)
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        loaded, _ = frozen_set(governed)
        chosen = judge_of(governed, judge)
        baseline = asyncio.run(baseline_for(runtime, agent, loaded.content_hash))
        drawn = asyncio.run(drawn_of(runtime, chosen, baseline, share))
        _, trials = runtime.database.read_now(lambda conn: load_eval_run(conn, baseline.eval_run_id))
        found = {(each.case_id, each.trial): each for each in trials}
        inputs = {case.id: case.input for case in loaded.cases}
        done = 0
        while (sample := next_for(who, drawn, _labels(runtime.database, drawn))) is not None:
            _show(runtime.database, sample, found[sample.case_id, sample.trial], inputs[sample.case_id], chosen)
            said = _answer()
            if said == "q":
                break
            runtime.database.write_now(add_label(_label(runtime, sample, who, _ANSWERS[said])))
            done += 1
        left = sample is not None
    console().print(f"{done} labelled by {escape(who)}{'; go on later' if left else ', none is left for you'}.")
    console().print(f"[dim]`handrail eval calibrate {agent}` says what the labels say of the judge.[/]")


def calibrate(agent: AgentName, judge: JudgeName = None, as_json: AsJson = False) -> None:
    """What people's labels say of the judge; exit code 1 where it is not to be trusted.

    Example: `handrail eval calibrate support-triage`
    """
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        _, spec = frozen_set(governed)
        chosen = judge_of(governed, judge)
        found, reasons = asyncio.run(measured(runtime, agent, chosen, scored_by(spec)[chosen.name]))
    if as_json:
        print_json({"judge": chosen.name, "model": chosen.model_name, "calibration": found, "distrusted": reasons})
    else:
        _show_calibration(chosen.name, found, reasons)
    if reasons:
        raise typer.Exit(1)


def _labels(database: Database, drawn: list[Sample]) -> list[Label]:
    return database.read_now(lambda conn: load_labels(conn, drawn[0].eval_run_id, drawn[0].judge))


def _label(runtime: Runtime, sample: Sample, by: str, right: bool | None) -> Label:
    return Label(
        eval_run_id=sample.eval_run_id,
        judge=sample.judge,
        case_id=sample.case_id,
        trial=sample.trial,
        by=by,
        right=right,
        at=runtime.clock.now(),
    )


def _show(database: Database, sample: Sample, trial: Trial, asked: str, judge: Judge) -> None:
    screen = console()
    screen.rule(f"{sample.position + 1}: {sample.case_id}")
    screen.print("[bold]Asked[/]", escape(sanitize(asked)), sep="\n", soft_wrap=True)
    screen.print("[bold]Answered[/]", escape(sanitize(_answered(database, trial))), sep="\n", soft_wrap=True)
    screen.print("[bold]Rubric[/]", escape(str(judge.rubric)), sep="\n", soft_wrap=True)


def _answered(database: Database, trial: Trial) -> str:
    """What the user was told; of a trial that was no run, what was observed of it."""
    try:
        outcomes = database.read_now(lambda conn: load_outcomes(conn, trial.run_id))
    except NotFound:
        outcomes = []
    body: Mapping[str, Any] = outcomes[-1].body if outcomes else {"output": trial.observed}
    said = body.get("output", body.get("message"))
    return said if isinstance(said, str) else show_value(said)


def _answer() -> str:
    while True:
        try:
            said = input("right, wrong, skip or quit (r/w/s/q): ").strip().lower()
        except EOFError:
            raise BadInput("nobody is answering here; run it in a terminal") from None
        if said in ("q", "quit"):
            return "q"
        if said in _ANSWERS:
            return said


def _show_calibration(name: str, found: Calibration | None, reasons: tuple[str, ...]) -> None:
    screen = console()
    if found is not None:
        screen.print(f"{found.labels} trials labelled, {found.failures} of them wrong, {found.doubled} by two people.")
        lines = {
            "Right ones it passes (sensitivity)": found.sensitivity,
            "Wrong ones it fails (specificity)": found.specificity,
            "J, both less 1": found.j,
            "Agreement with people (kappa)": found.kappa,
            "Agreement between people (kappa)": found.human_kappa,
            "Score as people would give it": found.corrected,
        }
        for text, interval in lines.items():
            screen.print(f"{text}: {interval or 'not enough labels'}")
        implied = "" if found.rogan_gladen is None else f"; {found.rogan_gladen:.2f} by Rogan and Gladen, a diagnostic"
        screen.print(f"Score as the judge gives it: {found.raw:.2f}{implied}")
    if reasons:
        screen.print(f"[bold red]Judge {escape(name)} is not to be trusted:[/] {'; '.join(reasons)}.", soft_wrap=True)
        screen.print("It blocks, but passes nothing by itself; more labels: `handrail eval label --share 0.4`.")
    else:
        screen.print(f"[bold green]Judge {escape(name)} is to be trusted.[/]")
