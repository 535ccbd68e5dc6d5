"""Spans in, questions out: what a run did, how long each step took, what it cost."""

from .answers.bonds import Certainty
from .answers.critical import Segment, StepShare, critical_path, self_time, shares
from .answers.pareto import Difference, Few, dearest, differences
from .answers.tree import Node, span_tree
from .answers.waste import Around, Waste, Wasted, waste_of
from .answers.whatif import Finding, what_if
from .capture.recorder import LiveSpan, Recorder, Telemetry, open_telemetry
from .capture.redaction import Redact
from .capture.steps import Step, parallel, recording, step
from .otlp.incoming import BadOtlp, TooLarge, UnsupportedMedia
from .otlp.ingest import PriceOf, Received, answer, ingest, prices, read_otlp
from .semantics import dialects as names
from .semantics.span import Kind, Span, Usage
from .store.questions import (
    Latency,
    LatencyPoint,
    Order,
    Place,
    SpendPoint,
    SpendRow,
    StepLatency,
    TraceCost,
    Ungoverned,
    latency_over_time,
    missing_spans,
    place_of,
    spend_by,
    spend_over_time,
    step_latencies,
    top_traces,
    trace_costs,
    ungoverned_spend,
)
from .store.retention import (
    BATCH,
    Removed,
    count_old,
    free_bytes,
    old_payloads,
    old_spans,
    remove_payloads,
    remove_spans,
    remove_user,
    traces_of_user,
)
from .store.spans import StoreSpans, load_payload, load_trace
from .store.summaries import TraceSummary

__all__ = [
    "BATCH",
    "Around",
    "BadOtlp",
    "Certainty",
    "Difference",
    "Few",
    "Finding",
    "Kind",
    "Latency",
    "LatencyPoint",
    "LiveSpan",
    "Node",
    "Order",
    "Place",
    "PriceOf",
    "Received",
    "Recorder",
    "Redact",
    "Removed",
    "Segment",
    "Span",
    "SpendPoint",
    "SpendRow",
    "Step",
    "StepLatency",
    "StepShare",
    "StoreSpans",
    "Telemetry",
    "TooLarge",
    "TraceCost",
    "TraceSummary",
    "Ungoverned",
    "UnsupportedMedia",
    "Usage",
    "Waste",
    "Wasted",
    "answer",
    "count_old",
    "critical_path",
    "dearest",
    "differences",
    "free_bytes",
    "ingest",
    "latency_over_time",
    "load_payload",
    "load_trace",
    "missing_spans",
    "names",
    "old_payloads",
    "old_spans",
    "open_telemetry",
    "parallel",
    "place_of",
    "prices",
    "read_otlp",
    "recording",
    "remove_payloads",
    "remove_spans",
    "remove_user",
    "self_time",
    "shares",
    "span_tree",
    "spend_by",
    "spend_over_time",
    "step",
    "step_latencies",
    "top_traces",
    "trace_costs",
    "traces_of_user",
    "ungoverned_spend",
    "waste_of",
    "what_if",
]
