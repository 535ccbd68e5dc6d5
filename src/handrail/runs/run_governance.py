"""Governs the run that a record belongs to, rather than an agent inside it: its approved calls are executed."""

import functools
from typing import Any

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ApprovalRequired, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.errors import HandrailError
from handrail.review.approvals.model import Approval
from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .approvals import ApprovedCall, execute_approved
from .capability import LoopGovernance
from .faults import TOOL_CONTROL_FLOW, ToolFault, is_bug
from .loop_guard import Looping
from .proposed_call import unvalidated_call, validated_call
from .record import RunRecord
from .tools import effect_of


class RunGovernance(LoopGovernance):
    """Governs the run that a record belongs to.

    Args:
        record: The run's record.
    """

    def __init__(self, record: RunRecord) -> None:
        super().__init__(record, record.loop)

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any], handler: Any
    ) -> Any:
        """Times the call, stops it if it is irreversible and not approved, and turns what it raises into a fault."""
        with self.tool_span(call, tool_def, args) as span:
            approval = self.record.take_approval(call.tool_call_id) if ctx.tool_call_approved else None
            if approval is not None:
                execute = functools.partial(self._call_tool, call, args, handler, span)
                proposed = self.loop.calls[call.tool_call_id]
                return await execute_approved(
                    ApprovedCall(record=self.record, approval=approval, call=proposed, execute=execute, span=span)
                )
            # Any caller can tell Pydantic AI that a call is approved; without an approval of ours it is not executed.
            if effect_of(tool_def) != "irreversible" and not ctx.tool_call_approved:
                return await self._execute(call, args, handler, span)
            span.set({semconv.APPROVAL: "required"})
        # A tool that asks by itself says whom only when it is called, so this is a role for an operator to give out.
        declared = effect_of(tool_def) == "irreversible"
        raise ApprovalRequired(None if declared else {"approver": f"role:approver-of-{call.tool_name}"})

    async def wrap_tool_validate(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        handler: Any,
    ) -> dict[str, Any]:
        """Lets an approved call pass whose arguments its tool rejects now: what became of it is in the store."""
        self.loop.calls[call.tool_call_id] = unvalidated_call(tool_def, call, None)
        approval = self.record.approvals.get(call.tool_call_id) if ctx.tool_call_approved else None
        try:
            validated: dict[str, Any] = await handler(args)
        except (ValidationError, ModelRetry, ToolFailed) as error:
            if approval is None:
                raise
            self.loop.calls[call.tool_call_id] = unvalidated_call(tool_def, call, error)
            return call.args_as_dict()
        return validated if approval is None else await self._with_shown_defaults(call, approval, validated, handler)

    async def _with_shown_defaults(
        self, call: ToolCallPart, approval: Approval, validated: dict[str, Any], handler: Any
    ) -> dict[str, Any]:
        """The arguments with the defaults that people saw, if these are new at each call, as the time or an id is."""
        now = self.loop.calls[call.tool_call_id]
        if now.digest == approval.digest or now.schema_hash != approval.schema_hash:
            return validated
        try:
            as_shown: dict[str, Any] = await handler({**approval.arguments, **call.args_as_dict()})
            if self.loop.calls[call.tool_call_id].digest == approval.digest:
                return as_shown
        except (ValidationError, ModelRetry, ToolFailed):
            pass
        self.loop.calls[call.tool_call_id] = now
        return validated

    async def after_tool_validate(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any]
    ) -> dict[str, Any]:
        """Notes the arguments with their defaults: people see these, and no others are executed."""
        self.loop.calls[call.tool_call_id] = validated_call(tool_def, args)
        return args

    async def on_tool_validate_error(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        error: ValidationError | ModelRetry,
    ) -> dict[str, Any]:
        """Uses the run's one retry, unless people approved the call: then it is not the model that made a mistake."""
        if self._has_approval(ctx, call):
            raise error
        return await super().on_tool_validate_error(ctx, call=call, tool_def=tool_def, args=args, error=error)

    def _has_approval(self, ctx: RunContext[Any], call: ToolCallPart) -> bool:
        return ctx.tool_call_approved and call.tool_call_id in self.record.approvals

    async def _execute(self, call: ToolCallPart, args: dict[str, Any], handler: Any, span: LiveSpan) -> Any:
        try:
            self.loop.guard.count_tool_call(call.tool_name, args)
        except Looping as looping:
            raise self.record.stop(looping) from None
        return await self._call_tool(call, args, handler, span)

    async def _call_tool(self, call: ToolCallPart, args: dict[str, Any], handler: Any, span: LiveSpan) -> Any:
        try:
            result = await self.call_tool(call, args, handler, span)
        except (*TOOL_CONTROL_FLOW, HandrailError):
            # Of Handrail's own errors, those of an agent inside the tool: a ceiling, a blocked action, the store.
            raise
        except Exception as error:
            span.payload["result"] = str(error)
            if is_bug(error) or error is self.record.stopped_by:
                raise
            raise ToolFault(call.tool_name, error) from error
        self.record.add_tool(call.tool_name)
        return result
