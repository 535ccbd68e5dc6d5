"""Does a run go to the model at all? Decided before it, by a calibrated confidence and a separate check of scope.

A score is a probability only after calibration: without its record, 0.7 says nothing, so a confidence cannot be made
without one. A confident classifier is often wrong on what it was never shown, hence `in_scope` beside the value.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from handrail.kernel.errors import BadInput

THRESHOLD = 0.7
"""Confidence from which a run goes to the model."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a score became a probability: on how many held-out cases, when, and how far off it is on average.

    `error` is the expected calibration error, 0 to 1 (Naeini et al., 2015).
    """

    method: str
    cases: int
    error: float
    date: dt.date

    def __post_init__(self) -> None:
        if self.cases < 1 or not 0 <= self.error <= 1:
            raise BadInput(f"calibration: {self.cases} cases with an error of {self.error}; give its measured record")


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """The probability (0 to 1) that the agent will get this request right, and whether it is of the agent's kind."""

    value: float
    calibration: Calibration
    in_scope: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise BadInput(f"confidence: {self.value} is no probability; calibrate the score to lie in 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Where a run goes, and why. The deterministic handler is asked first; where it has no answer, a person is."""

    to: Literal["model", "handler"]
    reason: Literal["confident", "low_confidence", "out_of_scope"]
    detail: str


def decide_route(found: Confidence, threshold: float) -> Decision:
    """To the model from `threshold` on and in scope; else to the handler."""
    if not found.in_scope:
        return Decision(to="handler", reason="out_of_scope", detail="the request is not of the agent's kind")
    if found.value < threshold:
        detail = f"confidence {found.value:.3f} is below {threshold:g}"
        return Decision(to="handler", reason="low_confidence", detail=detail)
    return Decision(to="model", reason="confident", detail=f"confidence {found.value:.3f}, from {threshold:g} on")
