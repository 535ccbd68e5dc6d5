"""What a set is warned of before its score is believed, and which cases an agent that does nothing passes."""

import datetime as dt
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import Answered, Escalated, Failed, Outcome
from handrail.evals import EvalSpec, Seen, exact, world
from handrail.evals.eval_set.lint import lint_set, near_duplicates
from handrail.evals.eval_set.model import Case, EvalSet
from handrail.evals.scorers.noop_baseline import passed_by_idling
from tests.evals.scorer_contexts import ON


def made(*asked: str, **more: Any) -> EvalSet:
    given: dict[str, Any] = {"source": "ticket 4711", "date": ON, **more}
    cases = [
        Case(id=f"c{n}", input=text, expect={"category": "billing" if n % 2 else "other", "n": n}, **given)
        for n, text in enumerate(asked)
    ]
    return EvalSet(name="parcels", description="Parcels.", cases=tuple(cases))


def kinds(loaded: EvalSet, **seen: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.kind, each.cases) for each in lint_set(loaded, **seen) if each.kind != "size"]


def different(n: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice("abcdefghij ") for _ in range(120)) for _ in range(n)]


@pytest.mark.parametrize(("n", "warned"), [(49, True), (50, False), (300, False), (301, True)])
def test_sizes(n: int, warned: bool) -> None:
    """A set of 50 to 300 different cases has nothing to mend; a smaller or a larger one is told so."""
    assert [each.kind for each in lint_set(made(*different(n)))] == ["size"] * warned


def test_doubles() -> None:
    """Inputs that differ in case, spaces and punctuation are one; those that share most of their text are near."""
    loaded = made(
        "Where is my parcel?",
        "where is  my parcel",
        "The kettle from order 1042 arrived with a dent in its lid, and I want another one.",
        "The kettle from order 1043 arrived with a dent in its lid, and I want another one.",
        "I was charged twice.",
    )
    assert kinds(loaded) == [("duplicate", ("c0", "c1")), ("near-duplicate", ("c2", "c3"))]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.text("ab ", min_size=1, max_size=14), max_size=8),
    st.floats(0.3, 1.0),
)
def test_near_duplicates_are_all_found(texts: dict[str, str], threshold: float) -> None:
    """What is found by looking at few pairs is what comparing every pair finds."""
    grams = {key: {text[at : at + 5] for at in range(len(text) - 4)} or {text} for key, text in texts.items()}
    every = {
        frozenset((a, b))
        for a in grams
        for b in grams
        if a < b and len(grams[a] & grams[b]) / len(grams[a] | grams[b]) >= threshold
    }
    assert {frozenset(pair[:2]) for pair in near_duplicates(texts, threshold)} == every


def test_leaks() -> None:
    """An input that stands in the prompt is found, also when a word of it was changed; a short word never counts."""
    prompt = (
        'Sort messages. For example "My parcel has not arrived, and it is my sister\'s birthday on Friday!": delivery.'
    )
    loaded = made(
        "my parcel has not arrived and it is my sister's birthday on friday",
        "My parcel has not arrived, and it is my mother's birthday on Friday.",
        "for example",
        "My parcel has arrived, and it is not what I had ordered for my sister.",
    )
    assert kinds(loaded, texts={"the prompt": prompt}) == [("leak", ("c0", "c1"))]


def test_a_long_text_does_not_have_everything() -> None:
    """Of a text with all the parts of an input far apart, the input is not said to leak."""
    asked = "the blue teapot came without its lid"
    parts = [asked[at : at + 9] for at in range(0, len(asked), 3)]
    scattered = "".join(f"{part} {' '.join(different(2, seed))} " for seed, part in enumerate(parts))
    assert kinds(made(asked), texts={"a": scattered}) == []
    assert kinds(made(asked), texts={"a": f"{scattered} {asked}"}) == [("leak", ("c0",))]


@pytest.mark.parametrize("source", ["test", "n/a", "Unknown", "TODO", "a customer", "production", "interviews"])
def test_sources_that_nobody_can_look_up(source: str) -> None:
    """A source that names a kind and no one thing is vague."""
    assert kinds(made("one", "two", source=source)) == [("source", ("c0", "c1"))]


@pytest.mark.parametrize(
    "source", ["ticket 4711", "production run run_01, marked wrong by ann", "written for the gate"]
)
def test_sources_that_somebody_can_look_up(source: str) -> None:
    """A source that names one thing, or says who wrote it and why, is one."""
    assert kinds(made("one", "two", source=source)) == []


def test_fields_that_never_vary() -> None:
    """A field that every case expects with the same value of the same type is named; True is not 1."""
    cases = [
        Case(id=f"c{n}", input=f"{n}", expect={"a": 1, "b": b}, source="x 1", date=ON) for n, b in enumerate((True, 1))
    ]
    found = lint_set(EvalSet(name="s", description="s", cases=tuple(cases)))
    assert [each.says.split()[0] for each in found if each.kind == "constant"] == ["a"]


def observe(outcome: Outcome[Any]) -> Mapping[str, Any]:
    match outcome:
        case Answered(output=str(text)):
            return {"said": text, "refunded": False}
        case Escalated():
            return {"to": "person"}
        case Failed():
            return {"refunded": False}
    raise TypeError("an output of another type")


def wanted(case_id: str, **expect: Any) -> Case:
    return Case(id=case_id, input=case_id, expect=expect, source="ticket 1", date=dt.date(2026, 1, 1))


IDLE = EvalSet(
    name="idle",
    description="For an agent that does nothing.",
    cases=(
        wanted("no-refund", refunded=False),
        wanted("to-a-person", to="person"),
        wanted("says-nothing", said=""),
        wanted("says-yes", said="yes"),
    ),
)


async def test_what_doing_nothing_passes() -> None:
    """Cases that failing, escalating or saying nothing passes are named with that way; those that need work are not."""
    found = await passed_by_idling(EvalSpec[Any, Any](cases=Path("x"), observe=observe), IDLE)
    assert found == {
        "no-refund": "fails every time",
        "to-a-person": "hands everything to a person",
        "says-nothing": "answers with an empty text",
    }
    findings = [each for each in lint_set(IDLE, free=found) if each.kind == "free"]
    assert [each.cases for each in findings] == [("no-refund",), ("to-a-person",), ("says-nothing",)]


async def test_doing_nothing_meets_the_sets_own_scorers() -> None:
    """The scorers decide, in a fresh world for each outcome; one that cannot be asked passes nothing."""
    worlds: list[list[str]] = []

    def fresh(_request: object) -> list[str]:
        worlds.append([])
        return worlds[-1]

    def refunded(desk: list[str], _case: object) -> bool:
        desk.append("looked at")
        return len(desk) > 1

    def explodes(found: Seen) -> bool:
        return bool(1 / len(found.case.tags))

    for scorers in ((exact(), world(refunded)), (explodes,)):
        spec = EvalSpec[Any, Any](cases=Path("x"), observe=observe, deps=fresh, scorers=scorers)
        assert await passed_by_idling(spec, IDLE) == {}
    assert len({id(each) for each in worlds}) == len(worlds)
