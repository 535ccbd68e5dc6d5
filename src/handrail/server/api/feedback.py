"""The API's feedback on runs."""

from fastapi import APIRouter, Request

from handrail.runs.feedback import feedback
from handrail.runs.runtime import use_runtime
from handrail.server.params import IdPath
from handrail.server.state import app_state

from .dependencies import RunPrincipal, queries_for
from .schemas import FeedbackRequestBody, FeedbackResponse, feedback_response

router = APIRouter(prefix="/v1")


@router.post("/runs/{run_id}/feedback", status_code=201)
async def give_feedback(
    request: Request, run_id: IdPath, body: FeedbackRequestBody, principal: RunPrincipal
) -> FeedbackResponse:
    """Records whether a run's outcome was right. The newest feedback counts, and may become an eval case."""
    run = (await queries_for(request, principal).run(run_id)).run
    with use_runtime(app_state(request).runtime):
        recorded = await feedback(
            run.run_id, right=body.right, by=body.by, expected=body.expected, note=body.note, tenant=run.tenant
        )
    return feedback_response(recorded)
