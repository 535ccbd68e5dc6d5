"""`handrail eval baseline`, `gate` and `add`: what an agent has to beat, whether it does, and cases from production."""

import asyncio
from dataclasses import asdict
from fractions import Fraction
from typing import Annotated, Any

import typer

from handrail.agents import find_agent
from handrail.evals import EvalSet, Gated, Grown, add_case, frozen_set, load_eval_run, promote, set_baseline
from handrail.evals import gate as run_gate

from .screen import AsJson, console, excerpt, print_json, show_time, table
from .session import opened
from .trials import score_of, show_value, watched, what_differed
from .typed import By, Should, person, read_fields

AgentName = Annotated[str, typer.Argument(help="The agent's name.")]
AtOnce = Annotated[int, typer.Option(min=1, max=1_000, help="How many trials side by side.")]


def baseline(
    agent: AgentName,
    from_: Annotated[
        str | None, typer.Option("--from", help="An eval run that is there, instead of a new one.")
    ] = None,
    at_once: AtOnce = 1,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Set what the gate compares with: the agent as it is in production.

    Example: `handrail eval baseline support-triage`
    """
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        if from_ is not None:
            found = asyncio.run(promote(runtime, governed, from_, by=person(by)))
        else:
            loaded, _ = frozen_set(governed)
            with watched(agent, len(loaded.cases), hidden=as_json) as advance:
                running = set_baseline(runtime, governed, by=person(by), at_once=at_once, on_trial=advance)
                found = asyncio.run(running)
        _, trials = runtime.database.read_now(lambda conn: load_eval_run(conn, found.eval_run_id))
    if as_json:
        print_json({"baseline": found, "score": score_of(trials)})
        return
    console().print(
        f"[bold]Baseline {score_of(trials)}[/], agent {_short(found.agent_hash)}, set {_short(found.set_hash)}"
    )
    console().print(f"[dim]`handrail eval gate {agent}` compares the agent with it after a change.[/]")


def gate(agent: AgentName, at_once: AtOnce = 1, as_json: AsJson = False) -> None:
    """Compare the agent with its baseline; exit code 1 where its score fell too far, 2 where nobody can tell.

    Example: `handrail eval gate support-triage`
    """
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        loaded, _ = frozen_set(governed)
        with watched(agent, len(loaded.cases), hidden=as_json) as advance:
            gated = asyncio.run(run_gate(runtime, governed, at_once=at_once, on_trial=advance))
    if as_json:
        print_json(_as_json(gated))
    else:
        _show_gate(gated, loaded)
    if not gated.verdict.passed:
        raise typer.Exit(1)


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


def _show_gate(gated: Gated, loaded: EvalSet) -> None:
    screen, verdict = console(), gated.verdict
    said = str(verdict)
    screen.print(f"[bold {'green' if verdict.passed else 'red'}]{said[0].upper()}{said[1:]}.[/]", soft_wrap=True)
    expected = {case.id: case.expect for case in loaded.cases}
    trials = {trial.case_id: trial for trial in gated.report.trials}
    if verdict.newly_failing:
        shown = table("newly failing", "what differed", "run")
        for case_id in verdict.newly_failing:
            trial = trials[case_id]
            shown.add_row(case_id, excerpt(what_differed(expected[case_id], trial), 300), trial.run_id)
        screen.print(shown)
    if verdict.newly_passing:
        screen.print(f"Newly passing: {', '.join(verdict.newly_passing)}")
    base = gated.baseline
    screen.print(f"Baseline: agent {_short(base.agent_hash)}, {show_time(base.at)}, by {excerpt(base.by, 100)}")
    same = ", the same" if gated.agent_hash == base.agent_hash else ""
    screen.print(f"Candidate: agent {_short(gated.agent_hash)}{same}; set {_short(base.set_hash)}")
    screen.print(f"[dim]`handrail eval show {gated.report.eval_run_id}` shows every case.[/]")


def _as_json(gated: Gated) -> dict[str, Any]:
    verdict = {
        name: float(value) if isinstance(value, Fraction) else value for name, value in asdict(gated.verdict).items()
    }
    return {
        "verdict": verdict,
        "says": str(gated.verdict),
        "baseline": gated.baseline,
        "agent_hash": gated.agent_hash,
        "report": gated.report,
    }


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


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "unknown (no model was reached)"
