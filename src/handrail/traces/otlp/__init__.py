"""OpenTelemetry's protocol as other programs send it: read, and stored."""
