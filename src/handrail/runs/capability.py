"""The Pydantic AI capability that governs a run from inside: every model request, tool call and output passes here."""

import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ApprovalRequired, ModelRetry, ToolRetryError
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .approvals import approved
from .faults import TALK, ToolFault, is_bug
from .model_call import asking
from .record import Record
from .tools import approver_of, effect_of, is_idempotent


@dataclass(init=False)
class RunGovernance(AbstractCapability[Any]):
    """Governs one run, whose record it is given."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model) -> Model:
        return GovernedModel(model, self.record)

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any], handler: Any
    ) -> Any:
        """Times the call, stops it where it is irreversible, and turns what it raises into a fault."""
        effect = effect_of(tool_def)
        attributes = {
            semconv.OPERATION: "execute_tool",
            semconv.TOOL: call.tool_name,
            semconv.TOOL_CALL_ID: call.tool_call_id,
            "handrail.tool.effect": effect,
        }
        with self.record.recorder.span(f"execute_tool {call.tool_name}", attributes) as live:
            live.payload["arguments"] = args
            if effect != "irreversible":
                return await self._execute(call.tool_name, args, handler, live)
            approval = self.record.approvals.get(call.tool_call_id)
            if approval is not None:
                execute = functools.partial(self._execute, call.tool_name, args, handler, live)
                return await approved(self.record, approval, call, execute, live)
            live.set({semconv.APPROVAL: "required"})
        raise ApprovalRequired({"approver": approver_of(tool_def), "idempotent": is_idempotent(tool_def)})

    async def _execute(self, tool: str, args: dict[str, Any], handler: Any, live: LiveSpan) -> Any:
        self.record.loops.call(tool, args)
        try:
            result = await handler(args)
        except TALK as talk:
            live.payload["result"] = str(talk)
            raise
        except Exception as error:
            live.payload["result"] = str(error)
            if is_bug(error):
                raise
            raise ToolFault(tool, error) from error
        live.payload["result"] = result
        self.record.tools.append(tool)
        return result

    async def on_tool_validate_error(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        error: ValidationError | ModelRetry,
    ) -> dict[str, Any]:
        self._malformed(f"validate {call.tool_name}", args, error)
        raise error

    async def on_output_validate_error(
        self, ctx: RunContext[Any], *, output_context: Any, output: Any, error: ValidationError | ModelRetry
    ) -> Any:
        if not ctx.partial_output:
            self._malformed("validate output", output, error)
        raise error

    async def wrap_output_process(self, ctx: RunContext[Any], *, output_context: Any, output: Any, handler: Any) -> Any:
        """What an output function or validator turns down is malformed work like any other."""
        try:
            return await handler(output)
        except (ModelRetry, ToolRetryError) as rejection:
            if not ctx.partial_output:
                self._malformed("validate output", output, rejection)
            raise

    def _malformed(self, what: str, found: Any, error: Exception) -> None:
        with self.record.recorder.span(what, {}) as live:
            live.payload.update(found=found, error=str(error))
            live.fail("malformed")
        self.record.retry.malformed(what, error)


class GovernedModel(WrapperModel):
    """A model whose every attempt is recorded, priced and committed to before it is sent."""

    def __init__(self, wrapped: Model, record: Record) -> None:
        super().__init__(wrapped)
        self._record = record

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        settings = _single_attempt(model_settings)
        async with asking(self._record, self.wrapped, messages, settings, model_request_parameters) as asked:
            response = await self.wrapped.request(messages, asked.settings, asked.parameters)
            asked.answered(response)
            return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        settings = _single_attempt(model_settings)
        async with (
            asking(self._record, self.wrapped, messages, settings, model_request_parameters) as asked,
            self.wrapped.request_stream(messages, asked.settings, asked.parameters, run_context) as stream,
        ):
            try:
                yield stream
            except BaseException:
                asked.cut_off(stream.get())
                raise
            asked.answered(stream.get())


def _single_attempt(settings: ModelSettings | None) -> ModelSettings:
    # A provider's client would retry on its own, unseen and unheld: each attempt must be ours.
    merged: ModelSettings = {**(settings or {}), "max_retries": 0}
    return merged
