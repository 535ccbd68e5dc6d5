"""An upper bound on a request's input tokens, without knowing its model's tokenizer.

A byte-level BPE has a token for each byte and merges from there, so a text has at most as many tokens as UTF-8 bytes
(Sennrich et al. 2016 on byte pairs, as in GPT-2 and its successors). The same holds for SentencePiece with byte
fallback. JSON is counted with spaces and with everything but ASCII escaped, which is the longest way to send it. What
providers and Pydantic AI add around the texts gets fixed allowances, generous where nobody publishes a number.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    CachePoint,
    FilePart,
    FileUrl,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    NativeToolCallPart,
    NativeToolReturnPart,
    SpeechPart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolAvailabilityDeltaPart,
    ToolCallPart,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
    VideoUrl,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.profiles import InlineDefsJsonSchemaTransformer
from pydantic_ai.tools import ToolDefinition

from handrail.kernel.serialization import as_json
from handrail.models.image_tokens import fills_window, image_tokens

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
"""For an image whose model is not known to `image_tokens`; such an image has no bound."""
OBJECT = 48
"""For what Pydantic AI adds to an object in a schema: that it has no other properties, and which are required."""
NOTE = 24
"""For each schema within a schema, whose limits may be repeated in its description."""
# OpenAI's ids of thinking. Without a signature, only the id is sent.
_KEPT_REASONING = "rs_"
# Kept with a part, but never sent.
_NOT_SENT = frozenset({"annotations", "avg_logprobs", "logprobs"})
_PLAIN_TEXT = frozenset({"text/markdown", "text/plain"})

_Found = Iterator[int | str]
"""The bounds of what is in a request, and the names of what has none."""


@dataclass(frozen=True, slots=True)
class InputBound:
    """The most input tokens that one request can be billed for, as far as there is a bound."""

    tokens: int
    """The bound of everything but what `unbounded` names."""
    unbounded: tuple[str, ...] = ()
    """What has no bound, such as `a document`: its tokens are known only to the provider."""


def input_bound(messages: Sequence[ModelMessage], parameters: ModelRequestParameters, model: Model) -> InputBound:
    """The most input tokens that one request can be billed for.

    Tools and memory at the provider are not input of the request; `handrail.models.unbounded` names those.

    Args:
        messages: All messages of the request.
        parameters: Its tools, instructions and output format.
        model: The model that reads it. One with a context window rejects what does not fit, so nothing in a request
            is without a bound.
    """
    images = image_tokens(model.model_name)
    found = [
        REQUEST + PART * len(messages) + _instructions(messages, parameters),
        *_parameters(parameters),
        *(size for message in messages for size in _message(message, images)),
        *_revealed_tools(messages, parameters),
    ]
    tokens = sum(size for size in found if isinstance(size, int))
    unbounded = tuple(dict.fromkeys(name for name in found if isinstance(name, str)))
    window = model.profile.get("context_window") if fills_window(model.model_name) else None
    if window is None:
        return InputBound(tokens, unbounded)
    return InputBound(window if unbounded else min(tokens, window))


def _instructions(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int:
    if parameters.instruction_parts is not None:
        return sum(PART + _text(part.content) for part in parameters.instruction_parts)
    # A history keeps instructions with each of its requests; those of one are sent.
    instructions = [message.instructions for message in messages if isinstance(message, ModelRequest)]
    return max((_text(text) for text in instructions if text), default=0)


def _parameters(parameters: ModelRequestParameters) -> Iterator[int]:
    tools = [*parameters.function_tools, *parameters.output_tools]
    if tools:
        yield TOOL_PREAMBLE + sum(_tool(tool) for tool in tools)
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
    sizes = [_json(schema) + _additions(schema)]
    if "$defs" in schema:
        inlined = InlineDefsJsonSchemaTransformer(schema).walk()
        sizes.append(_json(inlined) + _additions(inlined))
    return max(sizes)


def _additions(schema: object) -> int:
    """What a strict mode and the removal of unsupported limits can add to a schema."""
    if isinstance(schema, list):
        return sum(map(_additions, schema))
    if not isinstance(schema, dict):
        return 0
    properties = schema.get("properties")
    names = _json(list(properties)) if isinstance(properties, dict) else 0
    return (OBJECT if "properties" in schema or "object" in str(schema.get("type")) else 0) + (
        NOTE + names + sum(map(_additions, schema.values()))
    )


def _revealed_tools(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> Iterator[int]:
    """The definitions that the results of a search repeat, since some providers get them there again."""
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, ToolAvailabilityDeltaPart):
            yield sum(_tool(tool) for tool in parameters.function_tools if tool.name in part.tools_added)
        elif isinstance(part, ToolReturnPart | NativeToolReturnPart) and part.tool_kind == "tool-search":
            found = json.dumps(_plain(part.content))
            yield sum(_tool(tool) for tool in parameters.function_tools if json.dumps(tool.name) in found)


def _message(message: ModelMessage, images: int | None) -> _Found:
    for part in message.parts:
        yield from _part(part, images)
        if isinstance(message, ModelResponse) and isinstance(part, ThinkingPart) and _is_kept(part):
            # The provider adds what it thought then. It was billed as output, so that is the most it can be.
            billed = message.usage.output_tokens
            yield billed if billed > 0 else "earlier thinking that the provider keeps"


def _is_kept(part: ThinkingPart) -> bool:
    return (part.id or "").startswith(_KEPT_REASONING) and not part.signature


def _part(part: ModelRequestPart | ModelResponsePart, images: int | None) -> _Found:
    # Thoughts that are encrypted, or citations.
    details = {
        key: value for key, value in (getattr(part, "provider_details", None) or {}).items() if key not in _NOT_SENT
    }
    yield PART + (_json(details) if details else 0)
    match part:
        case SystemPromptPart() | TextPart():
            yield _text(part.content)
        case UserPromptPart():
            yield from _content([part.content] if isinstance(part.content, str) else part.content, images)
        case ThinkingPart():
            # A signature can hold the thought itself, encrypted.
            yield FRAME + _text(part.content) + _text(part.signature or "")
        case ToolCallPart() | NativeToolCallPart():
            yield _text(part.tool_name) + _text_or_json(part.args) + _text(part.tool_call_id)
        case ToolReturnPart() | NativeToolReturnPart():
            yield from _tool_return(part, images)
        case FilePart():
            yield from _content([part.content], images)
        case SpeechPart():
            yield FRAME + _text(part.transcript or "")
            if part.audio is not None:
                yield "audio"
        case _:
            # Retries, changes of tools and instructions, summaries, and whatever a later Pydantic AI adds.
            yield FRAME + len(json.dumps(_plain(part), indent=2))


def _tool_return(part: ToolReturnPart | NativeToolReturnPart, images: int | None) -> _Found:
    source = _text(part.tool_name) + _text(part.tool_call_id)
    content = part.content if isinstance(part.content, list) else [part.content]
    yield source
    yield from _content(content, images)
    # A file that a tool returned is enclosed in tags that name the tool and the call.
    yield 2 * source * sum(isinstance(item, FileUrl | BinaryContent | UploadedFile) for item in content)
    if part.outcome != "success":
        # An error is sent as text within an object, so its quotes are escaped once more.
        yield FRAME + _json(json.dumps(_plain(part.content), indent=2))


def _content(content: Sequence[Any], images: int | None) -> _Found:
    for item in content:
        yield PART
        match item:
            case CachePoint():
                continue
            case TextContent():
                yield _text_or_json(item.content)
            case FileUrl() | BinaryContent() | UploadedFile():
                # A file is announced and enclosed by its name.
                yield FRAME + 3 * _text(item.identifier)
                yield from _file(item, images)
            case _:
                yield _text_or_json(item)


def _file(item: FileUrl | BinaryContent | UploadedFile, images: int | None) -> _Found:
    match item:
        case ImageUrl():
            yield from _image(images)
        case BinaryContent() if item.is_image:
            yield from _image(images)
        case BinaryContent() if item.media_type in _PLAIN_TEXT:
            yield len(item.data) + FRAME
        case AudioUrl():
            yield "audio"
        case BinaryContent() if item.is_audio:
            yield "audio"
        case VideoUrl():
            yield "a video"
        case BinaryContent() if item.is_video:
            yield "a video"
        case UploadedFile():
            yield "an uploaded file"
        case _:
            yield "a document"


def _image(images: int | None) -> _Found:
    if images is None:
        yield "an image"
    yield images or IMAGE


def _text_or_json(value: Any) -> int:
    return _text(value) if isinstance(value, str) else _json(value)


def _text(text: str) -> int:
    # A lone surrogate counts as the three bytes of a replacement character.
    return len(text.encode("utf-8", "surrogatepass")) + (FRAME if "<" in text else 0)


def _json(value: Any) -> int:
    return len(json.dumps(_plain(value)))


def _plain(value: Any) -> Any:
    return json.loads(as_json(value))
