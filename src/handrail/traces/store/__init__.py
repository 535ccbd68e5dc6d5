"""Spans, trace summaries and rollups in the database, and the queries over them."""
