"""Texts word by word and trajectories step by step."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.compare.alignment import MOST_STEPS, MOST_WORDS, Pair, Step, align, words_apart

texts = st.text("ab .,\n", max_size=40)
steps = st.builds(
    Step,
    kind=st.sampled_from(["model", "tool"]),
    name=st.sampled_from("xy"),
    asked=st.integers(0, 1),
    gave=st.none() | st.integers(0, 1),
    error=st.none(),
)
trajectories = st.lists(steps, max_size=6)


def sides(before: str, after: str) -> tuple[str, str]:
    pieces = words_apart(before, after)
    return (
        "".join(each.text for each in pieces if each.kind != "added"),
        "".join(each.text for each in pieces if each.kind != "removed"),
    )


@given(texts, texts)
def test_both_texts_are_whole(before: str, after: str) -> None:
    """What is the same and what was removed give the text before, what is the same and what was added the one after."""
    assert sides(before, after) == (before, after)


@given(texts, texts)
def test_pieces(before: str, after: str) -> None:
    """Pieces are not empty, two in a row are of different kinds, and equal texts are one piece."""
    pieces = words_apart(before, after)
    assert all(each.text for each in pieces)
    assert all(one.kind != two.kind for one, two in itertools.pairwise(pieces))
    assert before != after or [each.kind for each in pieces] == ["same"] * bool(before)


def test_words() -> None:
    """Whole words are marked, and no more of them than changed."""
    pieces = words_apart("Order 1042 is late, sorry.", "Order 1043 is late.")
    assert [(each.kind, each.text) for each in pieces] == [
        ("same", "Order "),
        ("removed", "1042"),
        ("added", "1043"),
        ("same", " is late"),
        ("removed", ", sorry"),
        ("same", "."),
    ]


def test_long_texts() -> None:
    """Beyond what is compared word by word, the ends in common are still found and the middle is one change."""
    before = "Hello " + "a " * MOST_WORDS + "bye"
    after = "Hello " + "b " * MOST_WORDS + "bye"
    assert [each.kind for each in words_apart(before, after)] == ["same", "removed", "added", "same"]
    assert sides(before, after) == (before, after)


@given(trajectories, trajectories)
def test_every_step_stands_once(before: list[Step], after: list[Step]) -> None:
    """Each side's steps are in the pairs, in order; two steps that pair up are of one kind and name."""
    found = align(before, after)
    assert [pair.before for pair in found.pairs if pair.before] == before
    assert [pair.after for pair in found.pairs if pair.after] == after
    for pair in found.pairs:
        if pair.before and pair.after:
            assert (pair.before.kind, pair.before.name) == (pair.after.kind, pair.after.name)
            assert pair.fit == ("same" if pair.before == pair.after or _heard(pair) else "changed")
        else:
            assert pair.fit == ("removed" if pair.before else "added")


def _heard(pair: Pair) -> bool:
    """Whether two turns of a model, which is not asked anything of its own, said the same."""
    assert pair.before
    assert pair.after
    return pair.before.kind == "model" and pair.before.gave == pair.after.gave


@given(trajectories, trajectories)
def test_where_they_part(before: list[Step], after: list[Step]) -> None:
    """Everything before the first divergence is the same on both sides, and there is none exactly where all is."""
    found = align(before, after)
    fits = [pair.fit for pair in found.pairs]
    assert found.diverges_at == next((place for place, fit in enumerate(fits) if fit != "same"), None)


@given(trajectories)
def test_a_trajectory_beside_itself(steps: list[Step]) -> None:
    """A trajectory is the same as itself, step by step."""
    assert [pair.fit for pair in align(steps, steps).pairs] == ["same"] * len(steps)


@given(trajectories, trajectories)
def test_no_alignment_is_better(before: list[Step], after: list[Step]) -> None:
    """No other way to pair the steps scores more, by trying them all."""
    before, after = before[:4], after[:4]
    pairs = [(pair.before, pair.after) for pair in align(before, after).pairs]
    assert _score(pairs) == max(map(_score, _ways(before, after)))


def _ways(before: list[Step], after: list[Step]) -> list[list[tuple[Step | None, Step | None]]]:
    if not before or not after:
        return [[*((step, None) for step in before), *((None, step) for step in after)]]
    return [
        *([(before[0], after[0]), *rest] for rest in _ways(before[1:], after[1:])),
        *([(before[0], None), *rest] for rest in _ways(before[1:], after)),
        *([(None, after[0]), *rest] for rest in _ways(before, after[1:])),
    ]


def _score(pairs: list[tuple[Step | None, Step | None]]) -> int:
    total = 0
    for one, two in pairs:
        if one is None or two is None:
            total -= 1
        elif (one.kind, one.name) != (two.kind, two.name):
            total -= 4
        else:
            asked = (one.gave == two.gave) if one.kind == "model" else (one.asked == two.asked)
            total += 3 if asked else 1
    return total


def test_a_call_more() -> None:
    """A tool that only one side called stands alone, and the steps around it still pair up."""
    find, answer = Step(kind="tool", name="find", asked={"n": 1}, gave="ok"), Step(kind="model", name="turn", gave="hi")
    charges = Step(kind="tool", name="charges", asked={"n": 1}, gave="ok")
    found = align([find, answer], [find, charges, answer])
    assert [(pair.fit, pair.after) for pair in found.pairs] == [("same", find), ("added", charges), ("same", answer)]
    assert found.diverges_at == 1


def test_arguments_and_results() -> None:
    """The order of keys and white space do not count; another argument, result or error is a change."""
    one = Step(kind="tool", name="find", asked={"a": 1, "b": "x  y"}, gave="ok")
    for other, fit in (
        (Step(kind="tool", name="find", asked={"b": "x y", "a": 1}, gave="ok"), "same"),
        (Step(kind="tool", name="find", asked={"a": 2, "b": "x y"}, gave="ok"), "changed"),
        (Step(kind="tool", name="find", asked={"a": 1, "b": "x y"}, gave="no"), "changed"),
        (Step(kind="tool", name="find", asked={"a": 1, "b": "x y"}, gave="ok", error="timeout"), "changed"),
    ):
        assert [pair.fit for pair in align([one], [other]).pairs] == [fit]


def test_long_trajectories() -> None:
    """Steps beyond the bound are left out, and how many is said."""
    step = Step(kind="tool", name="poll", asked=1)
    found = align([step] * (MOST_STEPS + 7), [step])
    assert (len(found.pairs), found.cut) == (MOST_STEPS, 7)
