"""`handrail eval schema, history, lint, sample, accept, import, export`: commands for an eval set itself."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from sqlalchemy import Connection

from handrail.cli.options import AsJson
from handrail.cli.output import console, excerpt, print_json, table
from handrail.cli.runtime import open_runtime
from handrail.evals.eval_set.formats.conversion import ImportOptions, read_cases, to_jsonl, to_pydantic_evals
from handrail.evals.eval_set.formats.readers import Format
from handrail.evals.eval_set.lint import LintIssue, lint_eval_set
from handrail.evals.eval_set.lock import freeze_history
from handrail.evals.eval_set.model import EvalSet, eval_set_schema, load_eval_set
from handrail.evals.from_production.candidates import accept_candidates, write_candidates, write_cases
from handrail.evals.from_production.sample import sample_candidates
from handrail.evals.junit import eval_run_to_junit
from handrail.evals.scorers.noop_baseline import passed_by_noop
from handrail.evals.spec import EvalSpec
from handrail.evals.store.eval_runs import load_eval_run
from handrail.kernel.db.operation import operation
from handrail.kernel.errors import BadInput
from handrail.registry import find_eval_spec
from handrail.runs.store.queries import list_runs, load_prompt

from .options import AgentName, Reason

_MAX_IDS_SHOWN = 6


def schema() -> None:
    """Print the JSON schema of an eval set's YAML, for editors.

    Example: `handrail eval schema > cases.schema.json`
    """
    print_json(eval_set_schema())


def history(agent: AgentName, as_json: AsJson = False) -> None:
    """Show when and why the eval set was frozen, newest first.

    Example: `handrail eval history support-triage`
    """
    with open_runtime() as runtime:
        entries = freeze_history(find_eval_spec(agent, runtime.settings).cases)
    if as_json:
        print_json(entries)
        return
    rows = table("frozen", "hash", "cases", "added", "changed", "removed", "why", right=("cases", "added"))
    for entry in reversed(entries):
        counts = [str(len(ids)) for ids in (entry.added, entry.changed, entry.removed)]
        rows.add_row(entry.date.isoformat(), entry.hash[:12], str(entry.cases), *counts, excerpt(entry.why, 300))
    console().print(rows)


def lint(
    agent: AgentName,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A text that was used to write or train the agent or its route; can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the agent's eval set for weaknesses; exit code 1 if there are any.

    The prompt of the agent's newest run is checked for leaked inputs too.

    Example: `handrail eval lint support-triage --against route-training.txt`
    """
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        eval_set = load_eval_set(spec.cases)
        noop_passes = asyncio.run(passed_by_noop(spec, eval_set))
        prompt = runtime.database.read_now(_load_newest_prompt(agent, runtime.clock.now()))
    texts = {"the prompt": prompt} if prompt else {}
    texts |= {str(path): _read_text(path) for path in against or ()}
    issues = lint_eval_set(eval_set, noop_passes=noop_passes, texts=texts)
    if as_json:
        print_json({"cases": len(eval_set.cases), "issues": issues, "prompt_known": prompt is not None})
    else:
        _show_issues(eval_set, issues, prompt is not None)
    if issues:
        raise typer.Exit(1)


def sample(
    agent: AgentName,
    n: Annotated[int, typer.Option("--n", min=1, max=10_000, help="How many candidates to sample.")] = 100,
    stratify: Annotated[
        Literal["path", "outcome", "tenant", "none"], typer.Option(help="What to spread the sample equally over.")
    ] = "path",
    seed: Annotated[int, typer.Option(help="The same seed gives the same sample of the same runs.")] = 0,
    newest: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many of the newest runs to sample from.")
    ] = 10_000,
    out: Annotated[Path, typer.Option(help="The file to create; it must not exist.")] = Path("candidates.yaml"),
    as_json: AsJson = False,
) -> None:
    """Sample inputs of production runs as candidates for the eval set, redacted, for people to complete.

    Example: `handrail eval sample support-triage --n 100 --stratify path`
    """
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        eval_set = load_eval_set(spec.cases)
        sampled = asyncio.run(sample_candidates(runtime, spec, n=n, seed=seed, stratify=stratify, newest=newest))
        write_candidates(out, sampled, agent, eval_set)
    if as_json:
        print_json({"file": out, "sample": sampled})
        return
    screen = console()
    file = excerpt(str(out), 200)
    screen.print(f"[bold]{len(sampled.candidates)} candidates[/] from {sampled.runs} runs, written to {file}.")
    strata = Counter((candidate.stratum, candidate.stratum_runs) for candidate in sampled.candidates)
    screen.print(", ".join(f"{excerpt(name, 40)} {count} of {of}" for (name, of), count in sorted(strata.items())))
    _show_counts("Left out", sampled.left_out)
    _show_counts(f"Redacted by {excerpt(sampled.redaction, 100)}", sampled.redacted)
    screen.print("Redaction finds only the patterns it knows: read every input before you keep it.")
    screen.print(f'[dim]Fill in `expect`, then run `handrail eval accept {agent} {file} --why "..."`[/]')


def accept(agent: AgentName, file: Annotated[Path, typer.Argument(help="A file of candidates.")], why: Reason) -> None:
    """Add the completed candidates of a file to the agent's eval set, and freeze it.

    Example: `handrail eval accept support-triage candidates.yaml --why "questions from November"`
    """
    with open_runtime() as runtime:
        path = find_eval_spec(agent, runtime.settings).cases
        accepted = accept_candidates(path, file, why, runtime.clock.now().date())
    screen = console()
    ids = excerpt(", ".join(accepted.cases), 600)
    screen.print(f"[bold]{len(accepted.cases)} cases[/] added: {ids}", soft_wrap=True)
    if accepted.incomplete:
        screen.print(f"{len(accepted.incomplete)} candidates are incomplete and were left out.")
    screen.print(f"Frozen as {accepted.frozen.content_hash[:12]}.")
    screen.print(f"[dim]The eval set has changed: run `handrail eval baseline {agent}` before you change the agent.[/]")


def import_(
    file: Annotated[Path, typer.Argument(help="A file of another tool.")],
    name: Annotated[str, typer.Option(help="The name of the eval set, usually that of its agent.")],
    source: Annotated[str, typer.Option(help="The source of cases that do not name their own.")],
    out: Annotated[Path, typer.Option(help="The eval set to create; it must not exist.")] = Path("cases.yaml"),
    format_: Annotated[
        Format | None, typer.Option("--format", help="The file's format; by default derived from its suffix.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Where the file has a field; can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an eval set from a file of pydantic-evals, promptfoo, CSV or JSON Lines. Review it, then freeze it.

    Example: `handrail eval import tickets.csv --name triage --source "tickets of May" --map expect.queue=queue`
    """
    with open_runtime() as runtime:
        today = runtime.clock.now().date()
    options = ImportOptions(source=source, date=today, columns=_parse_mapping(map_ or ()))
    imported = read_cases(file, options, format_)
    write_cases(out, name, f"Imported from {file.name}.", imported.cases)
    load_eval_set(out)
    if as_json:
        print_json({"file": out, "cases": len(imported.cases), "left_out": imported.left_out})
        return
    console().print(f"[bold]{len(imported.cases)} cases[/] in {excerpt(str(out), 200)}, not frozen yet.")
    _show_counts("Left out", imported.left_out)


def export(
    what: Annotated[str, typer.Argument(help="An agent, to export its eval set; or an eval run's id, for JUnit.")],
    to: Annotated[Literal["pydantic-evals", "jsonl", "junit"], typer.Option(help="The format.")],
) -> None:
    """Print an eval set in another tool's format, or an eval run as JUnit XML.

    Example: `handrail eval export support-triage --to pydantic-evals > dataset.yaml`
    """
    with open_runtime() as runtime:
        if to == "junit":
            view, trials = runtime.database.read_now(load_eval_run(what))
            cases = _unchanged_cases(find_eval_spec(view.agent, runtime.settings), view.set_hash)
            typer.echo(eval_run_to_junit(view, trials, cases), nl=False)
            return
        eval_set = load_eval_set(find_eval_spec(what, runtime.settings).cases)
    typer.echo(to_jsonl(eval_set) if to == "jsonl" else to_pydantic_evals(eval_set), nl=False)


def _unchanged_cases(spec: EvalSpec[Any, Any], set_hash: str) -> Sequence[Any]:
    """The cases, if the eval set is still the one that the eval run used; none otherwise."""
    eval_set = load_eval_set(spec.cases)
    return eval_set.cases if eval_set.content_hash == set_hash else ()


@operation
def _load_newest_prompt(conn: Connection, agent: str, now: datetime) -> str | None:
    """The rendered prompt of the agent's newest run that reached a model."""
    runs = list_runs(now, tenant=None, agent=agent, limit=100, before=None)(conn)
    fingerprint = next((run.fingerprint for run in runs if run.fingerprint), None)
    return load_prompt(fingerprint.rendered)(conn) if fingerprint else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--against {path}: cannot be read as UTF-8 text ({error}); check the path") from error


def _parse_mapping(options: Sequence[str]) -> dict[str, str]:
    known = ("id", "input", "expect", "source", "date", "tags")
    columns: dict[str, str] = {}
    for option in options:
        field, equals, column = option.partition("=")
        if not (equals and column and (field in known or field.removeprefix("expect.") not in ("", field))):
            raise BadInput(f"--map {option!r} is not FIELD=COLUMN, with FIELD one of {', '.join(known)} or expect.NAME")
        columns[field] = column
    return columns


def _show_issues(eval_set: EvalSet, issues: Sequence[LintIssue], prompt_known: bool) -> None:
    screen = console()
    for issue in issues:
        more = f" and {len(issue.cases) - _MAX_IDS_SHOWN} more" if len(issue.cases) > _MAX_IDS_SHOWN else ""
        cases = f"  [dim]{', '.join(issue.cases[:_MAX_IDS_SHOWN])}{more}[/]" if issue.cases else ""
        screen.print(f"[bold yellow]{issue.kind}[/]  {excerpt(issue.message, 400)}{cases}")
    if not prompt_known:
        screen.print("The prompt was not checked: no run has reached a model yet.")
    if not issues:
        screen.print(f"[green]No issues[/] in {len(eval_set.cases)} cases.")


def _show_counts(title: str, counts: Mapping[str, int]) -> None:
    if counts:
        console().print(f"{title}: {', '.join(f'{excerpt(kind, 60)} {count}' for kind, count in counts.items())}")
