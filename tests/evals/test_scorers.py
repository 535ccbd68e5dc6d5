"""Scorers: what they accept, their notes on failures, and the combination of their results."""

import unicodedata
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_ai import Agent

from handrail import BadInput, HandrailError, govern
from handrail.evals import EvalSpec, ScorerContext, ScoreResult
from handrail.evals.errors import ScorerFailed
from handrail.evals.scorers.fields import close, exact, fields, normalised
from handrail.evals.scorers.fingerprint import scorer_hash
from handrail.evals.scorers.score import TrialScore, score_trial
from handrail.evals.scorers.text import contains, json_schema, lacks, matches
from handrail.evals.scorers.trial_checks import at_least, end_state, graded, within
from tests.evals.scorer_contexts import make_context

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("aB ", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
facts = st.dictionaries(st.sampled_from("pqrs"), json_values, min_size=1, max_size=4)
numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


def spec_with(*scorers: Any) -> EvalSpec[Any, Any]:
    return EvalSpec(agent=govern(Agent(), name="none"), cases=Path("cases.yaml"), observe=lambda _: {}, scorers=scorers)


async def score_with(context: ScorerContext, *scorers: Any) -> TrialScore:
    return await score_trial(spec_with(*scorers), context)


@given(expect=facts, observed=facts)
async def test_exact_is_the_default(expect: dict[str, Any], observed: dict[str, Any]) -> None:
    """`exact()` passes the same fields as a spec without scorers, and notes each field that does not match."""
    context = make_context(observed, expect=expect)
    plain, named = await score_with(context), await score_with(context, exact())
    assert named.fields == plain.fields
    assert named.notes.keys() == {name for name, passed in named.fields.items() if not passed}


async def test_nested_fields() -> None:
    """Each expected field is scored separately, and a note says where a nested value differs."""
    expect = {"vendor": "ACME", "total": 12.0, "items": [{"name": "a", "price": 1.0}, {"name": "b", "price": 2.0}]}
    observed = {"vendor": "Acme ", "total": 12.004, "items": [{"name": "a", "price": 1.0}, {"name": "b", "price": 3.0}]}
    scorer = fields(vendor=normalised(), total=close(absolute=0.01), items=close(relative=0.1))
    result = await score_with(make_context(observed, expect=expect), scorer)
    assert result.fields == {"vendor": True, "total": True, "items": False}
    assert result.notes == {"items": "items[1].price: 2.0 expected, 3.0 found"}
    assert not result.passed


@pytest.mark.parametrize(
    ("expected", "observed", "note"),
    [
        ([1], [1, 2], "a: 1 expected, 2 found"),
        ({"x": 1}, {"y": 1}, "a: only one side has x, y"),
        ([1], "1", "a: [1] expected, '1' found"),
        (1, True, "a: 1 expected, True found"),
    ],
)
async def test_notes(expected: Any, observed: Any, note: str) -> None:
    """Notes report differences in lengths, keys and types."""
    assert (await score_with(make_context({"a": observed}, expect={"a": expected}), exact())).notes == {"a": note}


async def test_a_field_that_is_missing() -> None:
    """A field that was not observed fails with any comparator, and is reported as missing."""
    for scorer in (exact(), normalised(), close(absolute=9), fields(order=normalised())):
        result = await score_with(make_context({}, expect={"order": None}), scorer)
        assert (result.fields, result.notes) == ({"order": False}, {"order": "order: missing"})


async def test_only_some_fields() -> None:
    """A scorer of some fields does not report the others."""
    context = make_context({"a": 1, "b": 2}, expect={"a": 1, "b": 3})
    assert (await score_with(context, exact("a"))).fields == {"a": True}


@given(st.text(), st.sampled_from(["", " ", "\t\n"]))
async def test_normalised_ignores_form(text: str, space: str) -> None:
    """Unicode forms and surrounding white space never matter."""
    for observed in (unicodedata.normalize("NFC", text), unicodedata.normalize("NFKD", text), f"{space}{text}{space}"):
        assert (await score_with(make_context({"a": observed}, expect={"a": text}), normalised())).passed


@pytest.mark.parametrize(
    ("expected", "observed", "drop", "passes"),
    [
        ("Straße", "STRASSE", "", True),
        ("ﬁve  sets", "Five\nsets", "", True),
        ("No.", "no", "", False),
        ("No.", "no", "P", True),
        ("1,000 $", "1000$", "PSZ", True),
        ("résumé", "resume", "P", False),
        (1, "1", "P", False),
    ],
)
async def test_normalised(expected: Any, observed: Any, drop: str, passes: bool) -> None:
    """Case, ligatures and white space are ignored, punctuation if it is dropped, accents and types never."""
    assert (
        await score_with(make_context({"a": observed}, expect={"a": expected}), normalised(drop=drop))
    ).passed is passes


@given(expected=numbers, observed=numbers, absolute=st.floats(0.001, 100), relative=st.floats(0, 0.5))
async def test_close(expected: float, observed: float, absolute: float, relative: float) -> None:
    """Numbers match exactly when they differ by at most the larger tolerance."""
    result = await score_with(
        make_context({"a": observed}, expect={"a": expected}), close(absolute=absolute, relative=relative)
    )
    assert result.passed == (abs(observed - expected) <= max(absolute, relative * abs(expected)))


@pytest.mark.parametrize("observed", [True, "12", None, float("nan"), float("inf")])
async def test_not_close(observed: Any) -> None:
    """A bool, a text, None and a number that is not finite are never close to a number."""
    assert not (await score_with(make_context({"a": observed}, expect={"a": 1}), close(absolute=100))).passed


async def test_texts() -> None:
    """Texts are searched in an observed field or in the message, and may come from the case's expectation."""
    context = make_context(
        {"reply": "Order 1042 is late."}, expect={"reply": "1042"}, message="A refund is on its way."
    )
    assert (await score_with(context, contains("refund"), lacks("sorry"), matches(r"\bway\b"))).passed
    assert (await score_with(context, contains("late", of="reply"), contains(of="reply"))).passed
    assert not (await score_with(context, lacks("late", of="reply"))).passed
    assert not (await score_with(context, matches(r"^way"))).passed


async def test_a_text_scorer_without_text() -> None:
    """`contains`, `lacks` and `matches` fail for a field that is missing or not a text."""
    for scorer in (contains("a", of="b"), lacks("a", of="b"), matches("a", of="b")):
        for observed in ({}, {"b": 5}):
            assert not (await score_with(make_context(observed), scorer)).passed


SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number", "minimum": 0}}}


class Bill(BaseModel):
    total: Decimal


@pytest.mark.parametrize(
    ("message", "note"),
    [
        ('{"total": 3}', None),
        ('{"total": -3}', "$.total: -3 is less than the minimum of 0"),
        ("{}", "$: 'total' is a required property"),
        ("total: 3", "not JSON"),
    ],
)
async def test_json_schemas(message: str, note: str | None) -> None:
    """A text is parsed as JSON and validated against the schema; a note has the violation."""
    result = await score_with(make_context({}, message=message), json_schema(SCHEMA))
    assert result.passed is (note is None)
    assert note is None or result.notes["json_schema"].startswith(note)


async def test_a_model_as_schema() -> None:
    """A Pydantic model can be used as the schema, and a value that is not a text is validated without parsing."""
    assert (await score_with(make_context({"bill": {"total": 3}}), json_schema(Bill, of="bill"))).passed
    assert not (await score_with(make_context({"bill": {}}), json_schema(Bill, of="bill"))).passed


async def test_limits() -> None:
    """Time and cost pass up to and including the limit, and a note has the value and the limit."""
    scorer = within(seconds=2, dollars="0.05")
    assert (await score_with(make_context({}, seconds=2, cost=50_000_000), scorer)).passed
    result = await score_with(make_context({}, seconds=2.001, cost=50_000_001), scorer)
    assert result.fields == {"latency": False, "cost": False}
    assert result.notes["latency"] == "2.001 s of 2 s"


@pytest.mark.parametrize(
    "make",
    [
        lambda: contains(),
        lambda: close(),
        lambda: close(absolute=-1),
        lambda: close(relative=float("nan")),
        lambda: within(),
        lambda: within(dollars="five"),
        lambda: within(seconds=-1),
        lambda: matches("("),
        lambda: json_schema({"type": "nonsense"}),
        lambda: at_least(1.5, exact()),
    ],
)
def test_invalid_scorers(make: Any) -> None:
    """Invalid arguments are refused when the scorer is created."""
    with pytest.raises(BadInput):
        make()


@dataclass
class Desk:
    refunds: list[str] = field(default_factory=list)


def no_refund(desk: Desk, _case: object) -> bool:
    return not desk.refunds


async def test_end_state() -> None:
    """The state of the trial's deps decides and not the answer; the field has the name of the check."""
    spec = replace(spec_with(end_state(no_refund)), deps=lambda _request: Desk())
    right = make_context({}, deps=Desk(), message="I refunded it.")
    assert (await score_trial(spec, right)).passed
    wrong = make_context({}, deps=Desk(["1042"]), message="I refunded nothing.")
    assert (await score_trial(spec, wrong)).fields == {"no_refund": False}


async def test_an_end_state_without_deps() -> None:
    """A run that ended before it had deps fails the check; a spec that makes no deps is refused."""
    spec = replace(spec_with(end_state(no_refund)), deps=lambda _request: Desk())
    assert (await score_trial(spec, make_context({}))).notes == {"no_refund": "the run ended before it had deps"}
    for scorer in (end_state(no_refund), at_least(0.5, end_state(no_refund))):
        with pytest.raises(BadInput, match=r"no_refund checks a trial's deps; pass a factory"):
            await score_with(make_context({}, deps=Desk()), scorer)


async def test_any_callable() -> None:
    """A callable may return a bool, a number that passes from 0.5 on, or a text for a note, also asynchronously."""

    async def awaited(_context: ScorerContext) -> float:
        return 0.5

    def low(_context: ScorerContext) -> float:
        return 0.49

    def remark(_context: ScorerContext) -> str:
        return "polite"

    def right(_context: ScorerContext) -> bool:
        return True

    result = await score_with(make_context({}), awaited, low, remark, right)
    assert result == TrialScore(
        {"awaited": True, "low": False, "right": True}, {"awaited": 0.5, "low": 0.49}, {"remark": "polite"}
    )
    assert (result.passed, result.value) == (False, 0.0)


async def test_thresholds_and_grades() -> None:
    """A score passes from its threshold on; a grade counts as it is, and the value is 0 if a field fails."""

    def tone(_context: ScorerContext) -> float:
        return 0.7

    def style(_context: ScorerContext) -> float:
        return 0.5

    def wrong(_context: ScorerContext) -> bool:
        return False

    assert not (await score_with(make_context({}), at_least(0.8, tone))).passed
    assert (await score_with(make_context({}), at_least(0.7, tone))).value == 1.0
    assert (await score_with(make_context({}), graded(tone), graded(style))).value == pytest.approx(0.6)
    assert (await score_with(make_context({}), graded(tone), wrong)).value == 0.0


@given(
    st.dictionaries(st.sampled_from("ab"), st.booleans()),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1)),
)
def test_the_value_of_a_trial(passed: dict[str, bool], scores: dict[str, float]) -> None:
    """A trial's value is between 0 and 1, is 0 or 1 without grades, and at least 0.5 if it passed."""
    result = TrialScore(passed, scores)
    assert 0 <= result.value <= 1
    if scores.keys() <= passed.keys():
        assert result.value == float(result.passed)
    assert not result.passed or result.value >= 0.5


async def test_names_of_several_scorers() -> None:
    """If several scorers use the same name, later ones get their own name as a prefix."""
    context = make_context({"total": 12.4}, expect={"total": 12})
    result = await score_with(context, close(absolute=1), exact(), exact())
    assert result.fields == {"total": True, "exact: total": False, "exact: total 2": False}


async def test_a_scorer_that_fails() -> None:
    """Exceptions and invalid scores are reported with the scorer and the case; Handrail's own errors pass through."""

    def raises(context: ScorerContext) -> bool:
        return bool(context.observed["reply"])

    def scores(_context: ScorerContext) -> float:
        return 7.0

    def nothing(_context: ScorerContext) -> None:
        return None

    def own(_context: ScorerContext) -> bool:
        raise BadInput("mine")

    with pytest.raises(ScorerFailed, match=r"scorer raises, case late: KeyError: 'reply'"):
        await score_with(make_context({}), raises)
    with pytest.raises(ScorerFailed, match=r"scores is 7.0; scale it"):
        await score_with(make_context({}), scores)
    with pytest.raises(ScorerFailed, match="NoneType is not a score"):
        await score_with(make_context({}), nothing)
    with pytest.raises(BadInput, match="mine"):
        await score_with(make_context({}), own)
    assert issubclass(ScorerFailed, HandrailError)


@dataclass
class Reason:
    value: bool | float | str
    reason: str | None = None


@dataclass
class Equals:
    """An evaluator like those of pydantic-evals."""

    async def evaluate(self, ctx: Any) -> dict[str, Any]:
        return {
            "equals": ctx.output == ctx.expected_output,
            "speed": Reason(1 / (1 + ctx.duration), "slow"),
            "tone": "calm",
            "name": Reason(f"{ctx.name} {ctx.inputs}"),
        }


@dataclass
class Short:
    limit: int

    def evaluate(self, ctx: Any) -> bool:
        return len(ctx.output.get("reply", "")) <= self.limit

    def get_default_evaluation_name(self) -> str:
        return f"at most {self.limit}"


async def test_evaluators_of_pydantic_evals() -> None:
    """The evaluators of pydantic-evals can be scorers: bools become fields, numbers scores, texts and reasons notes."""
    context = make_context({"reply": "abc"}, expect={"reply": "abc"}, seconds=1)
    result = await score_with(context, Equals(), Short(2))
    assert result.fields == {"equals": True, "speed": True, "at most 2": False}
    assert result.scores == {"speed": 0.5}
    assert result.notes == {"speed": "slow", "tone": "calm", "name": "late Where is it?"}


def hash_of(*scorers: Any) -> str:
    return scorer_hash(spec_with(*scorers))


def test_the_hash_of_scorers() -> None:
    """The hash changes with a parameter, the order, a function, a closed-over value, and a threshold."""

    def limited(limit: int) -> Any:
        def short(context: ScorerContext) -> bool:
            return len(context.observed) <= limit

        return short

    different = [
        (),
        (exact(),),
        (exact("a"),),
        (normalised(),),
        (normalised(drop="P"),),
        (close(absolute=1),),
        (close(absolute=2),),
        (exact(), close(absolute=1)),
        (close(absolute=1), exact()),
        (fields(a=close(absolute=1)),),
        (fields(b=close(absolute=1)),),
        (limited(1),),
        (limited(2),),
        (end_state(no_refund),),
        (end_state(lambda desk, _case: bool(desk.refunds)),),
        (Short(1),),
        (Short(2),),
        (at_least(0.6, limited(1)),),
        (graded(limited(1)),),
        (json_schema(SCHEMA),),
        (within(seconds=1),),
    ]
    assert len({hash_of(*scorers) for scorers in different}) == len(different)
    assert hash_of(limited(1), fields(a=exact(), b=normalised())) == hash_of(
        limited(1), fields(b=normalised(), a=exact())
    )


def test_a_scorer_can_define_its_fingerprint() -> None:
    """A `fingerprint` attribute replaces a scorer's source and parameters in the hash."""

    class Judge:
        def __init__(self, rubric: str, version: int) -> None:
            self.fingerprint, self.version = f"rubric {rubric}", version

        def __call__(self, _context: ScorerContext) -> ScoreResult:
            return ScoreResult()

    assert hash_of(Judge("a", 1)) == hash_of(Judge("a", 2)) != hash_of(Judge("b", 1))
