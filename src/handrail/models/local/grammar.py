"""The forms that the built-in model may answer in, each a JSON object of one key.

    {"find_order": {"order_id": "A-1001"}}      a function tool, or an output tool
    {"answer": {...}}                           a native or prompted structured output
    {"reply": "..."}                            plain text

A grammar made of the forms binds the model while it generates, so what it says parses; whether it is right is for the
agent's validation to find out.
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

JsonSchema = dict[str, Any]

ANSWER = "answer"
REPLY = "reply"
LONGEST_STRING = 800
"""Characters in one string: about 200 tokens. Without a bound a small model may ramble until its tokens run out."""

# What the grammar engine's regular expressions lack. A schema with one of these would switch the grammar off silently.
_UNSUPPORTED_PATTERN = re.compile(r"\(\?(?!:)|\\[bBAZ1-9]")


class BoundedSchema(InlineDefsJsonSchemaTransformer):
    """A schema as the grammar engine takes it: no references, no string without an end, no unsupported pattern."""

    def transform(self, schema: JsonSchema) -> JsonSchema:
        schema = {key: value for key, value in schema.items() if key not in ("title", "default", "examples")}
        if _UNSUPPORTED_PATTERN.search(str(schema.get("pattern", ""))):
            del schema["pattern"]
        if schema.get("type") == "string" and not schema.keys() & {"enum", "const", "format", "pattern"}:
            schema["maxLength"] = max(
                min(schema.get("maxLength", LONGEST_STRING), LONGEST_STRING), schema.get("minLength", 0)
            )
        return schema


@dataclass(frozen=True)
class Form:
    """One way to answer: `{key: value of schema}`. `tool` is the tool that it calls, or None for text."""

    key: str
    schema: JsonSchema
    purpose: str
    tool: str | None = None


def forms_of(parameters: ModelRequestParameters, settings: ModelSettings | None) -> list[Form]:
    """The forms that a prepared request allows, function tools first. The settings' `tool_choice` narrows them."""
    choice = (settings or {}).get("tool_choice")
    tools = [tool for tool in parameters.declared_function_tools if _allows(choice, tool.name)]
    forms = [_tool_form(tool) for tool in [*tools, *parameters.output_tools]]
    if output := parameters.output_object:
        forms.append(Form(ANSWER, output.json_schema, output.description or "the final answer"))
    elif parameters.allow_text_output and (choice != "required" or not tools):
        forms.append(Form(REPLY, {"type": "string", "maxLength": LONGEST_STRING}, "a message to the user"))
    return forms


def spent_tools(messages: Sequence[ModelMessage]) -> set[str]:
    """Tools called twice with the same arguments since the user last spoke.

    A small model may go on for ever asking what it has been told, so its grammar leaves these out.
    """
    calls: Counter[tuple[str, str]] = Counter()
    for message in messages:
        if isinstance(message, ModelResponse):
            calls.update((call.tool_name, call.args_as_json_str()) for call in message.tool_calls)
        elif any(isinstance(part, UserPromptPart) for part in message.parts):
            calls.clear()
    return {name for (name, _), times in calls.items() if times > 1}


def grammar_of(forms: Sequence[Form]) -> str:
    """The grammar that admits exactly one of the forms, on one line, without optional white space."""
    definitions: JsonSchema = {}
    options = []
    for form in forms:
        definitions |= form.schema.get("$defs", {})
        schema = {key: value for key, value in form.schema.items() if key != "$defs"}
        options.append(
            {"type": "object", "properties": {form.key: schema}, "required": [form.key], "additionalProperties": False}
        )
    root = {"anyOf": options, "$defs": definitions, "x-guidance": {"whitespace_flexible": False, "lenient": True}}
    return "%llguidance {}\nstart: %json " + json.dumps(root)


def explain(forms: Sequence[Form]) -> str:
    """The forms, for the prompt: one line each, in the notation that programmers know."""
    lines = ["Answer with exactly one JSON object in one of these forms:"]
    for form in forms:
        shape = form.schema if form.tool is None or form.schema.get("properties") else {"type": "object"}
        lines.append(f'{{"{form.key}": {notation(shape)}}}  // {" ".join(form.purpose.split())}')
    return "\n".join(lines)


def notation(schema: JsonSchema) -> str:
    """A schema in a few tokens, like a TypeScript type: `{id: string, kind: "a" | "b", note?: string}`."""
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(notation(member) for member in schema[union])
    match schema.get("type"):
        case "object":
            return _object_notation(schema)
        case "array":
            return f"[{notation(schema.get('items') or {})}, ...]"
        case str(name):
            return str(schema.get("format", name))
        case _:
            return "any"


def read_reply(text: str, forms: Sequence[Form]) -> ModelResponsePart:
    """What the model said, as a part of a response. Raises ValueError if it is in none of the forms."""
    said = json.loads(text)
    if not isinstance(said, dict) or len(said) != 1:
        raise ValueError("the reply is not an object of one key")
    [(key, value)] = said.items()
    form = next((form for form in forms if form.key == key), None)
    if form is None:
        raise ValueError(f"the reply has the form {key!r}, which was not offered")
    if form.tool is not None:
        return ToolCallPart(form.tool, value)
    return TextPart(value if key == REPLY else json.dumps(value, ensure_ascii=False))


def _object_notation(schema: JsonSchema) -> str:
    required = schema.get("required", ())
    fields = [
        f"{name}{'' if name in required else '?'}: {notation(field)}{_comment(field)}"
        for name, field in schema.get("properties", {}).items()
    ]
    return "{" + ", ".join(fields) + "}"


def _comment(field: JsonSchema) -> str:
    description = " ".join(str(field.get("description", "")).split())
    return f" /* {description} */" if description else ""


def _tool_form(tool: ToolDefinition) -> Form:
    return Form(tool.name, tool.parameters_json_schema, tool.description or "", tool=tool.name)


def _allows(choice: object, name: str) -> bool:
    """Whether `tool_choice` lets a function tool be called; it is a word, a list of names or an object that has one."""
    if choice == "none":
        return False
    names = getattr(choice, "function_tools", choice)
    return name in names if isinstance(names, Sequence) and not isinstance(names, str) else True


def named_arguments(arguments: str | Mapping[str, Any] | None) -> Any:
    """A tool call's arguments as a value, whichever way the model that made the call wrote them."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
