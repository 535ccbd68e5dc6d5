"""What an agent is evaluated by."""

from handrail.runs.agent import Trials as EvalSpec

__all__ = ["EvalSpec"]
