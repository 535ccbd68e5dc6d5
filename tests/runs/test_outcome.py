"""The outcomes, the path that each counts as, and how they are serialized."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import Answered, AwaitingApproval, Escalated, Facts, Failed, Fault, FellBack, Outcome, Refused
from handrail.ceilings.decision import Refusal
from handrail.kernel.serialization import as_json
from handrail.runs.completion import _outcome_fields
from handrail.runs.outcome import PATHS
from tests.runs.scripts import Count

FACTS = Facts(run_id="run_1", trace_id="t", duration=timedelta(seconds=1))
FAULT = Fault(code="model_timeout", detail="too slow")
REFUSAL = Refusal("user", "usd", 10, 4, 3, 5, 3, datetime(2026, 1, 2, tzinfo=UTC))
COMMON: dict[str, Any] = {"message": "m", "facts": FACTS}
OUTCOMES: list[tuple[Outcome[str], str | None]] = [
    (Answered(output="a", **COMMON), "happy"),
    (Answered(output="a", retried=True, **COMMON), "fallback"),
    (FellBack(output="a", fault=FAULT, **COMMON), "fallback"),
    (Escalated(reason="requested_a_person", **COMMON), "human"),
    (Refused(refusal=REFUSAL, **COMMON), "refused"),
    (Failed(fault=FAULT, **COMMON), "failed"),
    (AwaitingApproval(approvals=(), **COMMON), None),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("outcome", "path"), OUTCOMES, ids=lambda value: getattr(value, "type", str(value)))
def test_path(outcome: Outcome[str], path: str | None) -> None:
    """Each outcome has the path that the documentation's table gives it."""
    assert outcome.path == path


def test_every_outcome_is_covered() -> None:
    """The cases above have every outcome, each with its own type name, and every path."""
    classes = {getattr(member, "__origin__", member) for member in get_args(Outcome)}
    assert {type(outcome) for outcome, _ in OUTCOMES} == classes
    assert len({outcome_class.type for outcome_class in classes}) == len(classes)
    assert {path for _, path in OUTCOMES} - {None} == set(PATHS)


def test_a_refusal_has_scope_and_reset() -> None:
    """A refused run names the scope of its ceiling and when that resets."""
    refused = Refused(refusal=REFUSAL, **COMMON)
    assert (refused.scope, refused.resets_at) == ("user", datetime(2026, 1, 2, tzinfo=UTC))


@given(output=json_values)
def test_packing(output: object) -> None:
    """An output that JSON can represent is unchanged in a packed outcome."""
    packed = json.loads(as_json(_outcome_fields(Answered(output=output, **COMMON))))
    assert packed["output"] == output
    assert packed["facts"]["run_id"] == "run_1"


def test_packing_of_models_and_bytes() -> None:
    """A typed answer is packed by its fields, bytes as base64, and anything else as its text."""
    packed = json.loads(as_json(_outcome_fields(Answered(output=[Count(count=2), b"\xff", 1j], **COMMON))))
    assert packed["output"] == [{"count": 2}, "_w==", "1j"]


def test_packing_of_a_lone_surrogate() -> None:
    """An answer with a lone surrogate can be packed."""
    assert json.loads(as_json(_outcome_fields(Answered(output="\ud800", **COMMON))))
