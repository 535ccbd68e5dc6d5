"""Spans: recorded or received, normalised, stored, analysed and exported."""
