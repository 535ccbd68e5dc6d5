"""The Pydantic AI capability that governs a run from inside: model requests, tool calls and outputs pass through it."""

import functools
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ApprovalRequired, ModelAPIError, ModelRetry, ToolRetryError
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from handrail.fallback.retry import MalformedTwice
from handrail.kernel.errors import HandrailError
from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .agent_loop import AgentLoop, RetryRequest
from .approvals import execute_approved
from .faults import TOOL_CONTROL_FLOW, ToolFault, is_bug
from .finish import incomplete_answer
from .loop_guard import Looping
from .model_call import record_unsent
from .output_check import structured_dict_violation
from .provider_errors import as_provider_error
from .record import RunRecord
from .request_hook import sending
from .tools import approver_of, effect_of, is_idempotent

_logger = logging.getLogger(__name__)


class LoopGovernance(AbstractCapability[Any]):
    """Governs the requests, the retry and the tool calls of one agent's loop.

    Args:
        record: The record of the run that the loop is part of.
        loop: The loop.
    """

    def __init__(self, record: RunRecord, loop: AgentLoop) -> None:
        self.record = record
        self.loop = loop

    def get_ordering(self) -> CapabilityOrdering:
        """Outermost, so that no other capability's work escapes the rules."""
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model) -> Model:
        """The loop's model with every request governed."""
        return GovernedModel(model, self.record, self.loop)

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Begins a request; if it repeats a malformed response, it is the run's one retry."""
        loop = self.loop
        try:
            loop.guard.count_request()
        except Looping as looping:
            raise self.record.stop(looping) from None
        rejection = loop.rejection(ctx.messages)
        if rejection is not None:
            self._reject(rejection)
        instruction = self.record.retry.instruction_after(loop.response)
        if instruction is None:
            loop.begin_request(None)
            return request_context
        retry = RetryRequest(instruction=instruction, retry_of=loop.last_span_id, output_tokens=loop.output_tokens)
        loop.begin_request(retry)
        extra = {**self.record.log_fields, "model": request_context.model.model_name}
        _logger.info("malformed output retried with a stricter instruction", extra=extra)
        return request_context

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Adds the stricter instruction to the retry; what is added here is not kept in the agent's messages."""
        if self.loop.retry is not None:
            request_context.model_request_parameters = _add_instruction(
                request_context.model_request_parameters, request_context.messages, self.loop.retry.instruction
            )
        return request_context

    @contextmanager
    def tool_span(self, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any]) -> Iterator[LiveSpan]:
        """A span around a tool call.

        Args:
            call: The call.
            tool_def: The tool's definition.
            args: The validated arguments.
        """
        attributes = {
            semconv.OPERATION: "execute_tool",
            semconv.TOOL: call.tool_name,
            semconv.TOOL_CALL_ID: call.tool_call_id,
            "handrail.tool.effect": effect_of(tool_def),
        }
        with self.record.recorder.span(f"execute_tool {call.tool_name}", attributes) as span:
            span.payload["arguments"] = args
            yield span

    async def call_tool(self, call: ToolCallPart, args: dict[str, Any], handler: Any, span: LiveSpan) -> Any:
        """Calls a tool; what it spends on models is governed too.

        Args:
            call: The call.
            args: The validated arguments.
            handler: Calls the tool.
            span: The span around the call.
        """
        with sending(self.record):
            try:
                return await handler(args)
            except TOOL_CONTROL_FLOW as signal:
                if isinstance(signal, ModelRetry | ToolRetryError):
                    self.loop.asked_again.add(call.tool_call_id)
                span.payload["result"] = str(signal)
                raise

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
        self._reject(f"validate {call.tool_name}", args, error)
        raise error

    async def on_output_validate_error(
        self, ctx: RunContext[Any], *, output_context: Any, output: Any, error: ValidationError | ModelRetry
    ) -> Any:
        """Uses the run's one retry for output that does not fit the schema."""
        if not ctx.partial_output:
            self._reject("validate output", output, error)
        raise error

    async def wrap_output_process(self, ctx: RunContext[Any], *, output_context: Any, output: Any, handler: Any) -> Any:
        """Uses the run's one retry for output that its JSON schema, an output function or a validator rejects."""
        try:
            # Pydantic AI does not compare a StructuredDict with its schema.
            violation = None if ctx.partial_output else structured_dict_violation(output_context, output)
            if violation is not None:
                raise ModelRetry(violation)
            with sending(self.record):
                return await handler(output)
        except (ModelRetry, ToolRetryError) as rejection:
            if not ctx.partial_output:
                self._reject("validate output", output, rejection)
            raise

    def _reject(self, check: str, value: Any = None, error: Exception | None = None) -> None:
        """Uses the run's one retry for the loop's latest response. Raises MalformedTwice if it is already used."""
        with self.record.recorder.span(check, {}) as span:
            span.payload.update(value=value, error=None if error is None else str(error))
            span.fail("malformed")
        try:
            self.record.retry.reject(self.loop.response, check, error)
        except MalformedTwice as twice:
            raise self.record.stop(twice) from error


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
            if effect_of(tool_def) != "irreversible":
                return await self._execute(call, args, handler, span)
            approval = self.record.approvals.get(call.tool_call_id)
            if approval is not None:
                execute = functools.partial(self._execute, call, args, handler, span)
                return await execute_approved(self.record, approval, call, execute, span)
            span.set({semconv.APPROVAL: "required"})
        raise ApprovalRequired({"approver": approver_of(tool_def), "idempotent": is_idempotent(tool_def)})

    async def _execute(self, call: ToolCallPart, args: dict[str, Any], handler: Any, span: LiveSpan) -> Any:
        try:
            self.loop.guard.count_tool_call(call.tool_name, args)
        except Looping as looping:
            raise self.record.stop(looping) from None
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
        span.payload["result"] = result
        self.record.add_tool(call.tool_name)
        return result


class GovernedModel(WrapperModel):
    """The model of an agent's loop: its requests are governed, and only whole responses leave it.

    Args:
        wrapped: The model, which may be composite. Each request that it sends is held and settled by the request hook.
        record: The run's record.
        loop: The loop.
    """

    def __init__(self, wrapped: Model, record: RunRecord, loop: AgentLoop) -> None:
        super().__init__(wrapped)
        self._record = record
        self._loop = loop

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        sent_before = self._loop.sent
        try:
            with sending(self._record, self._loop), as_provider_error(self.wrapped):
                response = await self.wrapped.request(messages, model_settings, model_request_parameters)
        except ModelAPIError as error:
            if self._loop.sent == sent_before:
                self._record_unsent(messages, model_settings, model_request_parameters, error)
            raise
        if self._loop.sent == sent_before:
            self._record_unsent(messages, model_settings, model_request_parameters, response)
        self._check_whole(response, streamed=False)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        async with AsyncExitStack() as stack:
            with sending(self._record, self._loop):
                opened = self.wrapped.request_stream(messages, model_settings, model_request_parameters, run_context)
                stream = await stack.enter_async_context(opened)
            yield stream
        response = stream.get()
        # A stream whose reader left early is incomplete too, but then nobody takes it for an answer.
        if response.state == stream.state:
            self._check_whole(response, streamed=True)

    def _check_whole(self, response: ModelResponse, *, streamed: bool) -> None:
        """Raises IncompleteAnswer for a response that is not whole: nothing of it is used, nor retried."""
        incomplete = incomplete_answer(response, streamed=streamed)
        if incomplete is not None:
            raise self._record.stop(incomplete)

    def _record_unsent(
        self,
        messages: Sequence[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        result: ModelResponse | Exception,
    ) -> None:
        record_unsent(self._record, self._loop, self.wrapped, messages, settings or {}, parameters, result)


def _add_instruction(
    parameters: ModelRequestParameters, messages: Sequence[ModelMessage], instruction: str
) -> ModelRequestParameters:
    parts = parameters.instruction_parts
    if parts is None:
        # The agent's instructions are then only in the messages, and parts replace those, so they are repeated as one.
        latest = (m.instructions for m in reversed(messages) if isinstance(m, ModelRequest) and m.instructions)
        parts = [InstructionPart(text) for text in latest][:1]
    return replace(parameters, instruction_parts=[*parts, InstructionPart(instruction, dynamic=True)])
