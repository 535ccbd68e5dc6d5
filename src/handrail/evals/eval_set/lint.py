"""What is wrong with a set before a score is believed: its size, its doubles, its free points, its leaks."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from .model import Case, EvalSet

FEWEST, MOST = 50, 300
"""Below, a set sees large drops only; above, the same work finds more as new kinds of cases than as more of one."""
NEAR = 0.8
"""The share of character 5-grams in common (Jaccard) from which two inputs count as nearly the same."""
LEAKED = 0.8
"""The share of an input's character 8-grams found in one passage of a text from which the text counts as having it."""
_GRAM, _LEAK_GRAM = 5, 8
_SHORTEST_LEAK = 12

_VAGUE = re.compile(
    r"(?i)(an? )?(tests?|unknown|n/?a|none|todo|tbd|misc|various|other|me|us|internal|prod|production|user|customer|"
    r"ticket|support|interview|founder|email|e-mail|slack|chat|synthetic|generated|example)s?\W*"
)

Kind = Literal["size", "duplicate", "near-duplicate", "free", "source", "leak", "constant"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to mend: the cases it is about (none where it is about the set), and what to do."""

    kind: Kind
    cases: tuple[str, ...]
    says: str


def lint_set(
    loaded: EvalSet, *, free: Mapping[str, str] | None = None, texts: Mapping[str, str] | None = None
) -> tuple[Finding, ...]:
    """What there is to mend, in the order of what it costs a score.

    `free` maps the ids of cases that an agent which does nothing passes to what it did instead; `texts` are what the
    agent or its route has seen (prompt, few-shots, training examples) by the name under which a finding shows them.
    """
    return (
        *_size(loaded),
        *_free(free or {}),
        *_doubles(loaded.cases),
        *_leaks(loaded.cases, texts or {}),
        *_constants(loaded.cases),
        *_sources(loaded.cases),
    )


def _size(loaded: EvalSet) -> Iterator[Finding]:
    n = len(loaded.cases)
    if n < FEWEST:
        says = f"{n} cases, and {FEWEST} are the fewest that a gate can work with: one case is {100 / n:.1f} points"
        yield Finding(kind="size", cases=(), says=f"{says}; `handrail eval draw` finds more")
    if n > MOST:
        yield Finding(kind="size", cases=(), says=f"{n} cases, and {MOST} are enough: drop those that are like others")


def _free(free: Mapping[str, str]) -> Iterator[Finding]:
    by_way: dict[str, list[str]] = defaultdict(list)
    for case_id, way in free.items():
        by_way[way].append(case_id)
    for way, cases in by_way.items():
        says = f"passed by an agent that {way}; expect something that only work can give"
        yield Finding(kind="free", cases=tuple(cases), says=says)


def _doubles(cases: Iterable[Case]) -> Iterator[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        same[plain(case.input)].append(case.id)
    for ids in same.values():
        if len(ids) > 1:
            says = "the same input but for case, white space and punctuation; keep one"
            yield Finding(kind="duplicate", cases=tuple(ids), says=says)
    for first, second, share in near_duplicates({ids[0]: text for text, ids in same.items()}):
        says = f"nearly the same input ({100 * share:.0f}% in common); keep one, or make them differ in what matters"
        yield Finding(kind="near-duplicate", cases=(first, second), says=says)


def near_duplicates(texts: Mapping[str, str], threshold: float = NEAR) -> list[tuple[str, str, float]]:
    """The pairs of keys whose texts' sets of character 5-grams have a Jaccard similarity of at least `threshold`.

    Exact, not sampled. Most pairs are never compared: similar sets must share one of their rarest few members
    (prefix filtering; Chaudhuri et al., 2006), so only those that do are.
    """
    grams = {key: _grams(text, _GRAM) for key, text in texts.items()}
    frequency = Counter(gram for found in grams.values() for gram in found)
    seen: dict[str, list[str]] = defaultdict(list)
    pairs = []
    for key in sorted(grams, key=lambda each: len(grams[each])):
        mine = grams[key]
        rarest = sorted(mine, key=lambda gram: (frequency[gram], gram))
        prefix = rarest[: len(mine) - math.ceil(threshold * len(mine)) + 1]
        for other in dict.fromkeys(each for gram in prefix for each in seen[gram]):
            theirs = grams[other]
            if len(theirs) < threshold * len(mine):
                continue
            common = len(mine & theirs)
            share = common / (len(mine) + len(theirs) - common)
            if share >= threshold:
                pairs.append((other, key, share))
        for gram in prefix:
            seen[gram].append(key)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _leaks(cases: Iterable[Case], texts: Mapping[str, str]) -> Iterator[Finding]:
    for name, text in texts.items():
        passage = plain(text)
        places: dict[str, list[int]] = defaultdict(list)
        for at in range(len(passage) - _LEAK_GRAM + 1):
            places[passage[at : at + _LEAK_GRAM]].append(at)
        ids = tuple(case.id for case in cases if has_leaked(plain(case.input), passage, places))
        if ids:
            says = f"{name} has these inputs, so a pass shows memory and not skill; take them out of one of the two"
            yield Finding(kind="leak", cases=ids, says=says)


def has_leaked(asked: str, passage: str, places: Mapping[str, list[int]]) -> bool:
    """Whether an input stands in a text, some of its words changed perhaps; both as `plain` gives them.

    `places` are the starts of each 8-gram of the text. Only what falls into a passage of twice the input's length
    counts, so that a long text does not have everything.
    """
    if len(asked) < _SHORTEST_LEAK:
        return False
    if asked in passage:
        return True
    needed = math.ceil(LEAKED * (len(asked) - _LEAK_GRAM + 1))
    windows: Counter[int] = Counter()
    for gram in _grams(asked, _LEAK_GRAM):
        # Each window overlaps the next by half, so that a passage of the input's length lies whole in one of them.
        windows.update({window for at in places.get(gram, ()) for window in (at // len(asked), at // len(asked) - 1)})
    return max(windows.values(), default=0) >= needed


def _constants(cases: Iterable[Case]) -> Iterator[Finding]:
    values: dict[str, list[JsonValue]] = defaultdict(list)
    for case in cases:
        for name, value in case.expect.items():
            values[name].append(value)
    for name, found in values.items():
        if len(found) > 1 and all(_key(each) == _key(found[0]) for each in found):
            says = f"{name} is {found[0]!r} in every case, so an agent that never looks is right; add others"
            yield Finding(kind="constant", cases=(), says=says)


def _sources(cases: Iterable[Case]) -> Iterator[Finding]:
    vague = tuple(case.id for case in cases if _VAGUE.fullmatch(case.source.strip()))
    if vague:
        says = "a source that nobody can look up; name the run, the ticket, the interview, or who wrote it and why"
        yield Finding(kind="source", cases=vague, says=says)


def plain(text: str) -> str:
    """The text without case, Unicode forms, punctuation and white space's kinds: what is left tells inputs apart."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Marks belong to letters in many scripts, and symbols are all there is of a message of emoji.
    kept = (each if each.isalnum() or unicodedata.category(each)[0] in "MS" else " " for each in folded)
    return " ".join("".join(kept).split())


def _grams(text: str, size: int) -> set[str]:
    return {text[at : at + size] for at in range(len(text) - size + 1)} or {text}


def _key(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"
