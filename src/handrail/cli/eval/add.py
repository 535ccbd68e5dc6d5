"""`handrail eval add`: adds a production run to the eval set as a case."""

import asyncio
from typing import Annotated

import typer

from handrail.cli.options import AsJson, By, Expected, parse_fields, resolve_by
from handrail.cli.output import console, excerpt, print_json
from handrail.cli.runtime import open_runtime
from handrail.evals.from_production.from_run import AddedCase, add_case
from handrail.kernel.text import format_json
from handrail.registry import find_eval_spec

from .options import AgentName, Reason


def add(
    agent: AgentName,
    from_run: Annotated[str, typer.Option(help="A run's id, or its beginning.")],
    why: Reason,
    expected: Expected = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="The case's id; by default it follows from the run's.")
    ] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Add a production run to the eval set as a case that expects what its feedback or --expected names.

    Example: `handrail eval add support-triage --from-run run_01k --expected refund=true --why "asked twice, paid once"`
    """
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        fields = parse_fields(expected or ())
        added = asyncio.run(add_case(runtime, spec, from_run, why=why, by=resolve_by(by), expected=fields, case_id=id_))
    if as_json:
        frozen = added.frozen
        print_json({"case": added.case, "lock": frozen.lock, "hash": frozen.content_hash, "written": frozen.written})
    else:
        _show(agent, added)


def _show(agent: str, added: AddedCase) -> None:
    screen, case = console(), added.case
    screen.print(f"[bold]{case.id}[/]  {excerpt(case.source, 300)}", soft_wrap=True)
    screen.print(f"Input     {excerpt(case.input, 600)}", soft_wrap=True)
    expected = ", ".join(f"{name}: {format_json(value)}" for name, value in case.expect.items())
    screen.print(f"Expected  {excerpt(expected, 600)}", soft_wrap=True)
    screen.print(
        f"Frozen as {added.frozen.content_hash[:12]}. The eval set now contains the user's words: read them "
        "before you commit.",
        soft_wrap=True,
    )
    screen.print(
        f"[dim]The eval set has changed: run `handrail eval baseline {agent}` before you change the agent.[/]",
        soft_wrap=True,
    )
