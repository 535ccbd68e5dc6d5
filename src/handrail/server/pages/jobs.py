"""The jobs page: background work that is not done, why it failed, and the form that lets workers try it again.

For operators only.
"""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import RedirectResponse, Response

from handrail.kernel.db.jobs import JobState, JobView

from .context import PAGE_SIZE, Page

router = APIRouter(include_in_schema=False)

JobKeyQuery = Annotated[str | None, Query(pattern="^[0-9A-Za-z_:.-]{1,200}$")]


@router.get("/jobs")
async def list_jobs(
    page: Page,
    state: Annotated[JobState | None, Query()] = None,
    before: JobKeyQuery = None,
    requeued: JobKeyQuery = None,
) -> Response:
    """The jobs that are not done, by their state; or a page of those in one state."""
    if state is None:
        groups: Mapping[JobState, list[JobView]] = await page.jobs.unfinished(PAGE_SIZE)
    else:
        groups = {state: await page.jobs.jobs(state, PAGE_SIZE, before)}
    return page.render(
        "jobs.html",
        groups={name: jobs for name, jobs in groups.items() if jobs},
        state=state,
        before=before,
        requeued=requeued,
        page_size=PAGE_SIZE,
    )


@router.post("/jobs/requeue")
async def requeue_job(page: Page) -> Response:
    """Lets workers try a dead job again."""
    jobs = page.jobs
    fields = await page.form_fields()
    job = await jobs.requeue(fields.get("key", ""))
    return RedirectResponse(page.state.renderer.url("jobs", tenant=page.tenant_filter, requeued=job.key), 303)
