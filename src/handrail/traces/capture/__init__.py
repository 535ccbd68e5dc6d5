"""Spans of a running program: recorded, redacted, given steps by hand."""
