"""Reads a finished span, whoever recorded it, into its stored form, by the tables in `dialects.py`.

Nothing that was sent is lost: what is not in a field is among the attributes, and what was said is in the payload. An
attribute is dropped where a field says the very same.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import StatusCode

from handrail.kernel.clock import unix_ns
from handrail.kernel.money import NanoUsd, nano_usd, usd

from . import semconv
from .model import Kind, Span, Usage
from .payloads import Event, bounded, cut, evaluations, parsed, take_content
from .token_usage import Counts, usage_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

T = TypeVar("T")

LONGEST_NAME = 200
"""Characters of a field that people and programs look things up by."""
_MOST = 10**15
"""More tokens or nano-dollars than this in one span are a fault of its sender."""
_MOST_USD = Decimal(1_000_000)
_MOST_SECONDS = 1_000_000
_MOST_ATTEMPTS = 1_000_000
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A span that has ended, as its program told it. Ids in lower-case hex, times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    events: Sequence[Event] = ()
    links: Sequence[Mapping[str, Any]] = ()
    failed: bool = False
    said: str = ""
    """What the span's status says of its failure."""


def read_span(span: "ReadableSpan", payload: Mapping[str, Any] | None) -> Span:
    """The stored form of one of our own spans, which has ended; `payload` is what was said in it."""
    context = span.get_span_context()
    assert context
    assert span.start_time
    assert span.end_time
    read = read_finished(
        Finished(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
            name=span.name,
            start_ns=span.start_time,
            end_ns=span.end_time,
            attributes=dict(span.attributes or {}),
            events=[
                Event(name=each.name, time_ns=each.timestamp, attributes=dict(each.attributes or {}))
                for each in span.events
            ],
            failed=span.status.status_code is StatusCode.ERROR,
            said=span.status.description or "",
        )
    )
    return replace(read, payload={**(read.payload or {}), **payload}) if payload else read


def read_finished(span: Finished) -> Span:
    """The stored form of `span`, in any dialect; what it costs is what it says, or nothing."""
    found = _Found(span)
    kind = found.kind()
    usage, reported = found.spent() if kind == "model" else (Usage(), None)
    fields: dict[str, Any] = {
        "agent": found.text("agent") or "",
        "user": found.text("user") or "",
        "tenant": found.text("tenant") or found.tenant_of_metadata() or "",
        "run_id": found.text("run") or "",
        "error_type": found.error(),
        "provider": found.text("provider"),
        "model": found.model(),
        "cost": NanoUsd(found.whole("cost") or 0),
        "held": None if (held := found.whole("held")) is None else NanoUsd(held),
        "conversation_id": found.text("conversation"),
        "first_token_ns": found.first_token_ns(),
        "fingerprint": found.text("fingerprint"),
        "attempt": found.take("attempt", _attempt)[0] or 1,
        "retry_of": found.text("retry of"),
    }
    attributes, payload = found.rest(kind)
    return Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        kind=kind,
        name=_storable(cut(span.name, LONGEST_NAME)),
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        usage=usage,
        reported_cost=reported,
        attributes=attributes,
        payload=payload or None,
        **fields,
    )


class _Found:
    """A span's attributes while they are read: `left` are those that no field says yet."""

    def __init__(self, span: Finished) -> None:
        self._span = span
        self.left = dict(span.attributes)
        for event in span.events:
            if event.name in semconv.DETAIL_EVENTS:
                self.left = {**event.attributes, **self.left}
        self._seen = {**_details(self.left), **self.left}

    def kind(self) -> Kind:
        """By the first attribute that names a known kind; without one, by what else is there."""
        for name, kinds in semconv.KINDS.items():
            kind = kinds.get(str(self.left.get(name)))
            if kind is not None:
                if self.left[name] == semconv.PLAINEST.get(name, {}).get(kind):
                    del self.left[name]
                return kind
        if any(name in self._seen for name in (*semconv.NAMES["request model"], *semconv.NAMES["response model"])):
            return "model"
        return "tool" if any(name in self._seen for name in semconv.NAMES["tool"]) else "step"

    def take(self, what: str, read: Callable[[Any], T | None]) -> tuple[T | None, str | None]:
        """The first value that `read` accepts and the name it stood under; every name that says the same is done."""
        value, under = None, None
        for name in semconv.NAMES[what]:
            if name not in self._seen:
                continue
            each = read(self._seen[name])
            if each is None:
                continue
            if value is None:
                value, under = each, name
            if each == value:
                self.left.pop(name, None)
        return value, under

    def text(self, what: str) -> str | None:
        return self.take(what, _text)[0]

    def whole(self, what: str) -> int | None:
        return self.take(what, _whole)[0]

    def model(self) -> str | None:
        """The one that answered; the one that was asked is kept where it is another."""
        asked, answered = self.text("request model"), self.text("response model")
        if answered and asked and asked != answered:
            self.left[semconv.REQUEST_MODEL] = asked
        return answered or asked

    def spent(self) -> tuple[Usage, NanoUsd | None]:
        """Tokens by the inclusive rule, and the cost as reported; a count that the rule changes is kept as it came."""
        given, given_as = self.take("input", _whole)
        out, out_as = self.take("output", _whole)
        read, read_as = self.take("cache read", _whole)
        written, written_as = self.take("cache write", _whole)
        counts = Counts(
            input=given or 0,
            output=out or 0,
            cache_read=read or 0,
            cache_write=written or 0,
            reasoning=self._look("reasoning") or 0,
            total=self._look("total"),
            apart=not semconv.WITHOUT_CACHE.isdisjoint({read_as, written_as}),
        )
        usage = usage_of(counts)
        self._keep_raw((given_as, given, usage.input), (out_as, out, usage.output))
        reported, _ = self.take("reported cost", _dollars)
        if reported is None:
            parts = [cost for name in semconv.COST_PARTS if (cost := _dollars(self.left.get(name))) is not None]
            reported = NanoUsd(sum(parts)) if parts else None
        return usage, reported

    def _look(self, what: str) -> int | None:
        return next((n for name in semconv.NAMES[what] if (n := _whole(self._seen.get(name))) is not None), None)

    def _keep_raw(self, *counts: tuple[str | None, int | None, int]) -> None:
        for name, raw, normalised in counts:
            if name is not None and name in self._span.attributes and raw != normalised:
                self.left[name] = raw

    def tenant_of_metadata(self) -> str | None:
        """OpenInference has no name for a tenant; its `metadata` is JSON of the program's own."""
        metadata = parsed(self.left.get("metadata"))
        return _text(metadata.get(semconv.TENANT)) if isinstance(metadata, Mapping) else None

    def error(self) -> str | None:
        named = self.text("error")
        if named:
            return named
        thrown = next(
            (_text(e.attributes.get("exception.type")) for e in self._span.events if e.name == "exception"), None
        )
        failed = self._span.failed or self.left.get("langfuse.observation.level") == "ERROR"
        return (thrown or "error") if failed else None

    def first_token_ns(self) -> int | None:
        """From the span's start; by what it says, else by the first event that marks a piece of an answer."""
        seconds, _ = self.take("first token", _seconds)
        if seconds is not None:
            return seconds
        moments = [e.time_ns for e in self._span.events if e.name in semconv.FIRST_TOKEN_EVENTS]
        moment, _ = self.take("first token at", _moment)
        first = moment if moment is not None else min(moments, default=None)
        return None if first is None or first < self._span.start_ns else first - self._span.start_ns

    def rest(self, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
        """The attributes that no field says, under one name each, and the payload."""
        for what, name in semconv.RENAMED.items():
            value, _ = self.take(what, _any)
            if value is not None:
                self.left[name] = value
        finish, _ = self.take("finish", _list)
        payload = take_content(kind, self.left, self._span.events)
        if self._span.said:
            payload["error"] = bounded(self._span.said)
        kept = {
            semconv.FINISH: finish,
            semconv.EVALUATIONS: evaluations(self._span.events, payload),
            semconv.LINKS: list(self._span.links),
        }
        return {**self.left, **{name: value for name, value in kept.items() if value}}, payload


def _details(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the attributes that are JSON mappings, each under a name of its own."""
    found: dict[str, Any] = {}
    for name in semconv.DETAILS:
        details = parsed(attributes.get(name))
        if isinstance(details, Mapping):
            found.update({f"{name}.{key}": value for key, value in details.items()})
            if name == semconv.COST_DETAILS and "total" not in details:
                costs = [cost for value in details.values() if (cost := _dollars(value)) is not None]
                found[f"{name}.total"] = usd(NanoUsd(sum(costs))) if costs else None
    return found


def _any(value: Any) -> Any:
    return value


def _list(value: Any) -> list[Any] | None:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return _storable(cut(value, LONGEST_NAME)) or None
    return str(value) if isinstance(value, int | float) else None


def _storable(text: str) -> str:
    """Postgres takes no null character in a text, and neither store takes half of a surrogate pair."""
    return _UNSTORABLE.sub("\ufffd", text)


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None


def _attempt(value: Any) -> int | None:
    number = _whole(value)
    return number if number is not None and 1 <= number <= _MOST_ATTEMPTS else None


def _dollars(value: Any) -> NanoUsd | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return nano_usd(amount) if amount.is_finite() and 0 <= amount <= _MOST_USD else None


def _seconds(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_SECONDS:
        return None
    return round(value * 1e9)


def _moment(value: Any) -> int | None:
    try:
        moment = datetime.fromisoformat(str(value).strip('"'))
    except ValueError:
        return None
    return unix_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
