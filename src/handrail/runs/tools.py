"""Tools declare their effect on the world: `reads`, `writes` or `irreversible`."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic_ai import Tool
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.errors import BadInput

Effect = Literal["reads", "writes", "irreversible"]
"""What a tool does to the world."""

_EFFECT = "handrail.effect"
_APPROVER = "handrail.approver"
_IDEMPOTENT = "handrail.idempotent"


def tool(
    function: Callable[..., Any],
    *,
    effect: Effect,
    approver: str | None = None,
    idempotent: bool = False,
    **options: Any,
) -> Tool[Any]:
    """A Pydantic AI tool with its effect declared.

    Args:
        function: What the tool does; its docstring and parameters are what the model reads.
        effect: `reads`, `writes`, or `irreversible` if a person has to approve each call before it is executed.
        approver: Who may approve an irreversible call: `requester` (the user of the run, the default) or `role:NAME`.
        idempotent: A promise that an irreversible tool acts only once however often it is called with the same
            `handrail.idempotency_key()`. Only such a tool is called again if a process died while executing it.
        **options: Passed to `pydantic_ai.Tool`.

    Returns:
        The tool, for `Agent(tools=[...])`.

    Raises:
        BadInput: The effect or the approver is not valid, or a tool that is not irreversible was given `approver` or
            `idempotent`.
    """
    name = getattr(function, "__name__", repr(function))
    if effect not in ("reads", "writes", "irreversible"):
        raise BadInput(f"tool {name}: effect {effect!r} is not valid; use reads, writes or irreversible")
    if effect == "irreversible":
        approver = approver or "requester"
        if not _is_approver(approver):
            raise BadInput(f"tool {name}: approver {approver!r} is neither 'requester' nor 'role:NAME'")
    elif approver is not None or idempotent:
        raise BadInput(
            f"tool {name}: only an irreversible tool has an approver or is idempotent; its effect is {effect!r}"
        )
    declared = {_EFFECT: effect, _APPROVER: approver, _IDEMPOTENT: idempotent}
    metadata = {**(options.pop("metadata", None) or {}), **declared}
    return Tool(function, metadata=metadata, **options)


def effect_of(definition: ToolDefinition) -> Effect | None:
    """A tool's declared effect, or None if it has none. Pydantic AI's own approval flag means irreversible."""
    if definition.kind == "unapproved":
        return "irreversible"
    effect: Effect | None = (definition.metadata or {}).get(_EFFECT)
    return effect


def approver_of(definition: ToolDefinition) -> str:
    """Who may approve a call of an irreversible tool; the run's user unless the tool says otherwise."""
    approver: str = (definition.metadata or {}).get(_APPROVER) or "requester"
    return approver


def is_idempotent(definition: ToolDefinition) -> bool:
    """Whether a tool declared that it may be called again after a crash."""
    return bool((definition.metadata or {}).get(_IDEMPOTENT))


def _is_approver(text: str) -> bool:
    return text == "requester" or (text.startswith("role:") and len(text) > len("role:"))
