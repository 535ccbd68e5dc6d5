"""Spans, their sums and rollups in the store; what is asked of them, and what is removed."""
