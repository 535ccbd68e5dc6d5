"""`Governance` governs agents that other code runs itself (`agent.iter`, AG-UI, an agent as a tool)."""

from dataclasses import dataclass
from typing import Any

from pydantic_ai import DeferredToolRequests, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.run import AgentRunResult

from handrail.kernel.ids import new_id

from . import user_messages
from .completion import commit_exception, commit_outcome
from .errors import CeilingReached, InnerActionBlocked
from .execution import blocked_inner_outcome, refused_outcome
from .faults import fault_from
from .fingerprint import define_agent
from .finish import OutputCut
from .outcome import Answered, Escalated, Failed, Fault, Outcome, proposals_of
from .record import RunRecord
from .request import RunRequest, validate_input, validate_name
from .request_hook import sending
from .run_governance import RunGovernance
from .runtime import current_runtime


@dataclass
class Governance(AbstractCapability[Any]):
    """Records and governs the runs it is attached to, for one user of one tenant.

    Example::

        result = await agent.run("Hello", capabilities=[Governance(name="support", user="u-1", tenant="acme")])

    A fault is recorded as `Failed` and its exception propagates; a ceiling is recorded as `Refused` and raised as
    `CeilingReached`. There is no fallback; that is up to the caller. If a tool is irreversible, the agent needs
    `DeferredToolRequests` among its output types; such runs are recorded as `Escalated` with their proposals, since
    only agents made by `govern` can be resumed.

    Args:
        name: The agent's name, 1 to 200 printable characters.
        user: Whom the agent runs for; their daily ceiling is charged.
        tenant: The tenant that the run belongs to; its monthly ceiling is charged.

    Raises:
        BadInput: A run was started with an input or a name that is not valid.
    """

    name: str = ""
    user: str = ""
    tenant: str = "default"

    async def for_run(self, ctx: RunContext[Any]) -> AbstractCapability[Any]:
        """Opens the record of a run; Pydantic AI calls this when the run starts.

        Args:
            ctx: The run's context.

        Returns:
            The capability that governs this one run.
        """
        runtime = current_runtime()
        assert ctx.agent is not None
        run_id = new_id("run", runtime.clock.now())
        request = RunRequest(
            run_id=run_id,
            agent=validate_name("name", self.name),
            input=validate_input(ctx.prompt, may_be_empty=bool(ctx.messages)),
            user=validate_name("user", self.user),
            tenant=validate_name("tenant", self.tenant),
            conversation_id=ctx.conversation_id or run_id,
            deps=ctx.deps,
        )
        return _RecordedRun(RunRecord(runtime, define_agent(ctx.agent, {}, {}), request))


class _RecordedRun(RunGovernance):
    """Governs a run and also opens and ends its record, which `execute` does for other runs."""

    async def wrap_run(self, ctx: RunContext[Any], *, handler: Any) -> AgentRunResult[Any]:
        record = self.record
        try:
            async with record.keep_lease():
                with record.root_span(), sending(record):
                    result: AgentRunResult[Any] = await handler()
                    if record.stopped_by is not None:
                        raise record.stopped_by
        except BaseException as error:
            await self._commit_error(error)
            raise
        record.ended = True
        outcome = self._outcome(result.output)
        await commit_outcome(record, outcome, result.new_messages() if isinstance(outcome, Answered) else None)
        return result

    async def _commit_error(self, error: BaseException) -> None:
        record = self.record
        record.ended = True
        if isinstance(error, CeilingReached):
            await commit_outcome(record, refused_outcome(record, error), None)
        elif isinstance(error, InnerActionBlocked):
            await commit_outcome(record, blocked_inner_outcome(record, error), None)
        elif isinstance(error, Exception) and (fault := fault_from(error)) is not None:
            failed = Failed(fault=fault, message=user_messages.failed(fault.code), facts=record.facts())
            await commit_outcome(record, failed, None)
        else:
            await commit_exception(record, error)

    def _outcome(self, output: Any) -> Outcome[Any]:
        facts = self.record.facts()
        if self.loop.left_early:
            fault = Fault(code=OutputCut.code, detail="the stream of the answer was left before its end")
            return Failed(fault=fault, message=user_messages.failed(fault.code), facts=facts)
        if isinstance(output, DeferredToolRequests):
            proposals = proposals_of(output)
            return Escalated(
                reason="irreversible_action", message=user_messages.PROPOSED, facts=facts, proposals=proposals
            )
        message = output if isinstance(output, str) else user_messages.ANSWERED
        return Answered(output=output, message=message, facts=facts, retried=self.record.retried)
