"""Where a run goes before the model is asked."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import BadInput
from handrail.fallback.routing import THRESHOLD, Calibration, Confidence, decide_route

RECORD = Calibration(method="isotonic", cases=200, error=0.03, date=dt.date(2026, 11, 1))
PROBABILITIES = st.floats(0, 1)


@given(PROBABILITIES, PROBABILITIES)
def test_the_threshold(value: float, threshold: float) -> None:
    """In scope, a run goes to the model exactly from the threshold on."""
    decision = decide_route(Confidence(value=value, calibration=RECORD), threshold)
    assert (decision.to == "model") == (value >= threshold)


@given(PROBABILITIES, PROBABILITIES)
def test_scope_comes_first(value: float, threshold: float) -> None:
    """Out of scope no confidence is enough."""
    decision = decide_route(Confidence(value=value, calibration=RECORD, in_scope=False), threshold)
    assert (decision.to, decision.reason) == ("handler", "out_of_scope")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_score_is_no_probability(value: float) -> None:
    """A score outside 0 to 1 is refused."""
    with pytest.raises(BadInput, match="calibrate"):
        Confidence(value=value, calibration=RECORD)


@pytest.mark.parametrize("changed", [{"cases": 0}, {"error": -0.1}, {"error": 1.1}])
def test_a_record_that_is_none(changed: dict[str, Any]) -> None:
    """A calibration measured on nothing, or with an impossible error, is refused."""
    known = {"method": "isotonic", "cases": 200, "error": 0.03, "date": dt.date(2026, 11, 1)}
    with pytest.raises(BadInput, match="measured record"):
        Calibration(**{**known, **changed})


def test_the_default() -> None:
    """The default threshold is 0.7."""
    assert THRESHOLD == 0.7
