"""Identifies the prompt and the agent that produced a run: three hashes, and the texts behind them.

`template` is the prompt as written, `rendered` the prompt as sent, `agent` everything that can change an answer:
template, model, settings, tools, output schema, route and fallback. Baselines are stored per `agent` hash.
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

# Where a request goes and how long it may take does not change the answer.
_NOT_BEHAVIOUR = frozenset({"timeout", "max_retries", "extra_headers"})


@dataclass(frozen=True)
class Fingerprint:
    """Three SHA-256 hashes, in hexadecimal."""

    template: str
    """Of the prompt as written."""
    rendered: str
    """Of the prompt as sent with the run's first model request."""
    agent: str
    """Of everything that can change an answer."""


@dataclass(frozen=True)
class AgentDefinition:
    """The part of a fingerprint that is the same in all runs of an agent."""

    template: str
    """The prompt as written."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the source of functions that can change an answer, by role (`route`, `fallback`)."""
    policy: Mapping[str, float] = field(default_factory=dict)
    """Numbers that can change an answer, by name (`threshold`)."""


@dataclass(frozen=True)
class FingerprintedRequest:
    """A run's fingerprint, with the texts behind it."""

    fingerprint: Fingerprint
    rendered: str
    """The prompt as sent."""
    body: str
    """The JSON that the agent's hash is of."""


def define_agent(
    agent: Agent[Any, Any], code: Mapping[str, Callable[..., Any] | None], policy: Mapping[str, float]
) -> AgentDefinition:
    """The part of an agent's fingerprint that is the same in all its runs.

    Args:
        agent: The agent.
        code: Functions that can change its answers, by role; None for a role that the agent does not use.
        policy: Numbers that can change its answers, by name.
    """
    # Private to Pydantic AI; tests/pydantic_ai pins these attributes at both ends of the supported range.
    prompts = [
        *agent._system_prompts,  # noqa: SLF001
        *(runner.function for runner in agent._system_prompt_functions),  # noqa: SLF001
        *(sourced.instruction for sourced in agent._instructions),  # noqa: SLF001
    ]
    template = "\n\n".join(map(_template_text, prompts))
    sources = {role: sha256(source_of(function)) for role, function in code.items() if function is not None}
    return AgentDefinition(template, sources, policy)


def fingerprint_request(
    definition: AgentDefinition,
    model: str,
    settings: Mapping[str, Any],
    messages: Sequence[ModelMessage],
    parameters: ModelRequestParameters,
) -> FingerprintedRequest:
    """The fingerprint of a run, taken from its first model request.

    Args:
        definition: The agent's definition.
        model: The model, as `provider:name`.
        settings: The request's settings, with those of the model.
        messages: The messages to send.
        parameters: The request's tools, output and instructions.
    """
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
    return FingerprintedRequest(
        Fingerprint(sha256(definition.template), sha256(rendered), sha256(body)), rendered, body
    )


def sha256(text: str) -> str:
    """The SHA-256 of `text` in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def source_of(code: Any) -> str:
    """The source of a function, or of an object's class; the qualified name if the source cannot be read."""
    if isinstance(code, functools.partial):
        bound = [*map(repr, code.args), *(f"{name}={value!r}" for name, value in code.keywords.items())]
        return "\n".join([source_of(code.func), *bound])
    target = inspect.unwrap(code) if inspect.isroutine(code) else type(code)
    try:
        return inspect.getsource(target)
    except (OSError, TypeError):
        return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', repr(target))}"


def _template_text(prompt: Any) -> str:
    """A part of the prompt as its author wrote it: text, or the source of the function that makes it."""
    if isinstance(prompt, str | TemplateStr):
        return str(prompt)
    return prompt.content if isinstance(prompt, InstructionPart) else source_of(prompt)


def _rendered(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> str:
    parts = [part.content for part in parameters.instruction_parts or ()]
    for message in messages:
        if isinstance(message, ModelRequest):
            parts += [part.content for part in message.parts if isinstance(part, SystemPromptPart)]
    return "\n\n".join(str(part) for part in parts)
