"""Converts finished spans of any dialect into the form that is stored. `semconv.py` has the names they use.

Nothing that was sent is lost: what has no field stays among the attributes, and content goes to the payload. An
attribute is dropped only if a field has the same value.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import StatusCode

from handrail.kernel.money import NanoUsd, usd

from . import semconv
from .attribute_values import (
    MAX_NAME_CHARS,
    as_attempt,
    as_count,
    as_duration_ns,
    as_list,
    as_name,
    as_nano_usd,
    as_time_ns,
    replace_unstorable,
    truncate,
)
from .model import Kind, RawSpan, Span, SpanEvent, Usage
from .payloads import extract_evaluations, extract_payload, limit_size, parse_json
from .token_usage import ReportedTokens, normalize_usage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

T = TypeVar("T")


def normalize_sdk_span(span: "ReadableSpan", payload: Mapping[str, Any] | None) -> Span:
    """The stored form of a span that Handrail recorded.

    Args:
        span: A span of OpenTelemetry's SDK that has ended.
        payload: The content that was recorded beside it.
    """
    context = span.get_span_context()
    assert context
    assert span.start_time
    assert span.end_time
    normalised = normalize_span(
        RawSpan(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
            name=span.name,
            start_ns=span.start_time,
            end_ns=span.end_time,
            attributes=dict(span.attributes or {}),
            events=[
                SpanEvent(name=event.name, time_ns=event.timestamp, attributes=dict(event.attributes or {}))
                for event in span.events
            ],
            failed=span.status.status_code is StatusCode.ERROR,
            status_message=span.status.description or "",
        )
    )
    return replace(normalised, payload={**(normalised.payload or {}), **payload}) if payload else normalised


def normalize_span(span: RawSpan) -> Span:
    """The stored form of a span in any dialect.

    Its cost is that of Handrail's own attribute, or zero: prices are looked up later, by `otlp/ingest.py`.
    """
    reader = _SpanReader(span)
    kind = reader.kind()
    usage, reported_cost = reader.spend() if kind == "model" else (Usage(), None)
    fields: dict[str, Any] = {
        "agent": reader.name("agent") or "",
        "user": reader.name("user") or "",
        "tenant": reader.name("tenant") or reader.tenant_from_metadata() or "",
        "run_id": reader.name("run") or "",
        "error_type": reader.error(),
        "provider": reader.name("provider"),
        "model": reader.model(),
        "cost": NanoUsd(reader.count("cost") or 0),
        "held": None if (held := reader.count("held")) is None else NanoUsd(held),
        "conversation_id": reader.name("conversation"),
        "first_token_ns": reader.first_token_ns(),
        "fingerprint": reader.name("fingerprint"),
        "attempt": reader.take("attempt", as_attempt)[0] or 1,
        "retry_of": reader.name("retry of"),
    }
    attributes, payload = reader.remainder(kind)
    return Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        kind=kind,
        name=replace_unstorable(truncate(span.name, MAX_NAME_CHARS)),
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        usage=usage,
        reported_cost=reported_cost,
        attributes=attributes,
        payload=payload or None,
        **fields,
    )


class _SpanReader:
    """Reads a span's fields from its attributes, and keeps track of the attributes that were not read.

    `_all` stays complete, so that an attribute may be read for two fields; what is left in `_unread` is stored.
    """

    def __init__(self, span: RawSpan) -> None:
        self._span = span
        self._unread = dict(span.attributes)
        for event in span.events:
            if event.name in semconv.DETAIL_EVENTS:
                self._unread = {**event.attributes, **self._unread}
        self._all = {**_json_entries(self._unread), **self._unread}

    def kind(self) -> Kind:
        """The span's kind: that of the first attribute that names one, else what the other attributes imply."""
        for name, kinds in semconv.KIND_VALUES.items():
            kind = kinds.get(str(self._unread.get(name)))
            if kind is not None:
                if self._unread[name] == semconv.DEFAULT_KIND_VALUES.get(name, {}).get(kind):
                    del self._unread[name]
                return kind
        if any(name in self._all for field in ("request model", "response model") for name in _names(field)):
            return "model"
        return "tool" if any(name in self._all for name in _names("tool")) else "step"

    def take(self, field: str, convert: Callable[[Any], T | None]) -> tuple[T | None, str | None]:
        """The first value that `convert` accepts, and its name; other names with an equal value count as read, too."""
        value, name = None, None
        for candidate in _names(field):
            if candidate not in self._all:
                continue
            converted = convert(self._all[candidate])
            if converted is None:
                continue
            if value is None:
                value, name = converted, candidate
            if converted == value:
                self._unread.pop(candidate, None)
        return value, name

    def name(self, field: str) -> str | None:
        """A field that is an identifier."""
        return self.take(field, as_name)[0]

    def count(self, field: str) -> int | None:
        """A field that is a whole number."""
        return self.take(field, as_count)[0]

    def model(self) -> str | None:
        """The model that responded; if another one was requested, that one stays among the attributes."""
        requested, responded = self.name("request model"), self.name("response model")
        if responded and requested and requested != responded:
            self._unread[semconv.REQUEST_MODEL] = requested
        return responded or requested

    def spend(self) -> tuple[Usage, NanoUsd | None]:
        """The tokens by OpenTelemetry's convention, and the cost as the sender reports it.

        A count that the convention changes also stays among the attributes as it was sent.
        """
        input_tokens, input_name = self.take("input", as_count)
        output_tokens, output_name = self.take("output", as_count)
        cache_read, cache_read_name = self.take("cache read", as_count)
        cache_write, cache_write_name = self.take("cache write", as_count)
        usage = normalize_usage(
            ReportedTokens(
                input=input_tokens or 0,
                output=output_tokens or 0,
                cache_read=cache_read or 0,
                cache_write=cache_write or 0,
                reasoning=self._peek("reasoning") or 0,
                total=self._peek("total"),
                cache_excluded=not semconv.CACHE_COUNTED_APART.isdisjoint({cache_read_name, cache_write_name}),
            )
        )
        self._keep_changed(input_name, input_tokens, usage.input)
        self._keep_changed(output_name, output_tokens, usage.output)
        cost, _ = self.take("reported cost", as_nano_usd)
        if cost is None:
            values = (self._unread.get(name) for name in semconv.COST_PARTS)
            parts = [part for value in values if (part := as_nano_usd(value)) is not None]
            cost = NanoUsd(sum(parts)) if parts else None
        return usage, cost

    def _peek(self, field: str) -> int | None:
        """A whole number that stays among the attributes."""
        values = (as_count(self._all.get(name)) for name in _names(field))
        return next((value for value in values if value is not None), None)

    def _keep_changed(self, name: str | None, sent: int | None, normalised: int) -> None:
        if name is not None and name in self._span.attributes and sent != normalised:
            self._unread[name] = sent

    def tenant_from_metadata(self) -> str | None:
        """OpenInference has no attribute for a tenant, but its `metadata` is a JSON mapping of the program's own."""
        metadata = parse_json(self._unread.get("metadata"))
        return as_name(metadata.get(semconv.TENANT)) if isinstance(metadata, Mapping) else None

    def error(self) -> str | None:
        """The named error, else the type of the first exception event, else "error" if the span failed."""
        error_type = self.name("error")
        if error_type:
            return error_type
        exceptions = (event.attributes for event in self._span.events if event.name == "exception")
        exception_type = next((as_name(attributes.get("exception.type")) for attributes in exceptions), None)
        failed = self._span.failed or self._unread.get("langfuse.observation.level") == "ERROR"
        return (exception_type or "error") if failed else None

    def first_token_ns(self) -> int | None:
        """The time from the span's start to the first token.

        It is read from a duration, else from a timestamp, else from the first event that marks streamed output.
        """
        duration_ns, _ = self.take("first token", as_duration_ns)
        if duration_ns is not None:
            return duration_ns
        event_times = [event.time_ns for event in self._span.events if event.name in semconv.FIRST_TOKEN_EVENTS]
        time_ns, _ = self.take("first token at", as_time_ns)
        first_ns = time_ns if time_ns is not None else min(event_times, default=None)
        return None if first_ns is None or first_ns < self._span.start_ns else first_ns - self._span.start_ns

    def remainder(self, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
        """The attributes that have no field, each under one name, and the payload."""
        for field, canonical in semconv.CANONICAL_NAMES.items():
            value, _ = self.take(field, lambda value: value)
            if value is not None:
                self._unread[canonical] = value
        finish_reasons, _ = self.take("finish", as_list)
        payload = extract_payload(kind, self._unread, self._span.events)
        if self._span.status_message:
            payload["error"] = limit_size(self._span.status_message)
        added = {
            semconv.FINISH: finish_reasons,
            semconv.EVALUATIONS: extract_evaluations(self._span.events, payload),
            semconv.LINKS: list(self._span.links),
        }
        return {**self._unread, **{name: value for name, value in added.items() if value}}, payload


def _names(field: str) -> tuple[str, ...]:
    return semconv.FIELD_ATTRIBUTES[field]


def _json_entries(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of attributes that hold a JSON mapping, each under the attribute's name, a dot and its key."""
    entries: dict[str, Any] = {}
    for name in semconv.JSON_ATTRIBUTES:
        details = parse_json(attributes.get(name))
        if isinstance(details, Mapping):
            entries.update({f"{name}.{key}": value for key, value in details.items()})
            if name == semconv.COST_DETAILS and "total" not in details:
                costs = [cost for value in details.values() if (cost := as_nano_usd(value)) is not None]
                entries[f"{name}.total"] = usd(NanoUsd(sum(costs))) if costs else None
    return entries
