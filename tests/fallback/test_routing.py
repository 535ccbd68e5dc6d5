"""The routing decision before the model is called."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import BadInput
from handrail.fallback.routing import DEFAULT_THRESHOLD, Calibration, Confidence, decide_route

RECORD = Calibration(method="isotonic", cases=200, error=0.03, date=dt.date(2026, 11, 1))
PROBABILITIES = st.floats(0, 1)


@given(PROBABILITIES, PROBABILITIES)
def test_the_threshold(value: float, threshold: float) -> None:
    """In scope, a run goes to the model exactly if its confidence is at least the threshold."""
    decision = decide_route(Confidence(value=value, calibration=RECORD), threshold)
    assert (decision.to == "model") == (value >= threshold)


@given(PROBABILITIES, PROBABILITIES)
def test_scope_comes_first(value: float, threshold: float) -> None:
    """Out of scope, no confidence is high enough."""
    decision = decide_route(Confidence(value=value, calibration=RECORD, in_scope=False), threshold)
    assert (decision.to, decision.reason) == ("handler", "out_of_scope")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_not_a_probability(value: float) -> None:
    """A confidence outside 0 to 1 raises BadInput."""
    with pytest.raises(BadInput, match="calibrate"):
        Confidence(value=value, calibration=RECORD)


@pytest.mark.parametrize("overrides", [{"cases": 0}, {"error": -0.1}, {"error": 1.1}])
def test_invalid_calibrations(overrides: dict[str, Any]) -> None:
    """A calibration on no cases, or with an impossible error, raises BadInput."""
    valid = {"method": "isotonic", "cases": 200, "error": 0.03, "date": dt.date(2026, 11, 1)}
    with pytest.raises(BadInput, match="use at least 1 case and an error from 0 to 1"):
        Calibration(**{**valid, **overrides})


def test_the_default() -> None:
    """The default threshold is 0.7."""
    assert DEFAULT_THRESHOLD == 0.7
