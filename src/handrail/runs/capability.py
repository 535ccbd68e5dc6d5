"""The Pydantic AI capability that governs a run from inside: model requests, tool calls and outputs pass through it."""

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

from .approvals import execute_approved
from .faults import TOOL_CONTROL_FLOW, ToolFault, is_bug
from .model_call import model_call
from .record import RunRecord
from .tools import approver_of, effect_of, is_idempotent


@dataclass(init=False)
class RunGovernance(AbstractCapability[Any]):
    """Governs the run that a record belongs to."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record

    def get_ordering(self) -> CapabilityOrdering:
        """Outermost, so that no other capability's work escapes the rules."""
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model) -> Model:
        """The run's model with every request held and settled."""
        return GovernedModel(model, self.record)

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any], handler: Any
    ) -> Any:
        """Times the call, stops it if it is irreversible and not approved, and turns what it raises into a fault."""
        effect = effect_of(tool_def)
        attributes = {
            semconv.OPERATION: "execute_tool",
            semconv.TOOL: call.tool_name,
            semconv.TOOL_CALL_ID: call.tool_call_id,
            "handrail.tool.effect": effect,
        }
        with self.record.recorder.span(f"execute_tool {call.tool_name}", attributes) as span:
            span.payload["arguments"] = args
            if effect != "irreversible":
                return await self._execute(call.tool_name, args, handler, span)
            approval = self.record.approvals.get(call.tool_call_id)
            if approval is not None:
                execute = functools.partial(self._execute, call.tool_name, args, handler, span)
                return await execute_approved(self.record, approval, call, execute, span)
            span.set({semconv.APPROVAL: "required"})
        raise ApprovalRequired({"approver": approver_of(tool_def), "idempotent": is_idempotent(tool_def)})

    async def _execute(self, tool: str, args: dict[str, Any], handler: Any, span: LiveSpan) -> Any:
        self.record.loop_guard.count_tool_call(tool, args)
        try:
            result = await handler(args)
        except TOOL_CONTROL_FLOW as signal:
            span.payload["result"] = str(signal)
            raise
        except Exception as error:
            span.payload["result"] = str(error)
            if is_bug(error):
                raise
            raise ToolFault(tool, error) from error
        span.payload["result"] = result
        self.record.add_tool(tool)
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
        """Uses the run's one retry for arguments that a tool rejects."""
        self._grant_retry(f"validate {call.tool_name}", args, error)
        raise error

    async def on_output_validate_error(
        self, ctx: RunContext[Any], *, output_context: Any, output: Any, error: ValidationError | ModelRetry
    ) -> Any:
        """Uses the run's one retry for output that does not fit the schema."""
        if not ctx.partial_output:
            self._grant_retry("validate output", output, error)
        raise error

    async def wrap_output_process(self, ctx: RunContext[Any], *, output_context: Any, output: Any, handler: Any) -> Any:
        """Uses the run's one retry for output that an output function or validator rejects."""
        try:
            return await handler(output)
        except (ModelRetry, ToolRetryError) as rejection:
            if not ctx.partial_output:
                self._grant_retry("validate output", output, rejection)
            raise

    def _grant_retry(self, check: str, value: Any, error: Exception) -> None:
        """Uses the run's one retry for the `value` that failed `check`. Raises MalformedTwice if it is already used."""
        with self.record.recorder.span(check, {}) as span:
            span.payload.update(value=value, error=str(error))
            span.fail("malformed")
        self.record.retry.grant(check, error)


class GovernedModel(WrapperModel):
    """A model whose every request is held, sent and settled."""

    def __init__(self, wrapped: Model, record: RunRecord) -> None:
        super().__init__(wrapped)
        self._record = record

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        settings = _single_attempt(model_settings)
        async with model_call(self._record, self.wrapped, messages, settings, model_request_parameters) as call:
            response = await self.wrapped.request(messages, call.settings, call.parameters)
            call.settle_response(response)
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
            model_call(self._record, self.wrapped, messages, settings, model_request_parameters) as call,
            self.wrapped.request_stream(messages, call.settings, call.parameters, run_context) as stream,
        ):
            try:
                yield stream
            except BaseException:
                call.settle_partial(stream.get())
                raise
            call.settle_response(stream.get())


def _single_attempt(settings: ModelSettings | None) -> ModelSettings:
    # A provider's client would retry by itself, with nothing held and nothing recorded.
    merged: ModelSettings = {**(settings or {}), "max_retries": 0}
    return merged
