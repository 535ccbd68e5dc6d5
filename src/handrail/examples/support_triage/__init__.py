"""Support triage for a web shop: the reference agent."""

from .agent import agent

__all__ = ["agent"]
