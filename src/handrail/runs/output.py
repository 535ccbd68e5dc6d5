"""Works with an agent's output type: to check a fallback's output, and to stop a run before an irreversible call."""

import copy
import functools
import inspect
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic_ai.output
from pydantic_ai import Agent, DeferredToolRequests, RunContext
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.output import NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.usage import RunUsage

from .output_check import OutputCheck
from .request import RunRequest
from .totals import RunTotals

OutputT = TypeVar("OutputT")

_NO_ANSWERS = (DeferredToolRequests, getattr(pydantic_ai.output, "PendingModelResponse", DeferredToolRequests))
"""Output types that say that a run is not finished."""


def output_check(spec: Any) -> OutputCheck:
    """A check of outputs of the type `spec`, in any of the forms that `Agent(output_type=)` takes."""
    types: list[Any] = []
    for one in _output_types(spec):
        if one not in types:
            types.append(one)
    return OutputCheck(types or [str])


async def run_output_validators(agent: Agent[Any, OutputT], ctx: RunContext[Any], output: OutputT) -> OutputT:
    """Runs the agent's output validators, in order, as Pydantic AI does on a model's answer.

    The list is private to Pydantic AI; the tests of fallbacks pin it at both ends of the supported
    range.

    Args:
        agent: The agent.
        ctx: The context that the validators get.
        output: An output that another handler than the model gave.

    Returns:
        What the last validator returned; the output itself if there are none.

    Raises:
        ModelRetry: A validator rejects the output.
    """
    for validator in agent._output_validators:  # noqa: SLF001
        output = await validator.validate(output, ctx)
    return output


def validator_context(agent: Agent[Any, Any], model: Any, request: RunRequest, totals: RunTotals) -> RunContext[Any]:
    """The context for output validators outside of a run of Pydantic AI.

    Args:
        agent: The agent.
        model: The run's model or its name, if it has one of its own; otherwise the agent's applies.
        request: The run's request, with its dependencies.
        totals: What the run has used so far.
    """
    usage = RunUsage(requests=totals.requests, input_tokens=totals.usage.input, output_tokens=totals.usage.output)
    return RunContext(
        deps=request.deps,
        # A run without a model still has validators, and most of them do not look at it.
        model=_resolve_model(model or agent.model),  # type: ignore[arg-type]
        usage=usage,
        agent=agent,
        prompt=request.input,
        run_id=request.run_id,
        conversation_id=request.conversation_id,
        run_step=totals.requests,
    )


def _resolve_model(model: Any) -> Model | None:
    if not isinstance(model, str):
        resolved: Model | None = model
        return resolved
    try:
        return infer_model(model)
    except (UserError, ImportError):
        # Its provider's key or client is missing, which may be why the fallback answers.
        return None


def allow_deferred_tools(agent: Agent[Any, OutputT]) -> Agent[Any, OutputT]:
    """A shallow copy of `agent` whose runs may also end in `DeferredToolRequests`.

    Passing a second output type with each run would build its schema each time (2 ms), and Pydantic AI rejects it for
    agents with output validators. The flag is private to Pydantic AI; tests/pydantic_ai pins it at both ends of the
    supported range.
    """
    schema = agent._output_schema  # noqa: SLF001
    if schema.allows_deferred_tools:
        return agent
    copied = copy.copy(agent)
    copied._output_schema = copy.copy(schema)  # noqa: SLF001
    copied._output_schema.allows_deferred_tools = True  # noqa: SLF001
    return copied


def add_deferred_output(spec: Any) -> list[Any]:
    """An output type for one run, with `DeferredToolRequests` added."""
    return [*(spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]), DeferredToolRequests]


def _output_types(spec: Any) -> list[Any]:
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return [output_type for part in spec for output_type in _output_types(part)]
    if isinstance(spec, ToolOutput):
        return _output_types(spec.output)
    if isinstance(spec, NativeOutput | PromptedOutput):
        return _output_types(spec.outputs)
    if isinstance(spec, TextOutput):
        return [_return_type(spec.output_function)]
    if spec in _NO_ANSWERS:
        return []
    if inspect.isroutine(spec) or isinstance(spec, functools.partial):
        return [_return_type(spec)]
    return [spec]


def _return_type(function: Any) -> Any:
    """What an output function is annotated to return; Any if it does not say."""
    if isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        returned = get_type_hints(function, include_extras=True).get("return", Any)
    except NameError:
        return Any
    return get_args(returned)[-1] if get_origin(returned) in {Awaitable, Coroutine} else returned
