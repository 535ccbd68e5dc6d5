"""Extracts the values in a span's inputs and outputs, so that a value of one span can be found in another."""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from handrail.kernel.serialization import as_json
from handrail.traces.payloads import OPAQUE_ARGUMENTS

INPUT_KEYS = ("arguments", "input", "messages")
"""The payload keys of a span's inputs; the messages of a model request are those that are new since the last one."""
OUTPUT_KEYS = ("result", "output", "response", "documents", "outcome")
"""The payload keys of a span's outputs."""

_WORD = re.compile(r"[^\W_]+")
_DIGITS = re.compile(r"\d{3,}")
# Keys of a message that describe it; below its content, the same names may hold values.
_METADATA = frozenset(
    {"finish_reason", "id", "kind", "name", "part_kind", "provider_name", "role", "timestamp", "tool_call_id"}
    | {"tool_kind", "tool_name", "type"}
)
_CONTENT = frozenset({"args", "arguments", "content", "result", "response", "text"})
_MESSAGES = frozenset({"messages", "response"})


@dataclass(frozen=True)
class ValueSet:
    """The values in a document, in lower case: each as a whole, and the words and numbers in them.

    Texts of up to 3 characters and numbers of up to 2 digits are in `short`, since two of them may be equal by chance.
    """

    whole: frozenset[str]
    words: frozenset[str]
    short: frozenset[str]

    @functools.cached_property
    def text(self) -> str:
        """All whole values, one per line."""
        return "\n".join(sorted(self.whole))

    def shared(self, other: "ValueSet") -> set[str]:
        """The values and words that occur in both, also within a longer value; without short ones."""
        shared = set(self.words & other.words)
        shared.update(value for value in self.whole if value in other.text)
        shared.update(value for value in other.whole if value in self.text)
        return shared

    def contains(self, value: str) -> bool:
        """Whether a value or word occurs here."""
        return value in self.words or value in self.text


@dataclass(frozen=True)
class SpanValues:
    """The values that went into a span and came out of it; None if they were not recorded."""

    inputs: ValueSet | None
    outputs: ValueSet | None
    opaque: bool = False
    """Some of the inputs were objects that were not recorded."""


NOT_RECORDED = SpanValues(None, None)


def span_values(payload: Mapping[str, Any]) -> SpanValues:
    """The values in a payload, from the store or from a span that is still open."""
    plain = json.loads(as_json(payload))
    return SpanValues(_values(plain, INPUT_KEYS), _values(plain, OUTPUT_KEYS), opaque=bool(plain.get(OPAQUE_ARGUMENTS)))


def requested_tool_calls(payload: Mapping[str, Any]) -> frozenset[str]:
    """The ids of the tool calls in a model's response."""
    call_ids: set[str] = set()
    pending = [json.loads(as_json(payload.get("response", payload.get("output"))))]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            call_ids.update(str(value[name]) for name in ("tool_call_id", "id") if value.get(name))
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return frozenset(call_ids)


def _values(payload: Mapping[str, Any], names: tuple[str, ...]) -> ValueSet | None:
    recorded = [name for name in names if name in payload]
    if not recorded:
        return None
    documents = (_contents(payload[name]) if name in _MESSAGES else [payload[name]] for name in recorded)
    scalars = {text.casefold() for text in _scalars(chain.from_iterable(documents))}
    words: set[str] = set()
    for text in scalars:
        words.update(word for word in _WORD.findall(text) if _is_distinctive(word))
        words.update(_DIGITS.findall(text))
    whole = frozenset(text for text in scalars if _is_distinctive(text))
    return ValueSet(whole, frozenset(words), frozenset(scalars - whole))


def _is_distinctive(text: str) -> bool:
    return len(text) > 3 or (len(text) == 3 and text.isdecimal())


def _contents(messages: Any) -> Iterator[Any]:
    """The content of messages, without the keys that describe them."""
    pending = [messages]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from (item for name, item in value.items() if name in _CONTENT)
            pending.extend(item for name, item in value.items() if name not in _CONTENT | _METADATA)
        elif isinstance(value, list):
            pending.extend(value)
        else:
            yield value


def _scalars(documents: Iterable[Any]) -> Iterator[str]:
    """The texts and numbers in documents."""
    pending = list(documents)
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
            # Keys are the same in every document, unless they are ids.
            pending.extend(key for key in value if _DIGITS.search(key))
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and (parsed := _parse_document(value)) is not None:
            pending.append(parsed)
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def _parse_document(text: str) -> Any:
    """The object or list that a text is JSON of, such as a tool call's arguments; None for any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
