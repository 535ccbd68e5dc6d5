"""`Governance`: the same rules for those who drive a Pydantic AI agent themselves (`agent.iter`, AG-UI)."""

from dataclasses import dataclass
from typing import Any

from pydantic_ai import DeferredToolRequests, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.run import AgentRunResult

from handrail.kernel.ids import new_id

from . import user_messages
from .capability import RunGovernance
from .completion import end_by_exception, end_run
from .errors import CeilingReached
from .execution import refused
from .faults import fault_of
from .fingerprint import define
from .outcome import Answered, Escalated, Failed, Outcome, proposed
from .record import Record
from .request import RunRequest, checked_input, checked_name
from .runtime import current_runtime


@dataclass
class Governance(AbstractCapability[Any]):
    """Records and governs the runs it is attached to, for one user of one tenant.

        result = await agent.run("Hello", capabilities=[Governance(name="support", user="u-1", tenant="acme")])

    A fault is recorded as `Failed` and raised on, a ceiling as `Refused` and raised as CeilingReached: what follows is
    the caller's. Where a tool is irreversible, the agent needs `DeferredToolRequests` among its output types; such runs
    are recorded as `Escalated` with their proposals, since only `govern` knows how to carry them on.
    """

    name: str = ""
    user: str = ""
    tenant: str = "default"

    async def for_run(self, ctx: RunContext[Any]) -> AbstractCapability[Any]:
        runtime = current_runtime()
        assert ctx.agent is not None
        run_id = new_id("run", runtime.clock.now())
        request = RunRequest(
            run_id=run_id,
            agent=checked_name("name", self.name),
            input=checked_input(ctx.prompt, may_be_empty=bool(ctx.messages)),
            user=checked_name("user", self.user),
            tenant=checked_name("tenant", self.tenant),
            conversation_id=ctx.conversation_id or run_id,
            deps=ctx.deps,
        )
        return _WholeRun(Record(runtime, define(ctx.agent, {}, {}), request))


@dataclass(init=False)
class _WholeRun(RunGovernance):
    """Governs a run and, nobody else doing so, opens and ends its record."""

    async def wrap_run(self, ctx: RunContext[Any], *, handler: Any) -> AgentRunResult[Any]:
        record = self.record
        try:
            async with record.leased():
                with record.root():
                    result: AgentRunResult[Any] = await handler()
        except CeilingReached as stop:
            await end_run(record, refused(record, stop), None)
            raise
        except BaseException as error:
            fault = fault_of(error) if isinstance(error, Exception) else None
            if fault is None:
                await end_by_exception(record, error)
            else:
                failed = Failed(fault=fault, message=user_messages.failed(fault.code), facts=record.facts())
                await end_run(record, failed, None)
            raise
        outcome = self._outcome(result.output)
        await end_run(record, outcome, result.new_messages() if isinstance(outcome, Answered) else None)
        return result

    def _outcome(self, output: Any) -> Outcome[Any]:
        facts = self.record.facts()
        if isinstance(output, DeferredToolRequests):
            return Escalated(
                reason="irreversible_action", message=user_messages.PROPOSED, facts=facts, proposals=proposed(output)
            )
        message = output if isinstance(output, str) else user_messages.ANSWERED
        return Answered(output=output, message=message, facts=facts, retried=self.record.retried)
