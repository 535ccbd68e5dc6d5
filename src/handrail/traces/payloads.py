"""The payload of a span: content taken from its attributes and events, and arranged in the same way for every dialect.

A model request has `messages` and `response`, a tool call `arguments` and `result`, anything else `input` and `output`.
It may also have `instructions`, `tools`, `documents`, `exception`, `error`, `events`, and `other` for any other
content.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import semconv
from .model import Kind, SpanEvent

OPAQUE_ARGUMENTS = "opaque"
"""The payload key for the names of arguments that were objects, so that their contents were not recorded."""
MAX_ATTRIBUTE_CHARS = 4_096
"""A longer attribute counts as content, regardless of its name."""
MAX_ATTRIBUTES = 200
"""A span keeps this many attributes as such; the rest are kept with its content."""
MAX_TEXT_CHARS = 200_000
"""A longer text is cut, with a note of its length."""
MAX_DEPTH = 32
"""Levels of nested lists and mappings; anything deeper is replaced by a mark."""


def extract_payload(kind: Kind, attributes: dict[str, Any], events: Iterable[SpanEvent]) -> dict[str, Any]:
    """Takes a span's content out of its attributes and events.

    Args:
        kind: The span's kind, which decides what the content is called.
        attributes: The attributes that have no field; those that are content are removed from it.
        events: The span's events.

    Returns:
        The payload; empty if the span has no content.
    """
    content = _take_content(attributes)
    payload: dict[str, Any] = {}
    _add_events(content, payload, events)
    keys = semconv.PAYLOAD_KEYS.get(kind, {"in": "input", "out": "output"})
    for slot, names in semconv.PAYLOAD_ATTRIBUTES.items():
        first = next((name for name in names if name in content), None)
        if first is not None:
            payload[keys.get(slot, slot)] = content.pop(first)
    if content:
        payload["other"] = content
    return payload


def limit_size(value: Any, depth: int = 0) -> Any:
    """The value with long texts cut, and everything below MAX_DEPTH levels replaced by a mark."""
    if isinstance(value, str):
        if len(value) <= MAX_TEXT_CHARS:
            return value
        return f"{value[:MAX_TEXT_CHARS]} [cut: it had {len(value):,} characters]"
    if isinstance(value, Mapping):
        if depth >= MAX_DEPTH:
            return "{…}"
        return {name: limit_size(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return "[…]" if depth >= MAX_DEPTH else [limit_size(item, depth + 1) for item in value]
    return value


def parse_json(value: Any) -> Any:
    """The list or mapping that a text is JSON of; any other value as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _take_content(attributes: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    lists: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(list(attributes)):
        base = _flattened_list(name)
        if base is not None:
            lists.setdefault(base, {})[name[len(base) + 1 :]] = attributes.pop(name)
        elif (
            name in semconv.CONTENT_ATTRIBUTES
            or number >= MAX_ATTRIBUTES
            or len(name) > MAX_ATTRIBUTE_CHARS
            or _is_long(attributes[name])
        ):
            content[name] = limit_size(parse_json(attributes.pop(name)))
    for base, entries in lists.items():
        name = base if base not in content else f"{base}.*"
        content[name] = limit_size(unflatten(entries))
    return content


_LIST_PREFIXES = tuple(f"{base}." for base in semconv.FLATTENED_LISTS)


def _flattened_list(name: str) -> str | None:
    """The list that an attribute is an entry of: `llm.tools` for `llm.tools.0.name`, None for `gen_ai.prompt.name`."""
    if not name.startswith(_LIST_PREFIXES):
        return None
    prefix = next(prefix for prefix in _LIST_PREFIXES if name.startswith(prefix))
    index = name[len(prefix) :].partition(".")[0]
    return prefix[:-1] if index.isdecimal() and index.isascii() else None


def _is_long(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > MAX_ATTRIBUTE_CHARS
    return isinstance(value, list | tuple | dict) and len(str(value)) > MAX_ATTRIBUTE_CHARS


def unflatten(entries: Mapping[str, Any]) -> Any:
    """Nested lists and mappings from dotted names: `{"0.role": "user"}` is `[{"role": "user"}]`.

    OpenInference wraps the keys of an entry in its kind, as in `0.message.role`; the wrapper is removed if it is the
    only key.
    """
    tree: dict[str, Any] = {}
    for path, value in entries.items():
        node = tree
        *parents, last = path.split(".", MAX_DEPTH)
        for key in parents:
            inner = node.get(key)
            if not isinstance(inner, dict):
                # A value was sent for this name and for names below it: it is kept under the empty name.
                inner = node[key] = {} if inner is None else {"": inner}
            node = inner
        if isinstance(node.get(last), dict):
            node[last][""] = value
        else:
            node[last] = value
    return _with_lists(tree)


_WRAPPERS = frozenset(
    {"message", "tool", "tool_call", "document", "embedding", "evaluation", "message_content", "choice"}
)


def _with_lists(node: Any) -> Any:
    """The tree with mappings whose keys are all numbers turned into lists."""
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and (only := next(iter(node))) in _WRAPPERS and isinstance(node[only], dict):
        return _with_lists(node[only])
    if all(key.isdecimal() and key.isascii() for key in node):
        return [_with_lists(node[key]) for key in sorted(node, key=lambda key: (len(key), key))]
    return {key: _with_lists(item) for key, item in node.items()}


def _add_events(content: dict[str, Any], payload: dict[str, Any], events: Iterable[SpanEvent]) -> None:
    messages: dict[str, list[Any]] = {}
    other_events: list[Any] = []
    for event in events:
        body = {name: limit_size(parse_json(value)) for name, value in event.attributes.items()}
        if event.name in semconv.MESSAGE_EVENTS:
            role = event.name.removeprefix("gen_ai.").removesuffix(".message")
            messages.setdefault(semconv.MESSAGE_EVENTS[event.name], []).append({"role": role, **body})
        elif event.name == "exception" and "exception" not in payload:
            payload["exception"] = {name.removeprefix("exception."): value for name, value in body.items()}
        elif event.name not in semconv.DETAIL_EVENTS:
            other_events.append({"name": event.name, "time_ns": event.time_ns, "attributes": body})
    for slot, slot_messages in messages.items():
        content.setdefault(semconv.PAYLOAD_ATTRIBUTES[slot][0], slot_messages)
    if other_events:
        payload["events"] = other_events


def extract_evaluations(events: Sequence[SpanEvent], payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The name, score and label of each evaluation of the span.

    OpenTelemetry sends them as events, OpenInference as a list. Their explanations stay in the payload.
    """
    evaluations = [
        {key: event.attributes[name] for name, key in semconv.EVALUATION_FIELDS.items() if name in event.attributes}
        for event in events
        if event.name == semconv.EVALUATION_EVENT
    ]
    openinference = payload.get("other", {}).get("evaluations")
    if isinstance(openinference, list):
        evaluations.extend(evaluation for evaluation in openinference if isinstance(evaluation, dict))
    keys = ("name", "score", "label")
    return [{key: evaluation[key] for key in keys if key in evaluation} for evaluation in evaluations]
