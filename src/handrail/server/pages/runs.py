"""How runs ended, and the story of one, with the form for a verdict on it."""

import yaml
from fastapi import APIRouter
from pydantic import JsonValue
from starlette.responses import Response

from handrail.kernel.errors import BadInput
from handrail.runs.feedback import feedback
from handrail.runs.runtime import use_runtime
from handrail.server.params import Before, Id, Word

from .context import PAGE, Looking

router = APIRouter(include_in_schema=False)


@router.get("/runs")
async def list_(look: Looking, agent: Word = "", before: Before = None) -> Response:
    """The newest runs."""
    found = await look.reads.runs(agent=agent or None, limit=PAGE, before=before)
    return look.page("runs.html", runs=found, agent=agent, before=before, more=len(found) == PAGE)


@router.get("/runs/{run_id}")
async def show(look: Looking, run_id: Id) -> Response:
    """One run."""
    return look.page("run.html", story=await look.reads.story(run_id))


@router.post("/runs/{run_id}/verdict")
async def judge(look: Looking, run_id: Id) -> Response:
    """Takes the visitor's verdict; the newest counts."""
    fields = await look.form()
    run = (await look.reads.story(run_id)).run
    by = look.visitor.person or ""
    with use_runtime(look.site.runtime):
        await feedback(
            run.run_id,
            right=fields.get("right") == "yes",
            by=by,
            should=read_fields(fields.get("should", "")) or None,
            note=fields.get("note") or None,
            tenant=run.tenant,
        )
    if fields.get("from") == "trace":
        return look.back("traces", run.trace_id)
    return look.back("runs", run.run_id)


def read_fields(text: str) -> dict[str, JsonValue]:
    """Lines of `FIELD: VALUE`, each value a text, a number, true, false or null. Raises BadInput."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        found = text
    plain = isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, str | int | float | None) for name, value in found.items()
    )
    if found is not None and not plain:
        raise BadInput("should have been: write a line for each field, such as `refund: true`")
    return found or {}
