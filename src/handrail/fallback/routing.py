"""Decides before any model call whether a run goes to the model, by a calibrated confidence and a check of scope.

A score is a probability only after calibration: without a record of how it was calibrated, 0.7 means nothing, so a
`Confidence` cannot be made without one. A classifier is often confident and wrong about inputs unlike its training
data, hence `in_scope` in addition to the value.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from handrail.kernel.errors import BadInput

DEFAULT_THRESHOLD = 0.7
"""The lowest confidence at which a run goes to the model."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a score was calibrated to be a probability.

    Raises:
        BadInput: There are no cases, or the error is not between 0 and 1.
    """

    method: str
    """Such as `isotonic` or `platt`."""
    cases: int
    """The held-out cases that it was measured on."""
    error: float
    """The expected calibration error, 0 to 1 (Naeini et al., 2015)."""
    date: dt.date
    """When it was measured."""

    def __post_init__(self) -> None:
        if self.cases < 1 or not 0 <= self.error <= 1:
            raise BadInput(
                f"calibration: {self.cases} cases, error {self.error}; use at least 1 case and an error from 0 to 1"
            )


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How likely the agent is to get a request right.

    Raises:
        BadInput: The value is not a probability.
    """

    value: float
    """The probability, 0 to 1."""
    calibration: Calibration
    """How the probability was calibrated."""
    in_scope: bool = True
    """Whether the request is one that the agent was made for."""

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise BadInput(f"confidence: {self.value} is not a probability; calibrate the score to a value from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class RouteDecision:
    """Where a run goes, and why. If the handler has no answer, the run is escalated to a person."""

    to: Literal["model", "handler"]
    reason: Literal["confident", "low_confidence", "out_of_scope"]
    detail: str


def decide_route(confidence: Confidence, threshold: float) -> RouteDecision:
    """Routes a request to the model if it is in scope and the confidence at least `threshold`; else to the handler."""
    if not confidence.in_scope:
        return RouteDecision(to="handler", reason="out_of_scope", detail="the request is outside the agent's scope")
    if confidence.value < threshold:
        detail = f"confidence {confidence.value:.3f} is below {threshold:g}"
        return RouteDecision(to="handler", reason="low_confidence", detail=detail)
    return RouteDecision(
        to="model", reason="confident", detail=f"confidence {confidence.value:.3f} is at least {threshold:g}"
    )
