"""Spans, trace summaries and rollups in the store, and the queries over them."""
