"""The JSON API and the OTLP endpoint."""
