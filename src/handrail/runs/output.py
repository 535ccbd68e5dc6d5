"""The agent's output type, as what a fallback's answer is held to, and as what lets a run stop before an action."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_type_hints

from pydantic import TypeAdapter
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.output import NativeOutput, PromptedOutput, TextOutput, ToolOutput

OutputT = TypeVar("OutputT")


def output_adapter(spec: Any) -> TypeAdapter[Any]:
    """What validates an answer of the output type `spec`, in any of the forms that `Agent(output_type=)` takes."""
    kinds = tuple(dict.fromkeys(_kinds(spec)))
    union: Any = Union[kinds] if kinds else str  # noqa: UP007 - the types are known only here
    return TypeAdapter(union)


def validated(adapter: TypeAdapter[OutputT], found: OutputT) -> OutputT:
    """`found` as `adapter` reads it back. Raises ValidationError, also for an object built around its own checks."""
    return adapter.validate_python(adapter.dump_python(found, warnings=False))


def deferring(agent: Agent[Any, OutputT]) -> Agent[Any, OutputT]:
    """`agent` as it is now, but for one thing: a run of it may end in DeferredToolRequests.

    Naming a second output type for each run would build its schema anew (2 ms), and is refused to an agent with output
    validators. The flag is private to Pydantic AI; tests/pydantic_ai pins it at both ends of the range.
    """
    schema = agent._output_schema  # noqa: SLF001
    if schema.allows_deferred_tools:
        return agent
    twin = copy.copy(agent)
    twin._output_schema = copy.copy(schema)  # noqa: SLF001
    twin._output_schema.allows_deferred_tools = True  # noqa: SLF001
    return twin


def also_deferring(spec: Any) -> list[Any]:
    """An output type given for one run, with DeferredToolRequests beside it."""
    return [*(spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]), DeferredToolRequests]


def _kinds(spec: Any) -> list[Any]:
    if isinstance(spec, list | tuple):
        return [kind for each in spec for kind in _kinds(each)]
    if isinstance(spec, ToolOutput):
        return _kinds(spec.output)
    if isinstance(spec, NativeOutput | PromptedOutput):
        return _kinds(spec.outputs)
    if isinstance(spec, TextOutput):
        return _kinds(spec.output_function)
    if spec is DeferredToolRequests:
        return []
    if inspect.isroutine(spec):
        return [get_type_hints(spec).get("return", Any)]
    return [spec]
