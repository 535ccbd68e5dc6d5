"""What a person says of a run afterwards: right or wrong, and what it should have been."""

from collections.abc import Mapping
from typing import Any

from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.feedback import Verdict, give_verdict
from handrail.runs.store.runs import load_run

from .request import checked_name
from .runtime import current_runtime


async def feedback(
    run_id: str,
    *,
    right: bool,
    by: str,
    should: Mapping[str, Any] | None = None,
    note: str | None = None,
    tenant: str | None = None,
) -> Verdict:
    """Keeps a person's verdict on a run; the newest counts. It may become an eval case (`handrail eval add`).

    `should` holds fields of the right outcome, as the agent's eval set names them. Only a run of `tenant` is found,
    where one is given. Raises NotFound for the run, BadInput for a name that is none.
    """
    runtime = current_runtime()
    now = runtime.clock.now()
    run = await runtime.database.read(lambda conn: load_run(conn, run_id, now, tenant))
    if run.status in ("running", "awaiting_approval"):
        raise BadInput(f"run {run.run_id} is {run.status}; judge it when it has ended")
    verdict = Verdict(
        verdict_id=new_id("verdict", now),
        run_id=run.run_id,
        tenant=run.tenant,
        right=right,
        should=should,
        note=note,
        by=checked_name("by", by),
        at=now,
    )
    await runtime.database.write(give_verdict(verdict))
    return verdict
