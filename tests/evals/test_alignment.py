"""The comparison of texts by words and of trajectories by steps."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.compare.alignment import MAX_STEPS, MAX_WORDS, StepPair, TrajectoryStep, align_steps, diff_words

texts = st.text("ab .,\n", max_size=40)
steps = st.builds(
    TrajectoryStep,
    kind=st.sampled_from(["model", "tool"]),
    name=st.sampled_from("xy"),
    input=st.integers(0, 1),
    output=st.none() | st.integers(0, 1),
    error=st.none(),
)
trajectories = st.lists(steps, max_size=6)


def sides(before: str, after: str) -> tuple[str, str]:
    pieces = diff_words(before, after)
    return (
        "".join(piece.text for piece in pieces if piece.kind != "added"),
        "".join(piece.text for piece in pieces if piece.kind != "removed"),
    )


@given(texts, texts)
def test_the_pieces_make_both_texts(before: str, after: str) -> None:
    """Same and removed pieces join to the text before, same and added pieces to the text after."""
    assert sides(before, after) == (before, after)


@given(texts, texts)
def test_pieces(before: str, after: str) -> None:
    """Pieces are not empty, adjacent ones differ in kind, and equal texts are one piece."""
    pieces = diff_words(before, after)
    assert all(piece.text for piece in pieces)
    assert all(one.kind != two.kind for one, two in itertools.pairwise(pieces))
    assert before != after or [piece.kind for piece in pieces] == ["same"] * bool(before)


def test_words() -> None:
    """Only changed words are marked, and whole words at a time."""
    pieces = diff_words("Order 1042 is late, sorry.", "Order 1043 is late.")
    assert [(piece.kind, piece.text) for piece in pieces] == [
        ("same", "Order "),
        ("removed", "1042"),
        ("added", "1043"),
        ("same", " is late"),
        ("removed", ", sorry"),
        ("same", "."),
    ]


def test_long_texts() -> None:
    """In texts that are too long for a word diff, the middle between the common ends is one change."""
    before = "Hello " + "a " * MAX_WORDS + "bye"
    after = "Hello " + "b " * MAX_WORDS + "bye"
    assert [piece.kind for piece in diff_words(before, after)] == ["same", "removed", "added", "same"]
    assert sides(before, after) == (before, after)


@given(trajectories, trajectories)
def test_every_step_occurs_once(before: list[TrajectoryStep], after: list[TrajectoryStep]) -> None:
    """Each side's steps are in the pairs, in order; paired steps have the same kind and name."""
    alignment = align_steps(before, after)
    assert [pair.before for pair in alignment.pairs if pair.before] == before
    assert [pair.after for pair in alignment.pairs if pair.after] == after
    for pair in alignment.pairs:
        if pair.before and pair.after:
            assert (pair.before.kind, pair.before.name) == (pair.after.kind, pair.after.name)
            assert pair.kind == ("same" if pair.before == pair.after or _same_turn(pair) else "changed")
        else:
            assert pair.kind == ("removed" if pair.before else "added")


def _same_turn(pair: StepPair) -> bool:
    """Whether two turns of a model, which have no input of their own, have the same output."""
    assert pair.before
    assert pair.after
    return pair.before.kind == "model" and pair.before.output == pair.after.output


@given(trajectories, trajectories)
def test_where_they_diverge(before: list[TrajectoryStep], after: list[TrajectoryStep]) -> None:
    """Everything before the first divergence is the same, and there is none exactly when all steps are."""
    alignment = align_steps(before, after)
    kinds = [pair.kind for pair in alignment.pairs]
    assert alignment.diverges_at == next((index for index, kind in enumerate(kinds) if kind != "same"), None)


@given(trajectories)
def test_a_trajectory_compared_with_itself(steps: list[TrajectoryStep]) -> None:
    """A trajectory compared with itself has only equal steps."""
    assert [pair.kind for pair in align_steps(steps, steps).pairs] == ["same"] * len(steps)


@given(trajectories, trajectories)
def test_no_alignment_is_better(before: list[TrajectoryStep], after: list[TrajectoryStep]) -> None:
    """Of all possible alignments, none has a higher score."""
    before, after = before[:4], after[:4]
    pairs = [(pair.before, pair.after) for pair in align_steps(before, after).pairs]
    assert _score(pairs) == max(map(_score, _all_alignments(before, after)))


def _all_alignments(
    before: list[TrajectoryStep], after: list[TrajectoryStep]
) -> list[list[tuple[TrajectoryStep | None, TrajectoryStep | None]]]:
    if not before or not after:
        return [[*((step, None) for step in before), *((None, step) for step in after)]]
    return [
        *([(before[0], after[0]), *rest] for rest in _all_alignments(before[1:], after[1:])),
        *([(before[0], None), *rest] for rest in _all_alignments(before[1:], after)),
        *([(None, after[0]), *rest] for rest in _all_alignments(before, after[1:])),
    ]


def _score(pairs: list[tuple[TrajectoryStep | None, TrajectoryStep | None]]) -> int:
    total = 0
    for one, two in pairs:
        if one is None or two is None:
            total -= 1
        elif (one.kind, one.name) != (two.kind, two.name):
            total -= 4
        else:
            equal = (one.output == two.output) if one.kind == "model" else (one.input == two.input)
            total += 3 if equal else 1
    return total


def test_an_additional_call() -> None:
    """A call that only one side made has no counterpart, and the steps around it are still paired."""
    find, answer = (
        TrajectoryStep(kind="tool", name="find", input={"n": 1}, output="ok"),
        TrajectoryStep(kind="model", name="turn", output="hi"),
    )
    charges = TrajectoryStep(kind="tool", name="charges", input={"n": 1}, output="ok")
    alignment = align_steps([find, answer], [find, charges, answer])
    assert [(pair.kind, pair.after) for pair in alignment.pairs] == [
        ("same", find),
        ("added", charges),
        ("same", answer),
    ]
    assert alignment.diverges_at == 1


def test_arguments_and_results() -> None:
    """The order of keys and white space do not matter; another argument, result or error is a change."""
    one = TrajectoryStep(kind="tool", name="find", input={"a": 1, "b": "x  y"}, output="ok")
    for other, kind in (
        (TrajectoryStep(kind="tool", name="find", input={"b": "x y", "a": 1}, output="ok"), "same"),
        (TrajectoryStep(kind="tool", name="find", input={"a": 2, "b": "x y"}, output="ok"), "changed"),
        (TrajectoryStep(kind="tool", name="find", input={"a": 1, "b": "x y"}, output="no"), "changed"),
        (TrajectoryStep(kind="tool", name="find", input={"a": 1, "b": "x y"}, output="ok", error="timeout"), "changed"),
    ):
        assert [pair.kind for pair in align_steps([one], [other]).pairs] == [kind]


def test_long_trajectories() -> None:
    """Steps beyond the maximum are left out and counted."""
    step = TrajectoryStep(kind="tool", name="poll", input=1)
    alignment = align_steps([step] * (MAX_STEPS + 7), [step])
    assert (len(alignment.pairs), alignment.cut) == (MAX_STEPS, 7)
