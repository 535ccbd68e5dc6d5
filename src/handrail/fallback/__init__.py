"""The way on when the happy path is not sure or not there: one stricter retry, and the route before the model."""

from .retry import MAX_RETRIES, MalformedTwice, OneRetry
from .route import THRESHOLD, Calibration, Confidence, Decision, decide_route

__all__ = [
    "MAX_RETRIES",
    "THRESHOLD",
    "Calibration",
    "Confidence",
    "Decision",
    "MalformedTwice",
    "OneRetry",
    "decide_route",
]
