"""The limits and checks for spans from other programs, in any encoding."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handrail.kernel.errors import BadInput
from handrail.traces import semconv
from handrail.traces.model import RawSpan

MAX_REQUEST_BYTES = 20 * 1024 * 1024
"""The size of a request's body after decompression."""
MAX_SPAN_BYTES = 4 * 1024 * 1024
MAX_REQUEST_SPANS = 50_000
"""Spans in one request: a small body can hold many empty ones, which take more memory than bytes."""
MAX_CLOCK_SKEW_NS = 1_000_000_000
"""A span that ends up to this long before it starts is due to a clock that was set back: its duration becomes zero."""
_LATEST_NS = 2**63 - 1


class InvalidOtlp(BadInput):
    """The body as a whole is not OTLP. HTTP: 400."""

    code = "bad_otlp"


class OtlpTooLarge(BadInput):
    """The request exceeds a limit on its size; send smaller batches. HTTP: 413."""

    code = "too_large"


class UnsupportedOtlpMedia(BadInput):
    """The body's content type is neither protobuf nor JSON, or its content encoding is not gzip. HTTP: 415."""

    code = "unsupported_media"


class RejectedSpan(Exception):
    """Why one span is rejected; the other spans of its batch are kept."""


def too_many_spans() -> OtlpTooLarge:
    """The error for a request of more than MAX_REQUEST_SPANS spans."""
    return OtlpTooLarge(f"OTLP: the request has more than {MAX_REQUEST_SPANS:,} spans; send smaller batches")


def validate_span(span: RawSpan) -> RawSpan:
    """The span, with a small clock error corrected.

    Raises:
        RejectedSpan: A time is missing or out of range, or the span ends more than a second before it starts.
    """
    for name, time_ns in (("start", span.start_ns), ("end", span.end_ns)):
        if not 0 < time_ns <= _LATEST_NS:
            raise RejectedSpan(f"the {name} time is missing or out of range")
    if span.end_ns < span.start_ns - MAX_CLOCK_SKEW_NS:
        raise RejectedSpan("the span ends before it starts")
    return span if span.end_ns >= span.start_ns else replace(span, end_ns=span.start_ns)


def shared_attributes(resource: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """The attributes that every span of an instrumentation scope gets from the scope and its resource."""
    attributes = {name: value for name, value in resource.items() if name in semconv.RESOURCE_ATTRIBUTES}
    return {**attributes, semconv.SCOPE: scope} if scope else attributes


def finite_or_text(number: float) -> float | str:
    """The number; as text if JSON cannot represent it (NaN and the infinities)."""
    return number if math.isfinite(number) else str(number)
