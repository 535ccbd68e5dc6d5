"""Tools declare their effect on the world: `reads`, `writes` or `irreversible`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias

from pydantic_ai import Tool
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.errors import BadInput

Effect = Literal["reads", "writes", "irreversible"]
"""What a tool does to the world."""

Reconcile: TypeAlias = Callable[[str, Mapping[str, Any]], bool | Awaitable[bool | None] | None]
"""Says whether an approved action happened, by its idempotency key and arguments; None if that cannot be told."""
StillValid: TypeAlias = Callable[[Mapping[str, Any]], bool | str | Awaitable[bool | str]]
"""Says by its arguments whether an approved action may still be executed: True, or False or the reason why not."""

_EFFECT = "handrail.effect"
_APPROVER = "handrail.approver"
_IDEMPOTENT = "handrail.idempotent"
_CHECKS = "handrail.checks"


class ActionChecks:
    """What a tool can say about its approved actions.

    Args:
        reconcile: Says whether an action whose execution was interrupted happened.
        still_valid: Says whether an action may still be executed.
    """

    def __init__(self, reconcile: Reconcile | None = None, still_valid: StillValid | None = None) -> None:
        self.reconcile = reconcile
        self.still_valid = still_valid

    def __deepcopy__(self, _memo: object) -> "ActionChecks":
        # Pydantic AI copies a tool's metadata with everything in it, and these may belong to a client with a lock.
        return self


def tool(
    function: Callable[..., Any],
    *,
    effect: Effect,
    approver: str | None = None,
    idempotent: bool = False,
    reconcile: Reconcile | None = None,
    still_valid: StillValid | None = None,
    **options: Any,
) -> Tool[Any]:
    """A Pydantic AI tool with its effect declared.

    Args:
        function: What the tool does; its docstring and parameters are what the model reads.
        effect: `reads`, `writes`, or `irreversible` if a person has to approve each call before it is executed.
        approver: Who may approve an irreversible call: `requester` (the user of the run, the default) or `role:NAME`.
        idempotent: A promise that an irreversible tool acts only once however often it is called with the same
            `handrail.idempotency_key()`. Only such a tool is called again if a process died while executing it.
        reconcile: Called if an approved action may or may not have happened, because its process died or the tool
            raised. It gets the action's idempotency key and its arguments as JSON, and returns True if the action
            happened, False if it did not, and None if it cannot tell. Without it, or after None, a person decides. May
            be asynchronous; an exception counts as None.
        still_valid: Called right before an approved action is executed, with its arguments as JSON. Unless it returns
            True the action is not executed, and the model is told so; a text that it returns is the reason. May be
            asynchronous; if it raises, the action is tried again later.
        **options: Passed to `pydantic_ai.Tool`.

    Returns:
        The tool, for `Agent(tools=[...])`.

    Raises:
        BadInput: The effect or the approver is not valid, a tool that is not irreversible was given `approver` or
            `idempotent`, or one that only reads `reconcile` or `still_valid`.
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
    if effect == "reads" and (reconcile is not None or still_valid is not None):
        raise BadInput(f"tool {name}: it only reads, so there is nothing to reconcile, and it is always valid")
    checks = ActionChecks(reconcile, still_valid)
    declared = {_EFFECT: effect, _APPROVER: approver, _IDEMPOTENT: idempotent, _CHECKS: checks}
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


def checks_of(definition: ToolDefinition) -> ActionChecks:
    """What a tool can say about its approved actions; nothing unless it was declared with `tool`."""
    return (definition.metadata or {}).get(_CHECKS) or ActionChecks()


def approver_for(definition: ToolDefinition, asked: Any) -> str:
    """Who may approve a call whose tool asked for approval itself.

    Args:
        definition: The tool's definition.
        asked: The `approver` in the metadata of its `ApprovalRequired`, which counts if it is valid.
    """
    return asked if _is_approver(asked) else approver_of(definition)


def _is_approver(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    return text == "requester" or (text.startswith("role:") and len(text) > len("role:"))
