"""The scorers that most sets need, each a small value that names itself and can be told from another by its parts.

    Trials(cases=..., observe=..., deps=fresh_desk, scorers=(
        fields(total=close(absolute=0.01), vendor=normalised()),     # the other fields exactly
        contains(of="reply"),
        within(seconds=20, dollars="0.05"),
        world(no_refund_was_made),
    ))

What is compared is what `observe` took of a trial; a field that a case expects and that was not observed never holds.
"""

import json
import math
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from handrail.kernel.errors import BadInput, MissingExtra
from handrail.kernel.money import NanoUsd, nano_usd, show_usd

from .base import Said, Scored, Seen
from .score import ask, name_of, needs_deps, same

_PATH_SHOWN = 200


class Comparison(Protocol):
    """A rule for two single values, neither of them a list or a mapping."""

    def holds(self, expected: Any, found: Any) -> bool: ...


@dataclass(frozen=True)
class Exact:
    """Equal in value and type."""

    def holds(self, expected: Any, found: Any) -> bool:
        return same(found, expected)


@dataclass(frozen=True)
class Normalised:
    """Texts are equal after NFKC, case folding and one blank for any white space; other values exactly.

    With `drop`, the characters of these Unicode categories (first letters, "P" for punctuation) are left out first.
    """

    drop: str = ""

    def holds(self, expected: Any, found: Any) -> bool:
        if isinstance(expected, str) and isinstance(found, str):
            return self.plain(expected) == self.plain(found)
        return same(found, expected)

    def plain(self, text: str) -> str:
        """The text as it is compared. NFKC once more at the end: folding case can undo it."""
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        kept = "".join(each for each in folded if unicodedata.category(each)[0] not in self.drop)
        return " ".join(kept.split())


@dataclass(frozen=True)
class Close:
    """Numbers differ by at most `absolute`, or by `relative` (0.01 is 1%) of the expected one; other values exactly."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, expected: Any, found: Any) -> bool:
        if not (_is_number(expected) and _is_number(found)):
            return same(found, expected)
        if not math.isfinite(found):
            return False
        return bool(abs(found - expected) <= max(self.absolute, self.relative * abs(expected)))


@dataclass(frozen=True)
class Fields:
    """Compares the expected fields; a note on each that fails says where. Itself usable as a rule for one field."""

    rules: tuple[tuple[str, Comparison], ...] = ()
    otherwise: Comparison = Exact()
    only: tuple[str, ...] = ()
    name: str = "fields"

    def __call__(self, seen: Seen) -> Scored:
        rules = dict(self.rules)
        held: dict[str, bool] = {}
        notes: dict[str, str] = {}
        for name, expected in seen.case.expect.items():
            if self.only and name not in self.only:
                continue
            rule = rules.get(name, self.otherwise)
            apart = _apart(name, expected, seen.observed[name], rule) if name in seen.observed else f"{name}: missing"
            held[name] = apart is None
            if apart is not None:
                notes[name] = apart
        return Scored(fields=held, notes=notes)

    def holds(self, expected: Any, found: Any) -> bool:
        return self.otherwise.holds(expected, found)


def exact(*only: str) -> Fields:
    """The expected fields, or `only` these of them, are equal in value and type, inside lists and mappings too."""
    return Fields(only=only, name="exact")


def normalised(*only: str, drop: str = "") -> Fields:
    """As `exact`, but case, white space and Unicode forms of texts do not count; `drop="P"` leaves punctuation out."""
    return Fields(otherwise=Normalised(drop), only=only, name="normalised")


def close(*only: str, absolute: float = 0.0, relative: float = 0.0) -> Fields:
    """As `exact`, but numbers may differ by the larger tolerance. Raises BadInput for none, or one below 0."""
    if not (absolute >= 0 and relative >= 0 and math.isfinite(absolute + relative) and absolute + relative > 0):
        raise BadInput(f"close: absolute={absolute}, relative={relative}; give a tolerance above 0")
    return Fields(otherwise=Close(absolute, relative), only=only, name="close")


def fields(**rules: Comparison) -> Fields:
    """Every expected field by its own rule, `total=close(absolute=0.01)`; those without one exactly.

    For extraction: a verdict has each field apart, and where one is a list or a mapping, the first part that differs.
    """
    return Fields(rules=tuple(sorted(rules.items())))


@dataclass(frozen=True)
class Contains:
    """A text holds another one, or does not. `text` None stands for what the case expects of the field `of`."""

    text: str | None
    of: str | None
    wanted: bool
    name: str

    def __call__(self, seen: Seen) -> bool:
        if self.text is None and self.of not in seen.case.expect:
            raise BadInput(f"scorer {self.name}: case {seen.case.id} expects no field {self.of!r}; give it one")
        needle = self.text if self.text is not None else str(seen.case.expect[str(self.of)])
        found = _text_of(seen, self.of)
        return found is not None and (needle in found) == self.wanted


@dataclass(frozen=True)
class Matches:
    """A regular expression is found in a text."""

    pattern: str
    of: str | None
    name: str = "matches"

    def __call__(self, seen: Seen) -> bool:
        found = _text_of(seen, self.of)
        return found is not None and re.search(self.pattern, found) is not None


def contains(text: str | None = None, *, of: str | None = None) -> Contains:
    """The observed field `of`, or else what the user reads, holds `text`, or else what the case expects of that field.

    Raises BadInput where neither is given.
    """
    if text is None and of is None:
        raise BadInput('contains: it has neither a text nor a field; write contains("refund") or contains(of="reply")')
    return Contains(text, of, wanted=True, name="contains")


def lacks(text: str, *, of: str | None = None) -> Contains:
    """The observed field `of`, or else what the user reads, is there and does not hold `text`."""
    return Contains(text, of, wanted=False, name="lacks")


def matches(pattern: str, *, of: str | None = None) -> Matches:
    """The pattern is found somewhere in the observed field `of`, or else in what the user reads. Raises BadInput."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"matches: {pattern!r} is no regular expression ({error}); correct it") from error
    return Matches(pattern, of)


@dataclass(frozen=True)
class JsonSchema:
    """A value satisfies a JSON schema, kept as its canonical text; a value that is text is read as JSON first."""

    schema: str
    of: str | None
    name: str = "json_schema"

    def __call__(self, seen: Seen) -> Scored:
        jsonschema = _jsonschema()
        found = _text_of(seen, None) if self.of is None else seen.observed.get(self.of)
        try:
            value = json.loads(found) if isinstance(found, str) else found
        except ValueError as error:
            return Scored(fields={self.name: False}, notes={self.name: f"not JSON: {error}"})
        schema = json.loads(self.schema)
        wrong = jsonschema.exceptions.best_match(jsonschema.validators.validator_for(schema)(schema).iter_errors(value))
        if wrong is None:
            return Scored(fields={self.name: True})
        return Scored(fields={self.name: False}, notes={self.name: f"{wrong.json_path}: {wrong.message}"[:_PATH_SHOWN]})


def json_schema(schema: Mapping[str, Any] | type[BaseModel], *, of: str | None = None) -> JsonSchema:
    """The observed field `of`, or else what the user reads, is JSON of that schema (or of that model's).

    Raises BadInput for what is no schema, and MissingExtra without the `evals` extra.
    """
    jsonschema = _jsonschema()
    written = schema.model_json_schema() if isinstance(schema, type) else dict(schema)
    try:
        jsonschema.validators.validator_for(written).check_schema(written)
    except jsonschema.exceptions.SchemaError as error:
        raise BadInput(f"json_schema: {error.json_path}: {error.message}; correct the schema") from error
    return JsonSchema(json.dumps(written, sort_keys=True), of)


@dataclass(frozen=True)
class Within:
    """The trial took no longer, and cost no more; the fields are `latency` and `cost`."""

    nanoseconds: int | None
    cost: NanoUsd | None
    name: str = "within"

    def __call__(self, seen: Seen) -> Scored:
        held: dict[str, bool] = {}
        notes: dict[str, str] = {}
        if self.nanoseconds is not None:
            held["latency"] = seen.duration_ns <= self.nanoseconds
            notes["latency"] = f"{seen.duration_ns / 1e9:.3f} s of {self.nanoseconds / 1e9:g} s"
        if self.cost is not None:
            held["cost"] = seen.cost <= self.cost
            notes["cost"] = f"{show_usd(seen.cost)} of {show_usd(self.cost)}"
        return Scored(fields=held, notes={name: note for name, note in notes.items() if not held[name]})


def within(*, seconds: float | None = None, dollars: str | Decimal | None = None) -> Within:
    """A limit on a trial's time, on its cost, or both. Raises BadInput where neither is given or one is no amount."""
    if seconds is None and dollars is None:
        raise BadInput('within: give seconds=20, dollars="0.05", or both')
    try:
        cost = None if dollars is None else nano_usd(Decimal(dollars))
    except InvalidOperation as error:
        raise BadInput(f'within: dollars={dollars!r} is no amount; write it as "0.05"') from error
    if (seconds is not None and not 0 <= seconds < math.inf) or (cost is not None and cost < 0):
        raise BadInput(f"within: seconds={seconds}, dollars={dollars}; a limit is not negative")
    return Within(None if seconds is None else round(seconds * 1e9), cost)


@dataclass(frozen=True)
class World:
    """Looks at the trial's deps once its run has ended."""

    needs_deps: ClassVar[bool] = True
    check: Callable[..., Said | Awaitable[Said]]
    name: str

    def __call__(self, seen: Seen) -> Said | Awaitable[Said]:
        if seen.deps is None:
            return Scored(fields={self.name: False}, notes={self.name: "the run ended before it had deps"})
        return self.check(seen.deps, seen.case)


def world(check: Callable[..., Said | Awaitable[Said]], *, name: str | None = None) -> World:
    """The end of it all: `check(deps, case)` says whether the world is as it should be, whatever was said on the way.

    The world is what the set's `deps` made for this one trial, so that no trial sees what another one did.
    """
    return World(check, name or name_of(check))


@dataclass(frozen=True)
class Held:
    """Another scorer, its scores against another threshold, or as grades where there is none."""

    scorer: Any
    threshold: float | None

    @property
    def name(self) -> str:
        return name_of(self.scorer)

    @property
    def needs_deps(self) -> bool:
        return needs_deps(self.scorer)

    async def __call__(self, seen: Seen) -> Scored:
        return replace(await ask(self.scorer, seen), threshold=self.threshold)


def at_least(threshold: float, scorer: Any) -> Held:
    """`scorer`, whose scores pass from `threshold` on. Raises BadInput for one that does not lie in 0 to 1."""
    if not 0 <= threshold <= 1:
        raise BadInput(f"at_least: {threshold} does not lie in 0 to 1, as scores do")
    return Held(scorer, threshold)


def graded(scorer: Any) -> Held:
    """`scorer`, whose scores count as they are: a trial's value is their mean, and not only 0 or 1."""
    return Held(scorer, None)


def _apart(where: str, expected: Any, found: Any, rule: Comparison) -> str | None:
    """The first place at which two values differ, and how; None where they do not."""
    alike = type(expected) is type(found)
    if alike and isinstance(expected, dict):
        if expected.keys() != found.keys():
            names = sorted(map(str, expected.keys() ^ found.keys()))
            return f"{where}: only one side has {', '.join(names)}"[:_PATH_SHOWN]
        parts = ((f"{where}.{key}", expected[key], found[key]) for key in expected)
    elif alike and isinstance(expected, list):
        if len(expected) != len(found):
            return f"{where}: {len(expected)} expected, {len(found)} found"
        parts = ((f"{where}[{n}]", *pair) for n, pair in enumerate(zip(expected, found, strict=True)))
    else:
        return None if rule.holds(expected, found) else f"{where}: {expected!r} expected, {found!r} found"[:_PATH_SHOWN]
    return next((apart for part in parts if (apart := _apart(*part, rule)) is not None), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _text_of(seen: Seen, of: str | None) -> str | None:
    """The observed field's text, or what the user reads; None where it is no text."""
    found = getattr(seen.outcome, "message", None) if of is None else seen.observed.get(of)
    return found if isinstance(found, str) else None


def _jsonschema() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise MissingExtra("the json_schema scorer", "evals") from error
    return jsonschema
