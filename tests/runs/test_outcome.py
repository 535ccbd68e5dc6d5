"""How a run can end, what each ending counts as, and how it is written down."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import Answered, AwaitingApproval, Escalated, Facts, Failed, Fault, FellBack, Outcome, Refused
from handrail.ceilings.decision import Refusal
from handrail.kernel.serialization import as_json
from handrail.runs.completion import _fields
from handrail.runs.outcome import PATHS
from tests.runs.scripts import Count

FACTS = Facts(run_id="run_1", trace_id="t", duration=timedelta(seconds=1))
FAULT = Fault(code="model_timeout", detail="too slow")
REFUSAL = Refusal("user", "usd", 10, 4, 3, 5, 3, datetime(2026, 1, 2, tzinfo=UTC))
SAID: dict[str, Any] = {"message": "m", "facts": FACTS}
ENDINGS: list[tuple[Outcome[str], str | None]] = [
    (Answered(output="a", **SAID), "happy"),
    (Answered(output="a", retried=True, **SAID), "fallback"),
    (FellBack(output="a", fault=FAULT, **SAID), "fallback"),
    (Escalated(reason="asked for a person", **SAID), "human"),
    (Refused(refusal=REFUSAL, **SAID), "refused"),
    (Failed(fault=FAULT, **SAID), "failed"),
    (AwaitingApproval(approvals=(), **SAID), None),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("outcome", "path"), ENDINGS, ids=lambda each: getattr(each, "type", str(each)))
def test_path(outcome: Outcome[str], path: str | None) -> None:
    """Each way of ending counts as the path that the design's table gives it."""
    assert outcome.path == path


def test_the_type_is_closed() -> None:
    """The table above names every outcome, each has a type name of its own, and every path is reached."""
    kinds = {getattr(kind, "__origin__", kind) for kind in get_args(Outcome)}
    assert {type(outcome) for outcome, _ in ENDINGS} == kinds
    assert len({kind.type for kind in kinds}) == len(kinds)
    assert {path for _, path in ENDINGS} - {None} == set(PATHS)


def test_a_refusal_says_whose_and_until_when() -> None:
    """A refused run names the scope of its ceiling and when that resets."""
    refused = Refused(refusal=REFUSAL, **SAID)
    assert (refused.scope, refused.resets_at) == ("user", datetime(2026, 1, 2, tzinfo=UTC))


@given(output=json_values)
def test_packing(output: object) -> None:
    """What JSON can hold comes back from a packed outcome as it was."""
    packed = json.loads(as_json(_fields(Answered(output=output, **SAID))))
    assert packed["output"] == output
    assert packed["facts"]["run_id"] == "run_1"


def test_packing_of_models_and_bytes() -> None:
    """A typed answer is packed by its fields, bytes as base64, and what JSON cannot hold by its text."""
    packed = json.loads(as_json(_fields(Answered(output=[Count(count=2), b"\xff", 1j], **SAID))))
    assert packed["output"] == [{"count": 2}, "_w==", "1j"]


def test_packing_of_half_a_character() -> None:
    """An answer with half a surrogate pair in it is packed all the same."""
    assert json.loads(as_json(_fields(Answered(output="\ud800", **SAID))))
