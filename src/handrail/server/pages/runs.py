"""The list of runs, and one run with the form for feedback."""

import yaml
from fastapi import APIRouter
from pydantic import JsonValue
from starlette.responses import Response

from handrail.kernel.errors import BadInput
from handrail.runs.feedback import feedback
from handrail.runs.runtime import use_runtime
from handrail.server.params import BeforeQuery, IdPath, TextQuery
from handrail.server.view_models.runs import escalation_advice

from .context import PAGE_SIZE, Page

router = APIRouter(include_in_schema=False)


@router.get("/runs")
async def list_runs(page: Page, agent: TextQuery = "", before: BeforeQuery = None) -> Response:
    """The newest runs."""
    runs = await page.queries.runs(agent=agent or None, limit=PAGE_SIZE, before=before)
    return page.render("runs.html", runs=runs, agent=agent, before=before, more=len(runs) == PAGE_SIZE)


@router.get("/runs/{run_id}")
async def show_run(page: Page, run_id: IdPath) -> Response:
    """One run."""
    return page.render("run.html", detail=await page.queries.run(run_id), escalation_advice=escalation_advice)


@router.post("/runs/{run_id}/feedback")
async def submit_feedback(page: Page, run_id: IdPath) -> Response:
    """Records feedback on a run."""
    fields = await page.form_fields()
    run = (await page.queries.run(run_id)).run
    with use_runtime(page.state.runtime):
        await feedback(
            run.run_id,
            right=fields.get("right") == "yes",
            by=page.principal.name or "",
            expected=read_fields(fields.get("expected", "")) or None,
            note=fields.get("note") or None,
            tenant=run.tenant,
        )
    if fields.get("from") == "trace":
        return page.redirect("traces", run.trace_id)
    return page.redirect("runs", run.run_id)


def read_fields(text: str) -> dict[str, JsonValue]:
    """Reads the fields of an expected outcome.

    Args:
        text: A line `FIELD: VALUE` for each, in YAML; values are text, numbers, true, false or null.

    Raises:
        BadInput: The text has another form.
    """
    try:
        fields = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        fields = text
    is_flat = isinstance(fields, dict) and all(
        isinstance(name, str) and isinstance(value, str | int | float | None) for name, value in fields.items()
    )
    if fields is not None and not is_flat:
        raise BadInput("expected outcome: write one line for each field, such as `refund: true`")
    return fields or {}
