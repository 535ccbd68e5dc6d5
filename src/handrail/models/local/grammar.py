"""The formats that the built-in model may reply in, each a JSON object with one key.

    {"find_order": {"order_id": "A-1001"}}      a function tool, or an output tool
    {"answer": {...}}                           a native or prompted structured output
    {"reply": "..."}                            plain text

A grammar built from the formats constrains generation, so a reply always parses; whether it is correct is for the
agent's validation to decide.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai import InlineDefsJsonSchemaTransformer, ModelSettings
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

SchemaDict = dict[str, Any]

ANSWER = "answer"
REPLY = "reply"
MAX_STRING_LENGTH = 800
"""Characters in one string, about 200 tokens. Without a limit a small model may ramble until its tokens run out."""

# Regular expressions that the grammar engine lacks. A schema with one of them would silently disable the grammar.
_UNSUPPORTED_PATTERN = re.compile(r"\(\?(?!:)|\\[bBAZ1-9]")


class BoundedSchema(InlineDefsJsonSchemaTransformer):
    """A schema that the grammar engine supports: no references, no unbounded string, no unsupported pattern."""

    def transform(self, schema: SchemaDict) -> SchemaDict:
        """Drops the keys that the engine does not need or support, and limits the length of strings."""
        schema = {key: value for key, value in schema.items() if key not in ("title", "default", "examples")}
        if _UNSUPPORTED_PATTERN.search(str(schema.get("pattern", ""))):
            del schema["pattern"]
        if schema.get("type") == "string" and not schema.keys() & {"enum", "const", "format", "pattern"}:
            schema["maxLength"] = max(
                min(schema.get("maxLength", MAX_STRING_LENGTH), MAX_STRING_LENGTH), schema.get("minLength", 0)
            )
        return schema


@dataclass(frozen=True)
class ReplyFormat:
    """One way to reply: `{key: value of schema}`. `tool` is the tool that it calls; None for text or an answer."""

    key: str
    schema: SchemaDict
    description: str
    tool: str | None = None


def reply_formats(parameters: ModelRequestParameters, settings: ModelSettings | None) -> list[ReplyFormat]:
    """The formats that a prepared request allows, function tools first.

    Args:
        parameters: The request's tools and output.
        settings: The request's settings; `tool_choice` restricts the tools.
    """
    choice = (settings or {}).get("tool_choice")
    tools = [tool for tool in parameters.declared_function_tools if _is_allowed(choice, tool.name)]
    formats = [_tool_format(tool) for tool in [*tools, *parameters.output_tools]]
    if output := parameters.output_object:
        formats.append(ReplyFormat(ANSWER, output.json_schema, output.description or "the final answer"))
    elif parameters.allow_text_output and (choice != "required" or not tools):
        formats.append(ReplyFormat(REPLY, {"type": "string", "maxLength": MAX_STRING_LENGTH}, "a message to the user"))
    return formats


def repeated_tools(messages: Sequence[ModelMessage]) -> set[str]:
    """Tools called twice with the same arguments since the user's last message.

    A small model may repeat a call forever, so these tools are left out of its grammar.
    """
    calls: Counter[tuple[str, str]] = Counter()
    for message in messages:
        if isinstance(message, ModelResponse):
            calls.update((call.tool_name, call.args_as_json_str()) for call in message.tool_calls)
        elif any(isinstance(part, UserPromptPart) for part in message.parts):
            calls.clear()
    return {name for (name, _), count in calls.items() if count > 1}


def build_grammar(formats: Sequence[ReplyFormat]) -> str:
    """The grammar that accepts exactly one reply in one of the formats, on one line and without optional whitespace."""
    definitions: SchemaDict = {}
    options = []
    for reply_format in formats:
        definitions |= reply_format.schema.get("$defs", {})
        schema = {key: value for key, value in reply_format.schema.items() if key != "$defs"}
        options.append(
            {
                "type": "object",
                "properties": {reply_format.key: schema},
                "required": [reply_format.key],
                "additionalProperties": False,
            }
        )
    root = {"anyOf": options, "$defs": definitions, "x-guidance": {"whitespace_flexible": False, "lenient": True}}
    return "%llguidance {}\nstart: %json " + json.dumps(root)


def describe_formats(formats: Sequence[ReplyFormat]) -> str:
    """The formats for the prompt, one line each, in a notation like TypeScript's."""
    lines = ["Answer with exactly one JSON object in one of these forms:"]
    for reply_format in formats:
        is_bare_tool = reply_format.tool is not None and not reply_format.schema.get("properties")
        value = type_notation({"type": "object"} if is_bare_tool else reply_format.schema)
        lines.append(f'{{"{reply_format.key}": {value}}}  // {" ".join(reply_format.description.split())}')
    return "\n".join(lines)


def type_notation(schema: SchemaDict) -> str:
    """A schema in a few tokens, like a TypeScript type: `{id: string, kind: "a" | "b", note?: string}`."""
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(type_notation(member) for member in schema[union])
    match schema.get("type"):
        case "object":
            return _object_notation(schema)
        case "array":
            return f"[{type_notation(schema.get('items') or {})}, ...]"
        case str(name):
            return str(schema.get("format", name))
        case _:
            return "any"


def parse_reply(text: str, formats: Sequence[ReplyFormat]) -> ModelResponsePart:
    """The model's reply as a part of a response.

    Args:
        text: The reply.
        formats: The formats that were offered.

    Raises:
        ValueError: The reply has none of the formats.
    """
    reply = json.loads(text)
    if not isinstance(reply, dict) or len(reply) != 1:
        raise ValueError("the reply is not an object with one key")
    [(key, value)] = reply.items()
    reply_format = next((candidate for candidate in formats if candidate.key == key), None)
    if reply_format is None:
        raise ValueError(f"the reply has the format {key!r}, which was not offered")
    if reply_format.tool is not None:
        return ToolCallPart(reply_format.tool, value)
    return TextPart(value if key == REPLY else json.dumps(value, ensure_ascii=False))


def _object_notation(schema: SchemaDict) -> str:
    required = schema.get("required", ())
    fields = [
        f"{name}{'' if name in required else '?'}: {type_notation(field)}{_comment(field)}"
        for name, field in schema.get("properties", {}).items()
    ]
    return "{" + ", ".join(fields) + "}"


def _comment(field: SchemaDict) -> str:
    description = " ".join(str(field.get("description", "")).split())
    return f" /* {description} */" if description else ""


def _tool_format(tool: ToolDefinition) -> ReplyFormat:
    return ReplyFormat(tool.name, tool.parameters_json_schema, tool.description or "", tool=tool.name)


def _is_allowed(choice: object, name: str) -> bool:
    """Whether `tool_choice`, a word, a list of names or an object that holds one, allows a call of a function tool."""
    if choice == "none":
        return False
    names = getattr(choice, "function_tools", choice)
    return name in names if isinstance(names, Sequence) and not isinstance(names, str) else True


def parse_arguments(arguments: str | Mapping[str, Any] | None) -> Any:
    """A tool call's arguments as a value, whether the model that made the call gave JSON text or an object."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
