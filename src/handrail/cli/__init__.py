"""The terminal's door. Exit codes: 0 done, 1 a verdict is no, 2 could not run."""

from .app import main

__all__ = ["main"]
