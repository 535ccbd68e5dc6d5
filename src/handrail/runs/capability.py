"""The Pydantic AI capability that governs a run from inside: model requests, tool calls and outputs pass through it."""

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ModelAPIError, ModelRetry, ToolRetryError
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from handrail.fallback.retry import MalformedTwice, Rejection
from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .agent_loop import AgentLoop, RetryRequest
from .faults import TOOL_CONTROL_FLOW
from .finish import incomplete_answer
from .loop_guard import Looping
from .model_call import record_unsent
from .output_check import structured_dict_violation
from .provider_errors import as_provider_error
from .record import RunRecord
from .request_hook import sending
from .tool_calls import with_unique_calls
from .tool_results import sendable, storable
from .tools import effect_of

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
        loop.check_whole()
        instruction, loop.instruction = loop.instruction, ""
        if (rejection := loop.repeats(ctx.messages)) is not None:
            instruction = self._use_retry(rejection)
        if not instruction:
            loop.begin_request(None)
            return request_context
        loop.begin_request(
            RetryRequest(instruction=instruction, retry_of=loop.last_span_id, output_tokens=loop.output_tokens)
        )
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

    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Gives each tool call of the response an id that no other call of the run has."""
        return with_unique_calls(response, request_context.messages)

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
        self.loop.check_whole()
        with sending(self.record):
            try:
                result = sendable(await handler(args))
            except TOOL_CONTROL_FLOW as signal:
                if isinstance(signal, ModelRetry | ToolRetryError):
                    self.loop.asked_again.add(call.tool_call_id)
                span.payload["result"] = str(signal)
                raise
            span.payload["result"] = storable(result)
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
        self._reject(f"validate {call.tool_name}", args, error)
        raise error

    async def on_output_validate_error(
        self, ctx: RunContext[Any], *, output_context: Any, output: Any, error: ValidationError | ModelRetry
    ) -> Any:
        """Uses the run's one retry for output that does not fit the schema."""
        if not ctx.partial_output:
            self._reject("validate output", output, error, is_final=not _has_several_calls(ctx))
        raise error

    async def wrap_output_process(self, ctx: RunContext[Any], *, output_context: Any, output: Any, handler: Any) -> Any:
        """Uses the run's one retry for output that its JSON schema, an output function or a validator rejects."""
        self.loop.check_whole()
        try:
            # Pydantic AI does not compare a StructuredDict with its schema.
            violation = None if ctx.partial_output else structured_dict_violation(output_context, output)
            if violation is not None:
                raise ModelRetry(violation)
            if isinstance(output, str) and not output.strip() and not ctx.partial_output:
                raise ModelRetry("The answer is empty.")
            with sending(self.record):
                return await handler(output)
        except (ModelRetry, ToolRetryError) as rejection:
            if not ctx.partial_output:
                self._reject("validate output", output, rejection, is_final=not _has_several_calls(ctx))
            raise

    def _reject(self, check: str, value: Any, error: Exception, *, is_final: bool = True) -> None:
        """Notes what is wrong with the loop's latest response; the retry is used if a request repeats it.

        Raises MalformedTwice if it is used already, and nothing else in the response can end the run.
        """
        rejection = Rejection(check, error)
        self._trace_rejection(rejection, value)
        self.loop.rejection = self.loop.rejection or rejection
        if is_final:
            try:
                self.record.retry.check_left(rejection)
            except MalformedTwice as twice:
                raise self.record.stop(twice) from error

    def _use_retry(self, rejection: Rejection) -> str:
        """Uses the run's one retry, and returns its instruction. Raises MalformedTwice if it is already used."""
        if self.loop.rejection is None:
            self._trace_rejection(rejection, None)
        try:
            return self.record.retry.use(rejection)
        except MalformedTwice as twice:
            raise self.record.stop(twice) from rejection.error

    def _trace_rejection(self, rejection: Rejection, value: Any) -> None:
        with self.record.recorder.span(rejection.check, {}) as span:
            span.payload.update(value=value, error=None if rejection.error is None else str(rejection.error))
            span.fail("malformed")


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
        self._check_whole(response)
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
            try:
                yield stream
            finally:
                # A reader may leave early and be content with what it saw, but the agent cannot go on with it.
                self._loop.left_early = stream.get().state != stream.state
        if not self._loop.left_early:
            self._check_whole(stream.get())

    def _check_whole(self, response: ModelResponse) -> None:
        """Raises IncompleteAnswer for a response that is not whole: nothing of it is used, nor retried."""
        incomplete = incomplete_answer(response, self._loop.finishes)
        if incomplete is not None:
            raise incomplete

    def _record_unsent(
        self,
        messages: Sequence[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        result: ModelResponse | Exception,
    ) -> None:
        record_unsent(self._record, self._loop, self.wrapped, messages, settings or {}, parameters, result)


def _has_several_calls(ctx: RunContext[Any]) -> bool:
    """Whether the latest response calls several tools, so that another of its answers may be valid."""
    last = ctx.messages[-1] if ctx.messages else None
    return isinstance(last, ModelResponse) and sum(isinstance(part, ToolCallPart) for part in last.parts) > 1


def _add_instruction(
    parameters: ModelRequestParameters, messages: Sequence[ModelMessage], instruction: str
) -> ModelRequestParameters:
    parts = parameters.instruction_parts
    if parts is None:
        # The agent's instructions are then only in the messages, and parts replace those, so they are repeated as one.
        latest = (m.instructions for m in reversed(messages) if isinstance(m, ModelRequest) and m.instructions)
        parts = [InstructionPart(text) for text in latest][:1]
    return replace(parameters, instruction_parts=[*parts, InstructionPart(instruction, dynamic=True)])
