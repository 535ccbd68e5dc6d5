"""What a span was given and what it gave back, as the values in them: so that one can be looked for in the other."""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from handrail.kernel.serialization import as_json
from handrail.traces.payloads import OPAQUE

GIVEN = ("arguments", "input", "messages")
"""Under these names a payload keeps what went into a span; the model's messages are those that no span before has."""
GAVE = ("result", "output", "response", "documents", "outcome")

_WORD = re.compile(r"[^\W_]+")
_DIGITS = re.compile(r"\d{3,}")
# A message's frame says nothing; below its content, the same names may.
_FRAME = frozenset(
    {"finish_reason", "id", "kind", "name", "part_kind", "provider_name", "role", "timestamp", "tool_call_id"}
    | {"tool_kind", "tool_name", "type"}
)
_CONTENT = frozenset({"args", "arguments", "content", "result", "response", "text"})
_MESSAGES = frozenset({"messages", "response"})


@dataclass(frozen=True)
class Values:
    """Every value in some document, in lower case: whole, and the words and numbers in them.

    Texts of up to 3 characters and numbers of up to 2 digits are in `short`: two of them may be alike by chance.
    """

    whole: frozenset[str]
    words: frozenset[str]
    short: frozenset[str]

    @functools.cached_property
    def text(self) -> str:
        """All that is whole, a line each."""
        return "\n".join(sorted(self.whole))

    def shared(self, other: "Values") -> set[str]:
        """The values and words of either that are found in the other, also inside a longer one; none that are short."""
        found = set(self.words & other.words)
        found.update(value for value in self.whole if value in other.text)
        found.update(value for value in other.whole if value in self.text)
        return found

    def holds(self, value: str) -> bool:
        """Whether a value or word is found here."""
        return value in self.words or value in self.text


@dataclass(frozen=True)
class Said:
    """What went into a span and what came out; None where it was not recorded. `opaque`: not all that went in was."""

    given: Values | None
    gave: Values | None
    opaque: bool = False


UNRECORDED = Said(None, None)


def read_said(payload: Mapping[str, Any]) -> Said:
    """A payload, as it comes from the store or from a live span, as what was given and what came of it."""
    plain = json.loads(as_json(payload))
    return Said(_values(plain, GIVEN), _values(plain, GAVE), opaque=bool(plain.get(OPAQUE)))


def asked_for(payload: Mapping[str, Any]) -> frozenset[str]:
    """The ids of the tool calls in a model's response."""
    found: set[str] = set()
    waiting = [json.loads(as_json(payload.get("response", payload.get("output"))))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found.update(str(value[name]) for name in ("tool_call_id", "id") if value.get(name))
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return frozenset(found)


def _values(payload: Mapping[str, Any], names: tuple[str, ...]) -> Values | None:
    recorded = [name for name in names if name in payload]
    if not recorded:
        return None
    documents = (_contents(payload[name]) if name in _MESSAGES else [payload[name]] for name in recorded)
    scalars = {text.casefold() for text in _scalars(chain.from_iterable(documents))}
    words: set[str] = set()
    for text in scalars:
        words.update(word for word in _WORD.findall(text) if _tells(word))
        words.update(_DIGITS.findall(text))
    long = frozenset(text for text in scalars if _tells(text))
    return Values(long, frozenset(words), frozenset(scalars - long))


def _tells(text: str) -> bool:
    return len(text) > 3 or (len(text) == 3 and text.isdecimal())


def _contents(messages: Any) -> Iterator[Any]:
    """What messages say, without their frames."""
    waiting = [messages]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (each for name, each in value.items() if name in _CONTENT)
            waiting.extend(each for name, each in value.items() if name not in _CONTENT | _FRAME)
        elif isinstance(value, list):
            waiting.extend(value)
        else:
            yield value


def _scalars(documents: Iterable[Any]) -> Iterator[str]:
    """The texts and numbers in documents."""
    waiting = list(documents)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
            # Names are the same in every document, unless they are ids themselves.
            waiting.extend(name for name in value if _DIGITS.search(name))
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and (parsed := _document(value)) is not None:
            waiting.append(parsed)
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def _document(text: str) -> Any:
    """The object or list that a text is the JSON of, such as a tool call's arguments; None for any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
