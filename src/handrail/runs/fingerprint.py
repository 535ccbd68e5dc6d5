"""Which prompt, and which whole agent, a run was made with: three hashes, and the texts they stand for.

`template` is the prompt as written, `rendered` the prompt as sent, `agent` everything that can change an answer:
template, model, settings, tools, output schema, route and fallback. Baselines are kept per whole agent.
"""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai import Agent, TemplateStr
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelRequest, SystemPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_core import to_json

from .tools import effect_of

# They tell where a request goes and how long it may take, not what is asked.
_NOT_BEHAVIOUR = frozenset({"timeout", "max_retries", "extra_headers"})


@dataclass(frozen=True)
class Fingerprint:
    """Three SHA-256 hashes in hex."""

    template: str
    rendered: str
    agent: str


@dataclass(frozen=True)
class Definition:
    """The part of an agent that is the same in all its runs."""

    template: str
    code: Mapping[str, str] = field(default_factory=dict)
    """The route, the fallback and the like, by role: the hash of each one's source."""
    policy: Mapping[str, float] = field(default_factory=dict)
    """The numbers that decide, by name."""


@dataclass(frozen=True)
class Sent:
    """What identifies a run's first request: its fingerprint, the rendered prompt, and the agent's full description."""

    fingerprint: Fingerprint
    rendered: str
    body: str


def define(
    agent: Agent[Any, Any], code: Mapping[str, Callable[..., Any] | None], policy: Mapping[str, float]
) -> Definition:
    """The definition of `agent`, with the callables and the numbers that take part in its answers."""
    # Pydantic AI keeps what it was given in these; tests/pydantic_ai pins that at both ends of the range.
    given = [
        *agent._system_prompts,  # noqa: SLF001
        *(runner.function for runner in agent._system_prompt_functions),  # noqa: SLF001
        *(sourced.instruction for sourced in agent._instructions),  # noqa: SLF001
    ]
    template = "\n\n".join(map(_written, given))
    sources = {role: sha256(source_of(each)) for role, each in code.items() if each is not None}
    return Definition(template, sources, policy)


def identify(
    definition: Definition,
    model: str,
    settings: Mapping[str, Any],
    messages: Sequence[ModelMessage],
    parameters: ModelRequestParameters,
) -> Sent:
    """The fingerprint of a run by its first request to `model` (`provider:name`)."""
    rendered = _rendered(messages, parameters)
    output = parameters.output_object
    body = to_json(
        {
            "template": sha256(definition.template),
            "model": model,
            "settings": {key: settings[key] for key in sorted(settings) if key not in _NOT_BEHAVIOUR},
            "tools": [
                [tool.name, tool.description, tool.parameters_json_schema, effect_of(tool)]
                for tool in sorted(parameters.function_tools, key=lambda tool: tool.name)
            ],
            "output": [
                parameters.output_mode,
                [[tool.name, tool.description, tool.parameters_json_schema] for tool in parameters.output_tools],
                output.json_schema if output else None,
            ],
            "code": dict(sorted(definition.code.items())),
            "policy": dict(sorted(definition.policy.items())),
        },
        fallback=lambda value: getattr(value, "__qualname__", type(value).__qualname__),
    ).decode()
    return Sent(Fingerprint(sha256(definition.template), sha256(rendered), sha256(body)), rendered, body)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def source_of(code: Any) -> str:
    """The source of a function or of an object's class; its qualified name where there is no source to read."""
    if isinstance(code, functools.partial):
        bound = [*map(repr, code.args), *(f"{name}={value!r}" for name, value in code.keywords.items())]
        return "\n".join([source_of(code.func), *bound])
    target = inspect.unwrap(code) if inspect.isroutine(code) else type(code)
    try:
        return inspect.getsource(target)
    except (OSError, TypeError):
        return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', repr(target))}"


def _written(prompt: Any) -> str:
    """A piece of a prompt as its author wrote it: text, or the source of what makes it."""
    if isinstance(prompt, str | TemplateStr):
        return str(prompt)
    return prompt.content if isinstance(prompt, InstructionPart) else source_of(prompt)


def _rendered(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> str:
    parts = [part.content for part in parameters.instruction_parts or ()]
    for message in messages:
        if isinstance(message, ModelRequest):
            parts += [part.content for part in message.parts if isinstance(part, SystemPromptPart)]
    return "\n\n".join(str(part) for part in parts)
