"""Governs an agent that runs inside a governed run, in a tool, a route or a fallback: it is part of that run.

Its requests are held under the run's ceilings, and its malformed output uses the run's one retry. An irreversible call
of it is never executed, and never pauses: the inner run lives in the middle of a tool, which cannot be resumed later.
"""

from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDefinition

from handrail.traces import semconv

from .agent_loop import AgentLoop
from .capability import LoopGovernance
from .errors import InnerActionBlocked
from .record import RunRecord
from .tools import effect_of


class InnerGovernance(LoopGovernance):
    """Governs one run of an inner agent.

    Args:
        record: The record of the run that it is part of.
        agent: The inner agent's name.
    """

    def __init__(self, record: RunRecord, agent: str) -> None:
        super().__init__(record, AgentLoop())
        self._agent = agent

    async def wrap_run(self, ctx: RunContext[Any], *, handler: Any) -> AgentRunResult[Any]:
        """A span around the inner run."""
        with self.record.recorder.span(f"invoke_agent {self._agent}", {semconv.OPERATION: "invoke_agent"}):
            result: AgentRunResult[Any] = await handler()
            return result

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any], handler: Any
    ) -> Any:
        """Times the call, or blocks it if it is irreversible, or if only the inner agent's caller approved it."""
        with self.tool_span(call, tool_def, args) as span:
            if effect_of(tool_def) == "irreversible" or ctx.tool_call_approved:
                raise self._block(call.tool_name, args, call.tool_call_id)
            return await self.call_tool(call, args, handler, span)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Blocks a call that Pydantic AI wants a person to approve."""
        for call in requests.approvals:
            raise self._block(call.tool_name, call.args_as_dict(), call.tool_call_id)
        return None

    def _block(self, tool: str, arguments: dict[str, Any], call_id: str) -> Exception:
        return self.record.stop(InnerActionBlocked(self._agent, tool, arguments, call_id))
