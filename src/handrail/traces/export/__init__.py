"""OpenTelemetry's protocol out: finished spans to a collector, slowing no run down."""
