"""The public function `feedback`: records what a person thinks of a run's outcome."""

from collections.abc import Mapping
from typing import Any

from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.feedback import Feedback, add_feedback
from handrail.runs.store.queries import load_run

from .request import validate_name
from .runtime import current_runtime


async def feedback(
    run_id: str,
    *,
    right: bool,
    by: str,
    expected: Mapping[str, Any] | None = None,
    note: str | None = None,
    tenant: str | None = None,
) -> Feedback:
    """Records a person's feedback on a run; of several, the newest counts.

    It may become a case of an eval set (`handrail eval add`).

    Args:
        run_id: The run, or the beginning of its id if no other run's id begins with that.
        right: Whether the outcome was right.
        by: Who says so.
        expected: Fields of the right outcome, as the agent's eval set names them.
        note: A remark.
        tenant: Only a run of this tenant is found; None for any.

    Returns:
        The feedback as it is stored.

    Raises:
        NotFound: If there is no such run, or more than one.
        BadInput: If the run has not ended, or `by` is not a valid name.
    """
    runtime = current_runtime()
    now = runtime.clock.now()
    run = await runtime.database.read(load_run(run_id, now, tenant))
    if run.status in ("running", "awaiting_approval"):
        raise BadInput(f"run {run.run_id} is {run.status}; give feedback once it has ended")
    given = Feedback(
        feedback_id=new_id("feedback", now),
        run_id=run.run_id,
        tenant=run.tenant,
        right=right,
        expected=expected,
        note=note,
        by=validate_name("by", by),
        at=now,
    )
    await runtime.database.write(add_feedback(given))
    return given
