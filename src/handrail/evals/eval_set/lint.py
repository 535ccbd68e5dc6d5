"""What weakens an eval set: too few cases, duplicates, cases that require no work, inputs that the agent knows."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from .model import Case, EvalSet

MIN_CASES, MAX_CASES = 50, 300
"""With fewer cases, only large drops can be detected; with more, new kinds of cases help more than further ones."""
NEAR_DUPLICATE = 0.8
"""The Jaccard similarity of character 5-grams from which two inputs count as near duplicates."""
LEAKED = 0.8
"""The share of an input's character 8-grams in one passage of a text from which the text counts as containing it."""
_GRAM, _LEAK_GRAM = 5, 8
_MIN_LEAK_LENGTH = 12

_VAGUE = re.compile(
    r"(?i)(an? )?(tests?|unknown|n/?a|none|todo|tbd|misc|various|other|me|us|internal|prod|production|user|customer|"
    r"ticket|support|interview|founder|email|e-mail|slack|chat|synthetic|generated|example)s?\W*"
)

LintKind = Literal["size", "duplicate", "near-duplicate", "noop", "source", "leak", "constant"]


@dataclass(frozen=True, kw_only=True)
class LintIssue:
    """One thing to improve: the cases it concerns (none when it concerns the whole eval set), and what to do."""

    kind: LintKind
    cases: tuple[str, ...]
    message: str


def lint_eval_set(
    eval_set: EvalSet, *, noop_passes: Mapping[str, str] | None = None, texts: Mapping[str, str] | None = None
) -> tuple[LintIssue, ...]:
    """Finds what weakens an eval set, in the order of how much it distorts a score.

    Args:
        eval_set: The eval set.
        noop_passes: The ids of cases that an agent which does nothing passes, each with how it passes.
        texts: Texts that the agent or its route already knows (prompt, examples, training data), by the name that an
            issue gives them.
    """
    return (
        *_check_size(eval_set),
        *_check_noop_passes(noop_passes or {}),
        *_check_duplicates(eval_set.cases),
        *_check_leaks(eval_set.cases, texts or {}),
        *_check_constants(eval_set.cases),
        *_check_sources(eval_set.cases),
    )


def _check_size(eval_set: EvalSet) -> Iterator[LintIssue]:
    n = len(eval_set.cases)
    if n < MIN_CASES:
        message = f"{n} cases, and a gate needs at least {MIN_CASES}: each case is {100 / n:.1f} points"
        yield LintIssue(kind="size", cases=(), message=f"{message}; `handrail eval sample` finds more")
    if n > MAX_CASES:
        message = f"{n} cases, and {MAX_CASES} are enough: remove those that resemble others"
        yield LintIssue(kind="size", cases=(), message=message)


def _check_noop_passes(noop_passes: Mapping[str, str]) -> Iterator[LintIssue]:
    by_behaviour: dict[str, list[str]] = defaultdict(list)
    for case_id, behaviour in noop_passes.items():
        by_behaviour[behaviour].append(case_id)
    for behaviour, cases in by_behaviour.items():
        message = f"passed by an agent that {behaviour}; expect something that requires work"
        yield LintIssue(kind="noop", cases=tuple(cases), message=message)


def _check_duplicates(cases: Iterable[Case]) -> Iterator[LintIssue]:
    by_text: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        by_text[normalise_input(case.input)].append(case.id)
    for ids in by_text.values():
        if len(ids) > 1:
            message = "the same input except for case, white space and punctuation; keep one"
            yield LintIssue(kind="duplicate", cases=tuple(ids), message=message)
    for first, second, similarity in near_duplicates({ids[0]: text for text, ids in by_text.items()}):
        message = f"nearly the same input ({100 * similarity:.0f}% similar); keep one, or make the difference matter"
        yield LintIssue(kind="near-duplicate", cases=(first, second), message=message)


def near_duplicates(texts: Mapping[str, str], threshold: float = NEAR_DUPLICATE) -> list[tuple[str, str, float]]:
    """The pairs of keys whose texts' sets of character 5-grams have a Jaccard similarity of at least `threshold`.

    The result is exact, although most pairs are never compared. If each set is sorted by how rare its members are
    overall, two similar sets must share a member among the first few (prefix filtering; Chaudhuri et al. 2006), so only
    pairs that do are compared.

    Args:
        texts: The texts by key.
        threshold: From 0 to 1.

    Returns:
        (key, other key, similarity), the most similar first.
    """
    grams = {key: _grams(text, _GRAM) for key, text in texts.items()}
    frequency = Counter(gram for members in grams.values() for gram in members)
    indexed: dict[str, list[str]] = defaultdict(list)
    pairs = []
    # From the smallest set, so that every candidate has been indexed and is at most as large as the current set.
    for key in sorted(grams, key=lambda key: len(grams[key])):
        current = grams[key]
        rarest_first = sorted(current, key=lambda gram: (frequency[gram], gram))
        prefix = rarest_first[: len(current) - math.ceil(threshold * len(current)) + 1]
        for candidate in dict.fromkeys(other for gram in prefix for other in indexed[gram]):
            other_grams = grams[candidate]
            if len(other_grams) < threshold * len(current):
                continue
            common = len(current & other_grams)
            similarity = common / (len(current) + len(other_grams) - common)
            if similarity >= threshold:
                pairs.append((candidate, key, similarity))
        for gram in prefix:
            indexed[gram].append(key)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _check_leaks(cases: Iterable[Case], texts: Mapping[str, str]) -> Iterator[LintIssue]:
    for name, text in texts.items():
        passage = normalise_input(text)
        positions: dict[str, list[int]] = defaultdict(list)
        for at in range(len(passage) - _LEAK_GRAM + 1):
            positions[passage[at : at + _LEAK_GRAM]].append(at)
        ids = tuple(case.id for case in cases if has_leaked(normalise_input(case.input), passage, positions))
        if ids:
            message = f"{name} contains these inputs, so passing them shows memory, not skill; remove them from one"
            yield LintIssue(kind="leak", cases=ids, message=message)


def has_leaked(case_input: str, text: str, positions: Mapping[str, list[int]]) -> bool:
    """Whether an input occurs in a text, even if a few of its words differ.

    Only 8-grams within one passage of twice the input's length count together, since a long text contains most 8-grams
    of anything somewhere.

    Args:
        case_input: The input, normalised by `normalise_input`.
        text: The text, normalised too.
        positions: The start positions of each 8-gram in the text.
    """
    length = len(case_input)
    if length < _MIN_LEAK_LENGTH:
        return False
    if case_input in text:
        return True
    needed = math.ceil(LEAKED * (length - _LEAK_GRAM + 1))
    windows: Counter[int] = Counter()
    for gram in _grams(case_input, _LEAK_GRAM):
        # Windows overlap by half, so any passage of the input's length lies within one of them.
        windows.update({window for at in positions.get(gram, ()) for window in (at // length, at // length - 1)})
    return max(windows.values(), default=0) >= needed


def _check_constants(cases: Iterable[Case]) -> Iterator[LintIssue]:
    values_by_field: dict[str, list[JsonValue]] = defaultdict(list)
    for case in cases:
        for name, value in case.expect.items():
            values_by_field[name].append(value)
    for name, values in values_by_field.items():
        if len(values) > 1 and all(_typed_repr(value) == _typed_repr(values[0]) for value in values):
            message = f"{name} is {values[0]!r} in every case, so an agent can guess it; add cases with other values"
            yield LintIssue(kind="constant", cases=(), message=message)


def _check_sources(cases: Iterable[Case]) -> Iterator[LintIssue]:
    vague = tuple(case.id for case in cases if _VAGUE.fullmatch(case.source.strip()))
    if vague:
        message = "a source that cannot be looked up; name the run, the ticket, the interview, or who wrote it and why"
        yield LintIssue(kind="source", cases=vague, message=message)


def normalise_input(text: str) -> str:
    """The text without differences of case, Unicode form, punctuation and white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Combining marks are part of letters in many scripts, and a message of emoji consists of symbols only.
    kept = (char if char.isalnum() or unicodedata.category(char)[0] in "MS" else " " for char in folded)
    return " ".join("".join(kept).split())


def _grams(text: str, size: int) -> set[str]:
    return {text[at : at + size] for at in range(len(text) - size + 1)} or {text}


def _typed_repr(value: Any) -> str:
    # True, 1 and 1.0 are equal but not the same expectation.
    return f"{type(value).__name__} {value!r}"
