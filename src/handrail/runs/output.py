"""Works with an agent's output type: to validate a fallback's output, and to stop a run before an irreversible call."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_type_hints

from pydantic import TypeAdapter
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.output import NativeOutput, PromptedOutput, TextOutput, ToolOutput

OutputT = TypeVar("OutputT")


def output_adapter(spec: Any) -> TypeAdapter[Any]:
    """A validator for outputs of the type `spec`, in any of the forms that `Agent(output_type=)` takes."""
    types = tuple(dict.fromkeys(_output_types(spec)))
    union: Any = Union[types] if types else str  # noqa: UP007 - the types are known only here
    return TypeAdapter(union)


def validate_output(adapter: TypeAdapter[OutputT], output: OutputT) -> OutputT:
    """Returns `output` validated from its own dump, so that an object from `model_construct` is checked as well.

    Raises:
        ValidationError: The output does not fit the type.
    """
    return adapter.validate_python(adapter.dump_python(output, warnings=False))


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
    if isinstance(spec, list | tuple):
        return [output_type for part in spec for output_type in _output_types(part)]
    if isinstance(spec, ToolOutput):
        return _output_types(spec.output)
    if isinstance(spec, NativeOutput | PromptedOutput):
        return _output_types(spec.outputs)
    if isinstance(spec, TextOutput):
        return _output_types(spec.output_function)
    if spec is DeferredToolRequests:
        return []
    if inspect.isroutine(spec):
        return [get_type_hints(spec).get("return", Any)]
    return [spec]
