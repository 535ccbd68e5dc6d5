"""The slow CRM: an agent that takes 8.2 s, and the same one with its lookups in parallel, which takes 3.4 s."""

from .agent import agent, fast

__all__ = ["agent", "fast"]
