"""The command line. Exit codes: 0 done, 1 the result is negative (a gate blocks, a run failed), 2 could not run."""

from .app import main

__all__ = ["main"]
