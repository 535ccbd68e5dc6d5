"""What each kind of job does. A job may run more than once, so a handler checks whether its work is already done."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from handrail.kernel.errors import HandrailError
from handrail.review.approvals.queries import load_approval
from handrail.review.approvals.store import expire
from handrail.runs.agent import GovernedAgent
from handrail.runs.errors import DepsMissing, NotResumable
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import load_run
from handrail.runs.unresumable import escalate_unresumable

FindAgent: TypeAlias = Callable[[str], GovernedAgent[Any, Any]]
"""Returns the agent with a name; raises NotFound for an unknown name."""

RESUME = "resume_run"

_logger = logging.getLogger(__package__)


class AgentUnavailable(HandrailError):
    """This process cannot load the agent; another worker may know it."""

    code: ClassVar[str] = "agent_unavailable"


class WaitsForCaller(HandrailError):
    """The run was given its deps by its caller, who has to resume it."""

    code: ClassVar[str] = "waits_for_caller"


class RunsElsewhere(HandrailError):
    """Another process is working on the run; the job is kept in case that one dies."""

    code: ClassVar[str] = "runs_elsewhere"


async def approval_fields(runtime: Runtime, approval_id: str) -> dict[str, str]:
    """The `extra` fields of log records about an approval.

    Args:
        runtime: The runtime whose store has the approval.
        approval_id: Its whole id.
    """
    approval = await runtime.database.read(load_approval(approval_id, runtime.clock.now()))
    return {"approval_id": approval_id, "run_id": approval.run_id, "tenant": approval.tenant}


async def escalate_resume(runtime: Runtime, payload: Mapping[str, Any], error: str) -> None:
    """Hands a run whose resume job is given up to a person, unless another process has the run.

    Args:
        runtime: The runtime whose store has the run.
        payload: The job's.
        error: Why it is given up.
    """
    if await escalate_unresumable(runtime, payload["run_id"], error):
        _logger.error("run could not be resumed and was escalated", extra={"run_id": payload["run_id"]})


async def _resume(runtime: Runtime, find_agent: FindAgent, payload: Mapping[str, Any]) -> None:
    run_id = payload["run_id"]
    run = await runtime.database.read(load_run(run_id, runtime.clock.now()))
    try:
        agent = find_agent(run.agent)
    except Exception as error:
        # Also a module that cannot be imported here: a package or a variable may be missing.
        raise AgentUnavailable(f"agent {run.agent}: {type(error).__name__}: {error}") from error
    try:
        await agent.resume(run_id)
    except DepsMissing as error:
        # Only its caller can resume it. But if the caller's process died, people have to know what it was executing.
        if run.status != "interrupted":
            raise WaitsForCaller(str(error)) from error
        await escalate_resume(runtime, payload, f"{error}; the process that resumed it is gone")
    except NotResumable:
        run = await runtime.database.read(load_run(run_id, runtime.clock.now()))
        if run.status == "running":
            raise RunsElsewhere(f"another process is working on run {run_id}") from None


async def _expire(runtime: Runtime, _find_agent: FindAgent, payload: Mapping[str, Any]) -> None:
    [expired] = await runtime.database.write(expire(payload["approval_id"], runtime.clock.now()))
    if expired:
        _logger.info("approval expired", extra=await approval_fields(runtime, payload["approval_id"]))


HANDLERS: Mapping[str, Callable[[Runtime, FindAgent, Mapping[str, Any]], Awaitable[None]]] = {
    RESUME: _resume,
    "expire_approval": _expire,
}
"""What runs the jobs of each kind."""
