"""An upper bound on a request's input tokens, without knowing its model's tokenizer.

A byte-level BPE has a token for each byte and merges from there, so a text has at most as many tokens as UTF-8 bytes
(Sennrich et al. 2016 on byte pairs, as in GPT-2 and its successors). The same holds for SentencePiece with byte
fallback. JSON is counted with spaces and with everything but ASCII escaped, which is the longest way to send it. What
providers and Pydantic AI add around the texts gets fixed allowances, generous where nobody publishes a number.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_ai.messages import (
    BinaryContent,
    CachePoint,
    FilePart,
    FileUrl,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponsePart,
    NativeToolCallPart,
    NativeToolReturnPart,
    SpeechPart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.profiles import InlineDefsJsonSchemaTransformer
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.serialization import as_json

REQUEST = 1_500
"""For the frame of a request, with what Pydantic AI announces in it (1,089 bytes at most in 2.68)."""
PART = 32
"""For each message, part, tool and id: roles, separators and end markers. OpenAI's cookbook counts 3 or 4 tokens."""
FRAME = 512
"""For parts that Pydantic AI wraps in a sentence or a tag, and for its note on text that contains tags of its own."""
TOOL_PREAMBLE = 1_000
"""For a provider's own instructions on using tools. Anthropic's page on tool use pricing lists up to 530 for Claude 3;
up to 935 are reported for later models."""
IMAGE = 5_000
"""For each image. Anthropic scales one to at most 4,784 tokens, Gemini to 4,128, OpenAI's GPT-4.1 nano to 3,779. An
image that costs more, as with GPT-4o mini (up to 48,169), is booked at what it really used."""


def input_bound(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int | None:
    """The most input tokens that one request can be billed for.

    Args:
        messages: All messages of the request.
        parameters: Its tools, instructions and output format.

    Returns:
        The bound; None if there can be no bound: for documents, audio, video and uploaded files, and for tools that run
        at the provider, whose results are input too.
    """
    parts = (part for message in messages for part in message.parts)
    sizes = [
        REQUEST + PART * len(messages) + _instructions(messages, parameters),
        *_parameters(parameters),
        *(size for part in parts for size in _part(part)),
    ]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _instructions(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int:
    if parameters.instruction_parts is not None:
        return sum(PART + _text(part.content) for part in parameters.instruction_parts)
    # A history keeps instructions with each of its requests; those of one are sent.
    instructions = [message.instructions for message in messages if isinstance(message, ModelRequest)]
    return max((_text(text) for text in instructions if text), default=0)


def _parameters(parameters: ModelRequestParameters) -> Iterator[int | None]:
    tools = [*parameters.function_tools, *parameters.output_tools]
    if tools:
        yield TOOL_PREAMBLE + sum(_tool(tool) for tool in tools)
    if parameters.native_tools:
        yield None
    if parameters.output_object is not None:
        names = [parameters.output_object.name, parameters.output_object.description]
        yield FRAME + _schema(parameters.output_object.json_schema) + _json(names)
    if parameters.prompted_output_template:
        yield _text(parameters.prompted_output_template)


def _tool(tool: ToolDefinition) -> int:
    # Pydantic AI puts a tool's return schema, indented, into its description for most models, if the tool says so.
    returns = json.dumps(tool.return_schema, indent=2) if tool.include_return_schema else ""
    return PART + _json([tool.name, tool.description, returns]) + _schema(tool.parameters_json_schema)


def _schema(schema: dict[str, Any]) -> int:
    """The larger of the schema as it is and with its definitions inlined: some providers cannot follow references."""
    if "$defs" not in schema:
        return _json(schema)
    return max(_json(schema), _json(InlineDefsJsonSchemaTransformer(schema).walk()))


def _part(part: ModelRequestPart | ModelResponsePart) -> Iterator[int | None]:
    yield PART
    match part:
        case SystemPromptPart() | TextPart():
            yield _text(part.content)
        case UserPromptPart():
            yield from _content([part.content] if isinstance(part.content, str) else part.content)
        case ThinkingPart():
            # A signature can hold the thought itself, encrypted.
            yield FRAME + _text(part.content) + _text(part.signature or "")
        case ToolCallPart() | NativeToolCallPart():
            yield _text(part.tool_name) + _text_or_json(part.args) + _text(part.tool_call_id)
        case ToolReturnPart() | NativeToolReturnPart():
            yield _text(part.tool_name) + _text(part.tool_call_id)
            yield from _content(part.content if isinstance(part.content, list) else [part.content])
            if part.outcome != "success":
                # An error is sent as text within an object, so its quotes are escaped once more.
                yield FRAME + _json(as_json(part.content).decode())
        case FilePart():
            yield from _content([part.content])
        case SpeechPart():
            yield None
        case _:
            # Retries, changes of tools and instructions, summaries, and whatever a later Pydantic AI adds.
            yield FRAME + len(json.dumps(_plain(part), indent=2))


def _content(content: Sequence[Any]) -> Iterator[int | None]:
    for item in content:
        yield PART
        match item:
            case CachePoint():
                continue
            case TextContent():
                yield _text_or_json(item.content)
            case ImageUrl():
                yield IMAGE
            case BinaryContent() if item.is_image:
                yield IMAGE
            case FileUrl() | BinaryContent() | UploadedFile():
                yield None
            case _:
                yield _text_or_json(item)


def _text_or_json(value: Any) -> int:
    return _text(value) if isinstance(value, str) else _json(value)


def _text(text: str) -> int:
    # A lone surrogate counts as the three bytes of a replacement character.
    return len(text.encode("utf-8", "surrogatepass")) + (FRAME if "<" in text else 0)


def _json(value: Any) -> int:
    return len(json.dumps(_plain(value)))


def _plain(value: Any) -> Any:
    return json.loads(as_json(value))
