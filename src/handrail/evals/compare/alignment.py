"""Two texts word by word, and two trajectories step by step: what is the same, and where they part.

Both are bounded: what is longer than a person reads is compared in larger pieces, and says so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from pydantic_core import to_json

Same = Literal["same", "removed", "added"]
Fit = Literal["same", "changed", "removed", "added"]

MOST_WORDS = 2_000
"""Words on a side, beyond the beginning and the end that both have in common, that are compared one by one."""
MOST_STEPS = 300
"""Steps of a trajectory that are aligned; what comes after them is left out, and counted."""
_SAME, _ALIKE, _OTHER, _GAP = 3, 1, -2, -1


@dataclass(frozen=True)
class Piece:
    """A part of a text: in both, only before (`removed`) or only after (`added`)."""

    kind: Same
    text: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing a trial did: a model's turn, a tool's call, or another step.

    `asked` and `gave` are JSON values, `error` is the fault it ended in.
    """

    kind: Literal["model", "tool", "step"]
    name: str
    asked: Any = None
    gave: Any = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A step beside the one it corresponds to; one of them is None where the other side did nothing of the kind."""

    fit: Fit
    before: Step | None
    after: Step | None


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Two trajectories beside each other. `diverges_at` is the first pair that is not the same, None where all are.

    `cut` is how many steps were left out of the longer side because there were too many.
    """

    pairs: tuple[Pair, ...]
    diverges_at: int | None
    cut: int


def words_apart(before: str, after: str) -> tuple[Piece, ...]:
    """The two texts as one sequence of pieces: those of `before` and of `after`, in order, give each text back."""
    left, right = _words(before), _words(after)
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    inner_left, inner_right = left[start : len(left) - end], right[start : len(right) - end]
    pieces = [Piece("same", "".join(left[:start]))]
    if max(len(inner_left), len(inner_right)) > MOST_WORDS:
        pieces += [Piece("removed", "".join(inner_left)), Piece("added", "".join(inner_right))]
    else:
        # difflib leaves words that are everywhere out of its search for anchors, without which it takes cubic time.
        for _, i1, i2, j1, j2 in SequenceMatcher(None, inner_left, inner_right).get_opcodes():
            if inner_left[i1:i2] == inner_right[j1:j2]:
                pieces.append(Piece("same", "".join(inner_left[i1:i2])))
            else:
                pieces += [Piece("removed", "".join(inner_left[i1:i2])), Piece("added", "".join(inner_right[j1:j2]))]
    pieces.append(Piece("same", "".join(left[len(left) - end :])))
    return _joined(pieces)


def align(before: Sequence[Step], after: Sequence[Step]) -> Alignment:
    """The best global alignment (Needleman and Wunsch, 1970): steps pair up by kind and name, most of all where they
    asked for the same; a step without a counterpart stands alone. Time and memory grow with the product of the lengths.
    """
    left, right = before[:MOST_STEPS], after[:MOST_STEPS]
    scores = _scores([_key(each) for each in left], [_key(each) for each in right])
    pairs: list[Pair] = []
    i, j = len(left), len(right)
    while i or j:
        here = scores[i][j]
        if i and j and here == scores[i - 1][j - 1] + _match(_key(left[i - 1]), _key(right[j - 1])):
            i, j = i - 1, j - 1
            pairs.append(Pair(fit=_fit(left[i], right[j]), before=left[i], after=right[j]))
        elif i and here == scores[i - 1][j] + _GAP:
            i -= 1
            pairs.append(Pair(fit="removed", before=left[i], after=None))
        else:
            j -= 1
            pairs.append(Pair(fit="added", before=None, after=right[j]))
    pairs.reverse()
    apart = next((place for place, pair in enumerate(pairs) if pair.fit != "same"), None)
    return Alignment(pairs=tuple(pairs), diverges_at=apart, cut=max(0, max(len(before), len(after)) - MOST_STEPS))


def _scores(left: Sequence[tuple[str, ...]], right: Sequence[tuple[str, ...]]) -> list[list[int]]:
    scores = [[j * _GAP for j in range(len(right) + 1)]]
    for i, mine in enumerate(left, 1):
        above, row = scores[-1], [i * _GAP]
        for j, theirs in enumerate(right, 1):
            row.append(max(above[j - 1] + _match(mine, theirs), above[j] + _GAP, row[j - 1] + _GAP))
        scores.append(row)
    return scores


def _match(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    if left[:2] != right[:2]:
        return 2 * _OTHER
    return _SAME if left == right else _ALIKE


def _key(step: Step) -> tuple[str, ...]:
    """What makes two steps the same: what they are and what was asked; of a model's turn, what it said."""
    asked = step.gave if step.kind == "model" else step.asked
    return step.kind, step.name, _canonical(asked)


def _fit(before: Step, after: Step) -> Fit:
    alike = _key(before) == _key(after) and before.error == after.error
    return "same" if alike and _canonical(before.gave) == _canonical(after.gave) else "changed"


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return to_json(value, fallback=str).decode()


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    for place, (mine, theirs) in enumerate(zip(left, right, strict=False)):
        if mine != theirs:
            return place
    return min(len(left), len(right))


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].kind == piece.kind:
            joined[-1] = Piece(piece.kind, joined[-1].text + piece.text)
        elif piece.text:
            joined.append(piece)
    return tuple(joined)
