"""`handrail eval schema, history, lint, draw, take, import, export`: the set itself, before anything is run on it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from sqlalchemy import Connection

from handrail.cli.output import AsJson, console, excerpt, print_json, table
from handrail.cli.runtime import opened
from handrail.evals.eval_set.formats.conversion import Layout, read_cases, to_jsonl, to_pydantic_evals
from handrail.evals.eval_set.formats.readers import Format
from handrail.evals.eval_set.lint import Finding, lint_set
from handrail.evals.eval_set.model import EvalSet, history, load_set, set_schema
from handrail.evals.from_production.candidates import take as take_candidates
from handrail.evals.from_production.candidates import write_candidates, write_cases
from handrail.evals.from_production.sample import draw as draw_candidates
from handrail.evals.junit import to_junit
from handrail.evals.scorers.noop_baseline import passed_by_idling
from handrail.evals.store.eval_runs import load_eval_run
from handrail.kernel.errors import BadInput
from handrail.registry import find_agent
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import list_runs, load_prompt

from .gate import AgentName

_SHOWN = 6
Why = Annotated[str, typer.Option(help="The reason, kept in the lock's history.")]


def schema() -> None:
    """Print the JSON schema of a set's YAML, for editors. Example: `handrail eval schema > cases.schema.json`"""
    print_json(set_schema())


def history_of(agent: AgentName, as_json: AsJson = False) -> None:
    """What was frozen of the set, when and why, the newest first. Example: `handrail eval history support-triage`"""
    with opened() as runtime:
        changes = history(_set_path(find_agent(agent, runtime.settings)))
    if as_json:
        print_json(changes)
        return
    shown = table("frozen", "hash", "cases", "added", "changed", "removed", "why", right=("cases", "added"))
    for each in reversed(changes):
        counts = [str(len(ids)) for ids in (each.added, each.changed, each.removed)]
        shown.add_row(each.date.isoformat(), each.hash[:12], str(each.cases), *counts, excerpt(each.why, 300))
    console().print(shown)


def lint(
    agent: AgentName,
    against: Annotated[
        list[Path] | None, typer.Option(help="A text that the agent or its route has seen; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What is wrong with the agent's set; exit code 1 where there is something. The prompt is looked at, too, as the
    newest run had it.

    Example: `handrail eval lint support-triage --against route-training.txt`
    """
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        loaded = load_set(_set_path(governed))
        assert governed.trials is not None
        free = asyncio.run(passed_by_idling(governed.trials, loaded))
        prompt = _prompt(runtime, agent)
    texts = {"the prompt": prompt} if prompt else {}
    found = lint_set(loaded, free=free, texts={**texts, **{str(path): _text(path) for path in against or ()}})
    if as_json:
        print_json({"cases": len(loaded.cases), "findings": found, "prompt_known": prompt is not None})
    else:
        _show_findings(loaded, found, prompt is not None)
    if found:
        raise typer.Exit(1)


def draw(
    agent: AgentName,
    n: Annotated[int, typer.Option("--n", min=1, max=10_000, help="How many candidates.")] = 100,
    stratify: Annotated[
        Literal["path", "outcome", "tenant", "none"], typer.Option(help="What is spread evenly.")
    ] = "path",
    seed: Annotated[int, typer.Option(help="The same seed draws the same from the same runs.")] = 0,
    newest: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many of the newest runs to draw from.")
    ] = 10_000,
    out: Annotated[Path, typer.Option(help="The file to write; it must not be there yet.")] = Path("candidates.yaml"),
    as_json: AsJson = False,
) -> None:
    """Draw inputs from production for people to complete: at random, evenly over the paths, redacted.

    Example: `handrail eval draw support-triage --n 100 --stratify path`
    """
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        loaded = load_set(_set_path(governed))
        drawing = draw_candidates(runtime, governed, n=n, seed=seed, stratify=stratify, newest=newest)
        drawn = asyncio.run(drawing)
        write_candidates(out, drawn, agent, loaded)
    if as_json:
        print_json({"file": out, "drawn": drawn})
        return
    screen = console()
    screen.print(f"[bold]{len(drawn.candidates)} candidates[/] in {excerpt(str(out), 200)}, of {drawn.looked_at} runs.")
    strata = Counter((each.stratum, each.of) for each in drawn.candidates)
    screen.print(", ".join(f"{excerpt(name, 40)} {count} of {of}" for (name, of), count in sorted(strata.items())))
    _show_counts("Left out", drawn.left_out)
    _show_counts(f"Redacted by {excerpt(drawn.redaction, 100)}", drawn.redacted)
    screen.print("A redaction finds only what it knows: read every input before you keep it.")
    screen.print(f'[dim]Fill in `expect`, then `handrail eval take {agent} {excerpt(str(out), 200)} --why "..."`[/]')


def take(agent: AgentName, file: Annotated[Path, typer.Argument(help="A file of candidates.")], why: Why) -> None:
    """Add the completed candidates of a file to the agent's set, and freeze it.

    Example: `handrail eval take support-triage candidates.yaml --why "what November asked"`
    """
    with opened() as runtime:
        path = _set_path(find_agent(agent, runtime.settings))
        taken = take_candidates(path, file, why, runtime.clock.now().date())
    screen = console()
    screen.print(f"[bold]{len(taken.cases)} cases[/] more: {excerpt(', '.join(taken.cases), 600)}", soft_wrap=True)
    if taken.open:
        screen.print(f"{len(taken.open)} candidates are not completed, and were left alone.")
    screen.print(f"Frozen as {taken.frozen.content_hash[:12]}.")
    screen.print(f"[dim]The set has changed: `handrail eval baseline {agent}` is next, before the agent changes.[/]")


def import_(
    file: Annotated[Path, typer.Argument(help="A file of another tool.")],
    name: Annotated[str, typer.Option(help="What the set is called, as a rule like its agent.")],
    source: Annotated[str, typer.Option(help="Where cases come from that do not say so themselves.")],
    out: Annotated[Path, typer.Option(help="The set to write; it must not be there yet.")] = Path("cases.yaml"),
    format_: Annotated[
        Format | None, typer.Option("--format", help="By the file's suffix where it is not given.")
    ] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Where a field stands; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a set of a file of pydantic-evals, promptfoo, CSV or JSON Lines. Read it, then freeze it.

    Example: `handrail eval import tickets.csv --name triage --source "tickets of May" --map expect.queue=queue`
    """
    with opened() as runtime:
        today = runtime.clock.now().date()
    found = read_cases(file, Layout(source=source, date=today, columns=_columns(map_ or ())), format_)
    write_cases(out, name, f"Imported from {file.name}.", found.cases)
    load_set(out)
    if as_json:
        print_json({"file": out, "cases": len(found.cases), "left_out": found.left_out})
        return
    console().print(f"[bold]{len(found.cases)} cases[/] in {excerpt(str(out), 200)}; not frozen yet.")
    _show_counts("Left out", found.left_out)


def export(
    what: Annotated[str, typer.Argument(help="An agent, for its set; or the id of an eval run, for JUnit.")],
    to: Annotated[Literal["pydantic-evals", "jsonl", "junit"], typer.Option(help="The format.")],
) -> None:
    """Print a set in another tool's format, or an eval run as JUnit XML.

    Example: `handrail eval export support-triage --to pydantic-evals > dataset.yaml`
    """
    with opened() as runtime:
        if to == "junit":
            view, trials = runtime.database.read_now(lambda conn: load_eval_run(conn, what))
            cases = _cases_of(find_agent(view.agent, runtime.settings), view.set_hash)
            typer.echo(to_junit(view, trials, cases), nl=False)
            return
        loaded = load_set(_set_path(find_agent(what, runtime.settings)))
    typer.echo(to_jsonl(loaded) if to == "jsonl" else to_pydantic_evals(loaded), nl=False)


def _set_path(agent: GovernedAgent[Any, Any]) -> Path:
    if agent.trials is None:
        raise BadInput(f"agent {agent.name} has no eval set; pass `trials=Trials(cases=..., observe=...)` to govern()")
    return agent.trials.cases


def _cases_of(agent: GovernedAgent[Any, Any], set_hash: str) -> Sequence[Any]:
    """The set's cases, where it still is what the eval run saw."""
    loaded = load_set(_set_path(agent))
    return loaded.cases if loaded.content_hash == set_hash else ()


def _prompt(runtime: Runtime, agent: str) -> str | None:
    """The prompt as it was sent in the agent's newest run that reached a model."""
    now = runtime.clock.now()

    def load(conn: Connection) -> str | None:
        runs = list_runs(conn, now, tenant=None, agent=agent, limit=100, before=None)
        known = next((run.fingerprint for run in runs if run.fingerprint), None)
        return load_prompt(conn, known.rendered) if known else None

    return runtime.database.read_now(load)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--against {path}: cannot be read as UTF-8 text ({error}); check the path") from error


def _columns(given: Sequence[str]) -> dict[str, str]:
    known = ("id", "input", "expect", "source", "date", "tags")
    found: dict[str, str] = {}
    for text in given:
        field, equals, column = text.partition("=")
        if not (equals and column and (field in known or field.removeprefix("expect.") not in ("", field))):
            raise BadInput(f"--map {text!r} is not FIELD=COLUMN with a field of {', '.join(known)} or expect.NAME")
        found[field] = column
    return found


def _show_findings(loaded: EvalSet, found: Sequence[Finding], prompt_known: bool) -> None:
    screen = console()
    for each in found:
        more = f" and {len(each.cases) - _SHOWN} more" if len(each.cases) > _SHOWN else ""
        cases = f"  [dim]{', '.join(each.cases[:_SHOWN])}{more}[/]" if each.cases else ""
        screen.print(f"[bold yellow]{each.kind}[/]  {excerpt(each.says, 400)}{cases}")
    if not prompt_known:
        screen.print("The prompt was not looked at: no run has reached a model yet.")
    if not found:
        screen.print(f"[green]Nothing to mend[/] in {len(loaded.cases)} cases.")


def _show_counts(title: str, counts: Mapping[str, int]) -> None:
    if counts:
        console().print(f"{title}: {', '.join(f'{excerpt(what, 60)} {count}' for what, count in counts.items())}")
