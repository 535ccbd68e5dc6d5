"""A tool call as its tool validated it: what people see of it, and what has to be the same when it is executed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.serialization import canonical_json, to_plain
from handrail.review.approvals.model import digest

from .fingerprint import sha256


@dataclass(frozen=True, kw_only=True)
class ProposedCall:
    """A tool call with its validated arguments."""

    tool: ToolDefinition
    arguments: Mapping[str, Any]
    """The validated arguments with their defaults, as plain JSON values."""
    error: Exception | None = None
    """Why the arguments are not valid; `arguments` are then the model's own."""

    @property
    def schema_hash(self) -> str:
        """The SHA-256 of the JSON schema of the tool's parameters, in hexadecimal."""
        return sha256(canonical_json(to_plain(self.tool.parameters_json_schema)[0]))

    @property
    def digest(self) -> str:
        """What identifies the call; arguments that are not valid identify none."""
        return "" if self.error is not None else digest(self.tool.name, self.arguments, self.schema_hash)


def validated_call(tool: ToolDefinition, args: Mapping[str, Any]) -> ProposedCall:
    """A call whose arguments are valid.

    Args:
        tool: The tool's definition.
        args: The validated arguments.
    """
    return ProposedCall(tool=tool, arguments=to_plain(dict(args))[0])


def unvalidated_call(tool: ToolDefinition, call: ToolCallPart, error: Exception | None) -> ProposedCall:
    """A call with the arguments as the model wrote them.

    Args:
        tool: The tool's definition.
        call: The call.
        error: Why they are not valid; None if that is not known yet.
    """
    return ProposedCall(tool=tool, arguments=to_plain(call.args_as_dict())[0], error=error)
