"""Spans of a running program: recorded, redacted, and added by hand with `step`."""
