"""Tools say what they do to the world: `reads`, `writes` or `irreversible`."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic_ai import Tool
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.errors import BadInput

Effect = Literal["reads", "writes", "irreversible"]
_KEY = "handrail.effect"
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
    """A Pydantic AI tool with its effect declared; `options` are `pydantic_ai.Tool`'s own.

    `approver` names who may approve an irreversible call: `requester` (who started the run) or `role:NAME`.
    `idempotent` promises that the tool, tried again with the same `handrail.idempotency_key()`, acts once; only such a
    tool is tried again when a process died while executing it. Raises BadInput for an effect or an approver that is
    none of these, and for either of them beside another effect.
    """
    name = getattr(function, "__name__", repr(function))
    if effect not in ("reads", "writes", "irreversible"):
        raise BadInput(f"tool {name}: effect {effect!r} is none of reads, writes, irreversible")
    if effect == "irreversible":
        approver = approver or "requester"
        if not _is_approver(approver):
            raise BadInput(f"tool {name}: approver {approver!r} is neither 'requester' nor 'role:NAME'")
    elif approver is not None or idempotent:
        raise BadInput(
            f"tool {name}: only an irreversible tool has an approver or is idempotent; its effect is {effect!r}"
        )
    declared = {_KEY: effect, _APPROVER: approver, _IDEMPOTENT: idempotent}
    metadata = {**(options.pop("metadata", None) or {}), **declared}
    return Tool(function, metadata=metadata, **options)


def effect_of(definition: ToolDefinition) -> Effect | None:
    """What a tool declared, or None where it declared nothing; Pydantic AI's own approval flag is irreversible."""
    if definition.kind == "unapproved":
        return "irreversible"
    effect: Effect | None = (definition.metadata or {}).get(_KEY)
    return effect


def approver_of(definition: ToolDefinition) -> str:
    """Who may approve a call of an irreversible tool; whoever started the run, where it does not say."""
    approver: str = (definition.metadata or {}).get(_APPROVER) or "requester"
    return approver


def is_idempotent(definition: ToolDefinition) -> bool:
    """Whether a tool declared that it may be tried again after a crash."""
    return bool((definition.metadata or {}).get(_IDEMPOTENT))


def _is_approver(text: str) -> bool:
    return text == "requester" or (text.startswith("role:") and len(text) > len("role:"))
