"""Scorers: what each holds for, what it says of what fails, and how their verdicts are put together."""

import unicodedata
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from handrail import BadInput, HandrailError
from handrail.evals import EvalSpec, Scored, Seen
from handrail.evals.scorers.builtin import (
    at_least,
    close,
    contains,
    exact,
    fields,
    graded,
    json_schema,
    lacks,
    matches,
    normalised,
    within,
    world,
)
from handrail.evals.scorers.fingerprint import scorer_hash
from handrail.evals.scorers.score import ScorerFailed, Verdict, verdict_of
from tests.evals.scorer_contexts import seen

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("aB ", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
facts = st.dictionaries(st.sampled_from("pqrs"), json_values, min_size=1, max_size=4)
numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


def trials(*scorers: Any) -> EvalSpec[Any, Any]:
    return EvalSpec(cases=Path("cases.yaml"), observe=lambda _: {}, scorers=scorers)


async def judged(found: Seen, *scorers: Any) -> Verdict:
    return await verdict_of(trials(*scorers), found)


@given(expect=facts, observed=facts)
async def test_exact_is_what_a_set_without_scorers_does(expect: dict[str, Any], observed: dict[str, Any]) -> None:
    """`exact()` holds for the same fields as a set that names no scorer, and notes each field that does not."""
    trial = seen(observed, expect=expect)
    plain, named = await judged(trial), await judged(trial, exact())
    assert named.fields == plain.fields
    assert named.notes.keys() == {name for name, held in named.fields.items() if not held}


async def test_which_field_and_where() -> None:
    """A verdict has each expected field apart, and a note says at which place a nested one differs."""
    expect = {"vendor": "ACME", "total": 12.0, "items": [{"name": "a", "price": 1.0}, {"name": "b", "price": 2.0}]}
    found = {"vendor": "Acme ", "total": 12.004, "items": [{"name": "a", "price": 1.0}, {"name": "b", "price": 3.0}]}
    scorer = fields(vendor=normalised(), total=close(absolute=0.01), items=close(relative=0.1))
    verdict = await judged(seen(found, expect=expect), scorer)
    assert verdict.fields == {"vendor": True, "total": True, "items": False}
    assert verdict.notes == {"items": "items[1].price: 2.0 expected, 3.0 found"}
    assert not verdict.passed


@pytest.mark.parametrize(
    ("expected", "found", "note"),
    [
        ([1], [1, 2], "a: 1 expected, 2 found"),
        ({"x": 1}, {"y": 1}, "a: only one side has x, y"),
        ([1], "1", "a: [1] expected, '1' found"),
        (1, True, "a: 1 expected, True found"),
    ],
)
async def test_what_a_note_says(expected: Any, found: Any, note: str) -> None:
    """Lengths, keys and types that differ are told as such."""
    assert (await judged(seen({"a": found}, expect={"a": expected}), exact())).notes == {"a": note}


async def test_a_field_that_is_missing() -> None:
    """What was not observed never holds, under any rule, and is told as missing."""
    for scorer in (exact(), normalised(), close(absolute=9), fields(order=normalised())):
        verdict = await judged(seen({}, expect={"order": None}), scorer)
        assert (verdict.fields, verdict.notes) == ({"order": False}, {"order": "order: missing"})


async def test_only_some_fields() -> None:
    """A scorer of some fields says nothing of the others."""
    trial = seen({"a": 1, "b": 2}, expect={"a": 1, "b": 3})
    assert (await judged(trial, exact("a"))).fields == {"a": True}


@given(st.text(), st.sampled_from(["", " ", "\t\n"]))
async def test_normalised_forgives(text: str, space: str) -> None:
    """Unicode forms and white space around a text never matter to it."""
    for found in (unicodedata.normalize("NFC", text), unicodedata.normalize("NFKD", text), f"{space}{text}{space}"):
        assert (await judged(seen({"a": found}, expect={"a": text}), normalised())).passed


@pytest.mark.parametrize(
    ("expected", "found", "drop", "holds"),
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
async def test_normalised(expected: Any, found: Any, drop: str, holds: bool) -> None:
    """Case, ligatures and white space are forgiven, punctuation where it is dropped, accents and types never."""
    assert (await judged(seen({"a": found}, expect={"a": expected}), normalised(drop=drop))).passed is holds


@given(expected=numbers, found=numbers, absolute=st.floats(0.001, 100), relative=st.floats(0, 0.5))
async def test_close(expected: float, found: float, absolute: float, relative: float) -> None:
    """Numbers hold exactly when they differ by at most the larger tolerance."""
    verdict = await judged(seen({"a": found}, expect={"a": expected}), close(absolute=absolute, relative=relative))
    assert verdict.passed == (abs(found - expected) <= max(absolute, relative * abs(expected)))


@pytest.mark.parametrize("found", [True, "12", None, float("nan"), float("inf")])
async def test_not_close(found: Any) -> None:
    """A bool, a text, nothing and what is no finite number are close to no number."""
    assert not (await judged(seen({"a": found}, expect={"a": 1}), close(absolute=100))).passed


async def test_texts() -> None:
    """A text is looked for in an observed field or in what the user reads, and may be the case's own expectation."""
    trial = seen({"reply": "Order 1042 is late."}, expect={"reply": "1042"}, message="A refund is on its way.")
    assert (await judged(trial, contains("refund"), lacks("sorry"), matches(r"\bway\b"))).passed
    assert (await judged(trial, contains("late", of="reply"), contains(of="reply"))).passed
    assert not (await judged(trial, lacks("late", of="reply"))).passed
    assert not (await judged(trial, matches(r"^way"))).passed


async def test_a_text_that_is_not_there() -> None:
    """Neither `contains` nor `lacks` nor `matches` holds for a field that is missing or is no text."""
    for scorer in (contains("a", of="b"), lacks("a", of="b"), matches("a", of="b")):
        for observed in ({}, {"b": 5}):
            assert not (await judged(seen(observed), scorer)).passed


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
    """A text is read as JSON and held against the schema; a note says where it breaks it."""
    verdict = await judged(seen({}, message=message), json_schema(SCHEMA))
    assert verdict.passed is (note is None)
    assert note is None or verdict.notes["json_schema"].startswith(note)


async def test_a_model_as_schema() -> None:
    """A Pydantic model stands for its schema, and a value that is JSON already is taken as it is."""
    assert (await judged(seen({"bill": {"total": 3}}), json_schema(Bill, of="bill"))).passed
    assert not (await judged(seen({"bill": {}}), json_schema(Bill, of="bill"))).passed


async def test_limits() -> None:
    """Time and cost hold up to the limit itself, and a note says by how much one was missed."""
    scorer = within(seconds=2, dollars="0.05")
    assert (await judged(seen({}, seconds=2, cost=50_000_000), scorer)).passed
    verdict = await judged(seen({}, seconds=2.001, cost=50_000_001), scorer)
    assert verdict.fields == {"latency": False, "cost": False}
    assert verdict.notes["latency"] == "2.001 s of 2 s"


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
def test_what_is_no_scorer(make: Any) -> None:
    """A scorer that could hold for nothing, or for everything, is refused where it is made."""
    with pytest.raises(BadInput):
        make()


@dataclass
class Desk:
    refunds: list[str] = field(default_factory=list)


def no_refund(desk: Desk, _case: object) -> bool:
    return not desk.refunds


async def test_the_world() -> None:
    """The state of the trial's world decides, whatever was said, under the name of its check."""
    spec = replace(trials(world(no_refund)), deps=lambda _request: Desk())
    right = seen({}, deps=Desk(), message="I refunded it.")
    assert (await verdict_of(spec, right)).passed
    wrong = seen({}, deps=Desk(["1042"]), message="I refunded nothing.")
    assert (await verdict_of(spec, wrong)).fields == {"no_refund": False}


async def test_a_world_that_is_not_there() -> None:
    """A run that ended before it had deps fails the check; a set that makes none for its trials is refused."""
    spec = replace(trials(world(no_refund)), deps=lambda _request: Desk())
    assert (await verdict_of(spec, seen({}))).notes == {"no_refund": "the run ended before it had deps"}
    for scorer in (world(no_refund), at_least(0.5, world(no_refund))):
        with pytest.raises(BadInput, match=r"no_refund looks at a trial's deps; give the set a factory"):
            await judged(seen({}, deps=Desk()), scorer)


async def test_any_callable() -> None:
    """A bool is a field, a number a score that holds from a half on, a text a note, and any may be awaited."""

    async def awaited(_seen: Seen) -> float:
        return 0.5

    def low(_seen: Seen) -> float:
        return 0.49

    def said(_seen: Seen) -> str:
        return "polite"

    def right(_seen: Seen) -> bool:
        return True

    verdict = await judged(seen({}), awaited, low, said, right)
    assert verdict == Verdict(
        {"awaited": True, "low": False, "right": True}, {"awaited": 0.5, "low": 0.49}, {"said": "polite"}
    )
    assert (verdict.passed, verdict.value) == (False, 0.0)


async def test_thresholds_and_grades() -> None:
    """A score passes from its threshold on; a grade counts as it is, and is 0 where a field does not hold."""

    def tone(_seen: Seen) -> float:
        return 0.7

    def style(_seen: Seen) -> float:
        return 0.5

    def wrong(_seen: Seen) -> bool:
        return False

    assert not (await judged(seen({}), at_least(0.8, tone))).passed
    assert (await judged(seen({}), at_least(0.7, tone))).value == 1.0
    assert (await judged(seen({}), graded(tone), graded(style))).value == pytest.approx(0.6)
    assert (await judged(seen({}), graded(tone), wrong)).value == 0.0


@given(
    st.dictionaries(st.sampled_from("ab"), st.booleans()),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1)),
)
def test_what_a_verdict_counts(held: dict[str, bool], scores: dict[str, float]) -> None:
    """A verdict's value lies in 0 to 1 and is 0 or 1 without grades; what passed counts at least a half."""
    verdict = Verdict(held, scores)
    assert 0 <= verdict.value <= 1
    if scores.keys() <= held.keys():
        assert verdict.value == float(verdict.passed)
    assert not verdict.passed or verdict.value >= 0.5


async def test_names_that_two_scorers_use() -> None:
    """The first scorer of a name has it; the others' have their own name before it, and nothing is lost."""
    trial = seen({"total": 12.4}, expect={"total": 12})
    verdict = await judged(trial, close(absolute=1), exact(), exact())
    assert verdict.fields == {"total": True, "exact: total": False, "exact: total 2": False}


async def test_a_scorer_that_fails() -> None:
    """What a scorer raises, and what is no score, is told with the scorer and the case; our own errors pass through."""

    def raises(found: Seen) -> bool:
        return bool(found.observed["reply"])

    def scores(_seen: Seen) -> float:
        return 7.0

    def nothing(_seen: Seen) -> None:
        return None

    def own(_seen: Seen) -> bool:
        raise BadInput("mine")

    with pytest.raises(ScorerFailed, match=r"scorer raises, case late: KeyError: 'reply'"):
        await judged(seen({}), raises)
    with pytest.raises(ScorerFailed, match=r"scores is 7.0; scale it"):
        await judged(seen({}), scores)
    with pytest.raises(ScorerFailed, match="NoneType is no score"):
        await judged(seen({}), nothing)
    with pytest.raises(BadInput, match="mine"):
        await judged(seen({}), own)
    assert issubclass(ScorerFailed, HandrailError)


@dataclass
class Reason:
    value: bool | float | str
    reason: str | None = None


@dataclass
class Equals:
    """In the shape of a pydantic-evals evaluator."""

    async def evaluate(self, ctx: Any) -> dict[str, Any]:
        return {
            "equals": ctx.output == ctx.expected_output,
            "speed": Reason(1 / (1 + ctx.duration), "slow"),
            "tone": "calm",
            "name": Reason(f"{ctx.name} {ctx.inputs}"),
        }


@dataclass
class Short:
    most: int

    def evaluate(self, ctx: Any) -> bool:
        return len(ctx.output.get("reply", "")) <= self.most

    def get_default_evaluation_name(self) -> str:
        return f"at most {self.most}"


async def test_evaluators_of_pydantic_evals() -> None:
    """What has their shape is asked as they are: bools, numbers, texts and reasons land in their places."""
    trial = seen({"reply": "abc"}, expect={"reply": "abc"}, seconds=1)
    verdict = await judged(trial, Equals(), Short(2))
    assert verdict.fields == {"equals": True, "speed": True, "at most 2": False}
    assert verdict.scores == {"speed": 0.5}
    assert verdict.notes == {"speed": "slow", "tone": "calm", "name": "late Where is it?"}


def hashed(*scorers: Any) -> str:
    return scorer_hash(trials(*scorers))


def test_a_changed_scorer_is_noticed() -> None:
    """The hash changes with a parameter, an order, a function, a value that is closed over, and a threshold."""

    def limited(most: int) -> Any:
        def short(found: Seen) -> bool:
            return len(found.observed) <= most

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
        (world(no_refund),),
        (world(lambda desk, _case: bool(desk.refunds)),),
        (Short(1),),
        (Short(2),),
        (at_least(0.6, limited(1)),),
        (graded(limited(1)),),
        (json_schema(SCHEMA),),
        (within(seconds=1),),
    ]
    assert len({hashed(*scorers) for scorers in different}) == len(different)
    assert hashed(limited(1), fields(a=exact(), b=normalised())) == hashed(
        limited(1), fields(b=normalised(), a=exact())
    )


def test_a_scorer_may_say_itself_what_it_is() -> None:
    """A `fingerprint` stands for a scorer, so that what it keeps besides does not count."""

    class Judge:
        def __init__(self, rubric: str, kept: int) -> None:
            self.fingerprint, self.kept = f"rubric {rubric}", kept

        def __call__(self, _seen: Seen) -> Scored:
            return Scored()

    assert hashed(Judge("a", 1)) == hashed(Judge("a", 2)) != hashed(Judge("b", 1))
