"""What a span that arrives from another program has to be, whatever its encoding."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handrail.kernel.errors import BadInput
from handrail.traces import semconv
from handrail.traces.normalize import Finished

MOST_BYTES = 20 * 1024 * 1024
"""Of one request, unpacked."""
MOST_SPAN_BYTES = 4 * 1024 * 1024
MOST_SPANS = 50_000
"""Of one request; what is smaller in bytes than in memory is refused before it is unfolded."""
SKEW_NS = 1_000_000_000
"""A span that ends at most this long before it began is one of a clock that was set, and took no time."""
_LATEST_NS = 2**63 - 1


class BadOtlp(BadInput):
    """The body is not OTLP, as a whole. HTTP: 400."""

    code = "bad_otlp"


class TooLarge(BadInput):
    """More than one request may carry; send less at a time. HTTP: 413."""

    code = "too_large"


class UnsupportedMedia(BadInput):
    """Neither protobuf nor JSON, or packed in a way that is not read. HTTP: 415."""

    code = "unsupported_media"


class Malformed(Exception):
    """One span is no span; says why. The others of its batch are kept."""


def too_many() -> TooLarge:
    return TooLarge(f"OTLP: more than {MOST_SPANS:,} spans in one request; send smaller batches")


def checked(span: Finished) -> Finished:
    """`span`, its clock's small faults mended. Raises Malformed for times that are none."""
    for which, moment in (("start", span.start_ns), ("end", span.end_ns)):
        if not 0 < moment <= _LATEST_NS:
            raise Malformed(f"{which} time is missing or out of range")
    if span.end_ns < span.start_ns - SKEW_NS:
        raise Malformed("it ends before it begins")
    return span if span.end_ns >= span.start_ns else replace(span, end_ns=span.start_ns)


def described(resource: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """What every span of a program gets from the program's own description."""
    found = {name: value for name, value in resource.items() if name in semconv.RESOURCE}
    return {**found, semconv.SCOPE: scope} if scope else found


def finite(number: float) -> float | str:
    """JSON has no number that is none."""
    return number if math.isfinite(number) else str(number)
