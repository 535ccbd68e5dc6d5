"""Frozen cases as people write and review them: the format, the freeze, changes, lint, and other formats in and out."""
