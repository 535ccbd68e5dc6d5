"""Finished spans sent to a collector over OTLP, without slowing runs down."""
