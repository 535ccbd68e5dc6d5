"""OTLP received from other programs: validated, decoded and stored."""
