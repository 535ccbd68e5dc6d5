"""Compares two texts word by word, and two trajectories step by step.

Both are bounded: beyond a length that a person would read, the comparison gets coarser or is cut short.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from pydantic_core import to_json

PieceKind = Literal["same", "removed", "added"]
PairKind = Literal["same", "changed", "removed", "added"]

MAX_WORDS = 2_000
"""How many words of each side are compared one by one, not counting a common beginning and end."""
MAX_STEPS = 300
"""How many steps of each trajectory are aligned; further ones are left out and counted."""

# Scores of a pair of steps in an alignment: equal, the same tool with other arguments, different tools; and a gap.
_EQUAL, _SIMILAR, _DIFFERENT, _GAP = 3, 1, -4, -1


@dataclass(frozen=True)
class TextPiece:
    """A part of a text: in both versions, only in the first (`removed`) or only in the second (`added`)."""

    kind: PieceKind
    text: str


@dataclass(frozen=True, kw_only=True)
class TrajectoryStep:
    """One thing an agent did in a trial: a model's turn, a tool call, or another step.

    `input` and `output` are JSON values, `error` the code of the fault that ended the step.
    """

    kind: Literal["model", "tool", "step"]
    name: str
    input: Any = None
    output: Any = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepPair:
    """A step before and its counterpart after; one of them is None where there is no counterpart."""

    kind: PairKind
    before: TrajectoryStep | None
    after: TrajectoryStep | None


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Two trajectories, step by step.

    `diverges_at` is the index of the first pair that is not the same, None when all are. `cut` is how many steps of the
    longer trajectory were left out.
    """

    pairs: tuple[StepPair, ...]
    diverges_at: int | None
    cut: int


def diff_words(before: str, after: str) -> tuple[TextPiece, ...]:
    """Compares two texts word by word; without the added pieces they are `before`, without the removed ones `after`."""
    left, right = _split_words(before), _split_words(after)
    start = _common_length(left, right)
    end = _common_length(left[start:][::-1], right[start:][::-1])
    inner_left, inner_right = left[start : len(left) - end], right[start : len(right) - end]
    pieces = [TextPiece("same", "".join(left[:start]))]
    if max(len(inner_left), len(inner_right)) > MAX_WORDS:
        pieces += [TextPiece("removed", "".join(inner_left)), TextPiece("added", "".join(inner_right))]
    else:
        # With its default autojunk, difflib ignores very frequent words (spaces) when it looks for matching blocks;
        # without it, the time is cubic. It may then report equal parts as replaced, so compare them again.
        for _, i1, i2, j1, j2 in SequenceMatcher(None, inner_left, inner_right).get_opcodes():
            removed, added = "".join(inner_left[i1:i2]), "".join(inner_right[j1:j2])
            if inner_left[i1:i2] == inner_right[j1:j2]:
                pieces.append(TextPiece("same", removed))
            else:
                pieces += [TextPiece("removed", removed), TextPiece("added", added)]
    pieces.append(TextPiece("same", "".join(left[len(left) - end :])))
    return _merge(pieces)


def align_steps(before: Sequence[TrajectoryStep], after: Sequence[TrajectoryStep]) -> Alignment:
    """The best global alignment of two trajectories (Needleman and Wunsch 1970).

    Steps are paired by kind and name, preferably with the same input; a step without a counterpart forms a pair of its
    own. Time and memory grow with the product of the lengths.
    """
    left, right = before[:MAX_STEPS], after[:MAX_STEPS]
    scores = _alignment_scores([_key(step) for step in left], [_key(step) for step in right])
    # Traceback from the last cell: each step goes to the predecessor that gave the cell its score.
    pairs: list[StepPair] = []
    i, j = len(left), len(right)
    while i or j:
        score = scores[i][j]
        if i and j and score == scores[i - 1][j - 1] + _pair_score(_key(left[i - 1]), _key(right[j - 1])):
            i, j = i - 1, j - 1
            pairs.append(StepPair(kind=_pair_kind(left[i], right[j]), before=left[i], after=right[j]))
        elif i and score == scores[i - 1][j] + _GAP:
            i -= 1
            pairs.append(StepPair(kind="removed", before=left[i], after=None))
        else:
            j -= 1
            pairs.append(StepPair(kind="added", before=None, after=right[j]))
    pairs.reverse()
    diverges_at = next((index for index, pair in enumerate(pairs) if pair.kind != "same"), None)
    cut = max(0, max(len(before), len(after)) - MAX_STEPS)
    return Alignment(pairs=tuple(pairs), diverges_at=diverges_at, cut=cut)


def _alignment_scores(left: Sequence[tuple[str, ...]], right: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """`scores[i][j]` is the best score of aligning the first `i` steps of one side with the first `j` of the other."""
    scores = [[j * _GAP for j in range(len(right) + 1)]]
    for i, key in enumerate(left, 1):
        above, row = scores[-1], [i * _GAP]
        for j, other in enumerate(right, 1):
            row.append(max(above[j - 1] + _pair_score(key, other), above[j] + _GAP, row[j - 1] + _GAP))
        scores.append(row)
    return scores


def _pair_score(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    if left[:2] != right[:2]:
        return _DIFFERENT
    return _EQUAL if left == right else _SIMILAR


def _key(step: TrajectoryStep) -> tuple[str, ...]:
    """What two steps are compared by: kind, name and input; of a model's turn, its output."""
    return step.kind, step.name, _canonical(step.output if step.kind == "model" else step.input)


def _pair_kind(before: TrajectoryStep, after: TrajectoryStep) -> PairKind:
    equal = _key(before) == _key(after) and before.error == after.error
    return "same" if equal and _canonical(before.output) == _canonical(after.output) else "changed"


def _canonical(value: Any) -> str:
    """A text in which neither white space nor the order of keys makes a difference."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return to_json(value, fallback=str).decode()


def _split_words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)


def _common_length(left: Sequence[str], right: Sequence[str]) -> int:
    for index, (word, other) in enumerate(zip(left, right, strict=False)):
        if word != other:
            return index
    return min(len(left), len(right))


def _merge(pieces: Sequence[TextPiece]) -> tuple[TextPiece, ...]:
    merged: list[TextPiece] = []
    for piece in pieces:
        if merged and merged[-1].kind == piece.kind:
            merged[-1] = TextPiece(piece.kind, merged[-1].text + piece.text)
        elif piece.text:
            merged.append(piece)
    return tuple(merged)
