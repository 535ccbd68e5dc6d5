"""Lint of eval sets, and the cases that an agent passes without doing anything."""

import datetime as dt
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent

from handrail import Answered, Escalated, Failed, Outcome, govern
from handrail.evals import EvalSpec, ScorerContext, end_state, exact
from handrail.evals.eval_set.lint import lint_eval_set, near_duplicates
from handrail.evals.eval_set.model import Case, EvalSet
from handrail.evals.scorers.noop_baseline import passed_by_noop
from tests.evals.scorer_contexts import ON


def make_set(*inputs: str, **overrides: Any) -> EvalSet:
    fields: dict[str, Any] = {"source": "ticket 4711", "date": ON, **overrides}
    cases = [
        Case(id=f"c{n}", input=text, expect={"category": "billing" if n % 2 else "other", "n": n}, **fields)
        for n, text in enumerate(inputs)
    ]
    return EvalSet(name="parcels", description="Parcels.", cases=tuple(cases))


def kinds(loaded: EvalSet, **arguments: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(issue.kind, issue.cases) for issue in lint_eval_set(loaded, **arguments) if issue.kind != "size"]


def random_texts(n: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice("abcdefghij ") for _ in range(120)) for _ in range(n)]


@pytest.mark.parametrize(("n", "warned"), [(49, True), (50, False), (300, False), (301, True)])
def test_sizes(n: int, warned: bool) -> None:
    """An eval set of 50 to 300 different cases has no issues; a smaller or larger one has an issue about its size."""
    assert [issue.kind for issue in lint_eval_set(make_set(*random_texts(n)))] == ["size"] * warned


def test_duplicates() -> None:
    """Inputs that differ in case, spaces and punctuation are duplicates; those that share most text near duplicates."""
    loaded = make_set(
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
    """The fast search finds the same near duplicates as a comparison of all pairs."""
    grams = {key: {text[at : at + 5] for at in range(len(text) - 4)} or {text} for key, text in texts.items()}
    expected = {
        frozenset((a, b))
        for a in grams
        for b in grams
        if a < b and len(grams[a] & grams[b]) / len(grams[a] | grams[b]) >= threshold
    }
    assert {frozenset(pair[:2]) for pair in near_duplicates(texts, threshold)} == expected


def test_leaks() -> None:
    """An input in the prompt is found even if one of its words differs; a short word never counts."""
    prompt = (
        'Sort messages. For example "My parcel has not arrived, and it is my sister\'s birthday on Friday!": delivery.'
    )
    loaded = make_set(
        "my parcel has not arrived and it is my sister's birthday on friday",
        "My parcel has not arrived, and it is my mother's birthday on Friday.",
        "for example",
        "My parcel has arrived, and it is not what I had ordered for my sister.",
    )
    assert kinds(loaded, texts={"the prompt": prompt}) == [("leak", ("c0", "c1"))]


def test_scattered_parts_are_not_a_leak() -> None:
    """A text that has all parts of an input, but far apart, does not count as a leak."""
    message = "the blue teapot came without its lid"
    parts = [message[at : at + 9] for at in range(0, len(message), 3)]
    scattered = "".join(f"{part} {' '.join(random_texts(2, seed))} " for seed, part in enumerate(parts))
    assert kinds(make_set(message), texts={"a": scattered}) == []
    assert kinds(make_set(message), texts={"a": f"{scattered} {message}"}) == [("leak", ("c0",))]


@pytest.mark.parametrize("source", ["test", "n/a", "Unknown", "TODO", "a customer", "production", "interviews"])
def test_vague_sources(source: str) -> None:
    """A source that does not identify anything is reported."""
    assert kinds(make_set("one", "two", source=source)) == [("source", ("c0", "c1"))]


@pytest.mark.parametrize(
    "source", ["ticket 4711", "production run run_01, marked wrong by ann", "written for the gate"]
)
def test_specific_sources(source: str) -> None:
    """A source that names a specific thing, or says who wrote it and why, is accepted."""
    assert kinds(make_set("one", "two", source=source)) == []


def test_fields_that_never_vary() -> None:
    """A field with the same value and type in every case is reported; True is not 1."""
    cases = [
        Case(id=f"c{n}", input=f"{n}", expect={"a": 1, "b": b}, source="x 1", date=ON) for n, b in enumerate((True, 1))
    ]
    issues = lint_eval_set(EvalSet(name="s", description="s", cases=tuple(cases)))
    assert [issue.message.split()[0] for issue in issues if issue.kind == "constant"] == ["a"]


def observe(outcome: Outcome[Any]) -> Mapping[str, Any]:
    match outcome:
        case Answered(output=str(text)):
            return {"reply": text, "refunded": False}
        case Escalated():
            return {"to": "person"}
        case Failed():
            return {"refunded": False}
    raise TypeError("an output of another type")


def expecting(case_id: str, **expect: Any) -> Case:
    return Case(id=case_id, input=case_id, expect=expect, source="ticket 1", date=dt.date(2026, 1, 1))


NOOP_SET = EvalSet(
    name="noop",
    description="For an agent that does nothing.",
    cases=(
        expecting("no-refund", refunded=False),
        expecting("to-a-person", to="person"),
        expecting("says-nothing", reply=""),
        expecting("says-yes", reply="yes"),
    ),
)


async def test_cases_passed_without_work() -> None:
    """Cases that pass by failing, escalating or an empty answer are reported with the reason, and no others."""
    passes = await passed_by_noop(
        EvalSpec(agent=govern(Agent(), name="none"), cases=Path("x"), observe=observe), NOOP_SET
    )
    assert passes == {
        "no-refund": "always fails",
        "to-a-person": "always escalates to a person",
        "says-nothing": "answers with an empty text",
    }
    issues = [issue for issue in lint_eval_set(NOOP_SET, noop_passes=passes) if issue.kind == "noop"]
    assert [issue.cases for issue in issues] == [("no-refund",), ("to-a-person",), ("says-nothing",)]


async def test_noop_uses_the_scorers_of_the_spec() -> None:
    """The scorers decide, with fresh deps for each outcome; a scorer that raises passes nothing."""
    all_deps: list[list[str]] = []

    def make_desk(_request: object) -> list[str]:
        all_deps.append([])
        return all_deps[-1]

    def refunded(desk: list[str], _case: object) -> bool:
        desk.append("checked")
        return len(desk) > 1

    def raises(context: ScorerContext) -> bool:
        return bool(1 / len(context.case.tags))

    for scorers in ((exact(), end_state(refunded)), (raises,)):
        spec = EvalSpec(
            agent=govern(Agent(), name="none"), cases=Path("x"), observe=observe, deps=make_desk, scorers=scorers
        )
        assert await passed_by_noop(spec, NOOP_SET) == {}
    assert len({id(deps) for deps in all_deps}) == len(all_deps)
