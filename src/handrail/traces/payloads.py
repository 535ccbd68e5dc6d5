"""What people and models said in a span: taken from among its attributes and events, and put in its place.

The payload's places are `messages` and `response` of a model request, `arguments` and `result` of a tool, `input` and
`output` of anything else; beside them `instructions`, `tools`, `documents`, `exception`, `error`, `events`, and `other`
for what has no place.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import semconv
from .model import Kind

OPAQUE = "opaque"
"""In a payload: the names of arguments that were objects, whose contents it cannot show."""
LONG = 4_096
"""Characters from which on an attribute counts as content, whatever its name."""
MANY = 200
"""Attributes that a span keeps as such; the rest of them lie with its content."""
LONGEST = 200_000
"""Characters of one text; what is longer is cut, and says so."""
DEEPEST = 32
"""Levels of lists and mappings in each other; what is deeper is shown as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at one moment of a span; nanoseconds since 1970."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


def cut(text: str, longest: int) -> str:
    """`text`, or as much of it as fits and a mark that the rest is gone."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def take_content(kind: Kind, left: dict[str, Any], events: Iterable[Event]) -> dict[str, Any]:
    """The payload of a span; what it is made of is removed from `left`, the attributes that have no field."""
    found = _spoken(left)
    payload: dict[str, Any] = {}
    _add_events(found, payload, events)
    places = semconv.PLACES.get(kind, {"in": "input", "out": "output"})
    for slot, spellings in semconv.SAID.items():
        first = next((name for name in spellings if name in found), None)
        if first is not None:
            payload[places.get(slot, slot)] = found.pop(first)
    if found:
        payload["other"] = found
    return payload


def bounded(value: Any, depth: int = 0) -> Any:
    """`value` with long texts cut and nothing nested deeper than the store's readers can follow."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[:LONGEST]} [cut: it had {len(value):,} characters]"
    if isinstance(value, Mapping):
        if depth >= DEEPEST:
            return "{…}"
        return {name: bounded(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return "[…]" if depth >= DEEPEST else [bounded(each, depth + 1) for each in value]
    return value


def parsed(value: Any) -> Any:
    """A text that is a JSON list or mapping as what it says; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _spoken(left: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    spread: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(list(left)):
        base = _list_of(name)
        if base is not None:
            spread.setdefault(base, {})[name[len(base) + 1 :]] = left.pop(name)
        elif name in semconv.CONTENT or number >= MANY or len(name) > LONG or _is_long(left[name]):
            found[name] = bounded(parsed(left.pop(name)))
    for base, entries in spread.items():
        name = base if base not in found else f"{base}.*"
        found[name] = bounded(gathered(entries))
    return found


_STARTS = tuple(f"{base}." for base in semconv.LISTS)


def _list_of(name: str) -> str | None:
    """The list that `name` is spread from: `llm.tools` for `llm.tools.0.name`, none for `gen_ai.prompt.name`."""
    if not name.startswith(_STARTS):
        return None
    base = next(start for start in _STARTS if name.startswith(start))
    first = name[len(base) :].partition(".")[0]
    return base[:-1] if first.isdecimal() and first.isascii() else None


def _is_long(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > LONG
    return isinstance(value, list | tuple | dict) and len(str(value)) > LONG


def gathered(entries: Mapping[str, Any]) -> Any:
    """Mappings and lists from names with dots: `{"0.role": "user"}` is `[{"role": "user"}]`.

    OpenInference wraps an entry's keys in its kind, as in `0.message.role`; a wrapper with nothing beside it goes.
    """
    tree: dict[str, Any] = {}
    for path, value in entries.items():
        node = tree
        *steps, last = path.split(".", DEEPEST)
        for step in steps:
            inner = node.get(step)
            if not isinstance(inner, dict):
                inner = node[step] = {} if inner is None else {"": inner}
            node = inner
        if isinstance(node.get(last), dict):
            node[last][""] = value
        else:
            node[last] = value
    return _listed(tree)


_WRAPPERS = frozenset(
    {"message", "tool", "tool_call", "document", "embedding", "evaluation", "message_content", "choice"}
)


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and (only := next(iter(node))) in _WRAPPERS and isinstance(node[only], dict):
        return _listed(node[only])
    if all(key.isdecimal() and key.isascii() for key in node):
        return [_listed(node[key]) for key in sorted(node, key=lambda key: (len(key), key))]
    return {key: _listed(each) for key, each in node.items()}


def _add_events(found: dict[str, Any], payload: dict[str, Any], events: Iterable[Event]) -> None:
    messages: dict[str, list[Any]] = {}
    rest: list[Any] = []
    for event in events:
        body = {name: bounded(parsed(value)) for name, value in event.attributes.items()}
        if event.name in semconv.MESSAGE_EVENTS:
            role = event.name.removeprefix("gen_ai.").removesuffix(".message")
            messages.setdefault(semconv.MESSAGE_EVENTS[event.name], []).append({"role": role, **body})
        elif event.name == "exception" and "exception" not in payload:
            payload["exception"] = {name.removeprefix("exception."): value for name, value in body.items()}
        elif event.name not in semconv.DETAIL_EVENTS:
            rest.append({"name": event.name, "time_ns": event.time_ns, "attributes": body})
    for slot, listed in messages.items():
        found.setdefault(semconv.SAID[slot][0], listed)
    if rest:
        payload["events"] = rest


def evaluations(events: Sequence[Event], payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Verdicts on the span, as events (OpenTelemetry) or as a list (OpenInference): name, score, label.

    What they say in words stays in the payload.
    """
    told = [
        {short: event.attributes[name] for name, short in semconv.EVALUATION.items() if name in event.attributes}
        for event in events
        if event.name == semconv.EVALUATION_EVENT
    ]
    listed = payload.get("other", {}).get("evaluations")
    found = [*told, *(each for each in listed if isinstance(each, dict))] if isinstance(listed, list) else told
    return [{key: each[key] for key in ("name", "score", "label") if key in each} for each in found]
