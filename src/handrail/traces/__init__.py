"""Spans in, questions out: what a run did, how long each step took, what it cost."""

from . import reading as names
from .recorder import LiveSpan, Recorder
from .span import Kind, Span, Usage
from .store import StoreSpans, TraceSummary, list_traces, load_payload, load_trace
from .tree import Node, span_tree

__all__ = [
    "Kind",
    "LiveSpan",
    "Node",
    "Recorder",
    "Span",
    "StoreSpans",
    "TraceSummary",
    "Usage",
    "list_traces",
    "load_payload",
    "load_trace",
    "names",
    "span_tree",
]
