"""Scorers of a text: an observed field, or the message that the user reads."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from pydantic import BaseModel

from handrail.evals.scorer import Scorer, ScorerContext, ScoreResult
from handrail.kernel.errors import BadInput

_NOTE_LENGTH = 200


@dataclass(frozen=True)
class Contains:
    """Whether a text contains another. With `text` None, it is what the case expects of the field `of`."""

    text: str | None
    of: str | None
    wanted: bool
    name: str

    def __call__(self, context: ScorerContext) -> bool:
        """Raises BadInput when the case does not expect the field that says what to look for."""
        expect = context.case.expect
        if self.text is None and self.of not in expect:
            raise BadInput(f"scorer {self.name}: case {context.case.id} does not expect {self.of!r}; add the field")
        wanted_text = self.text if self.text is not None else str(expect[str(self.of)])
        text = _text_of(context, self.of)
        return text is not None and (wanted_text in text) == self.wanted


@dataclass(frozen=True)
class Matches:
    """Whether a regular expression is found in a text."""

    pattern: str
    of: str | None
    name: str = "matches"

    def __call__(self, context: ScorerContext) -> bool:
        """Searches the text for the pattern."""
        text = _text_of(context, self.of)
        return text is not None and re.search(self.pattern, text) is not None


@dataclass(frozen=True)
class JsonSchema:
    """Whether a value satisfies a JSON schema, stored as canonical JSON; a text is parsed as JSON first."""

    schema: str
    of: str | None
    name: str = "json_schema"

    def __call__(self, context: ScorerContext) -> ScoreResult:
        """Validates the value; a note has the first violation."""
        value = _text_of(context, None) if self.of is None else context.observed.get(self.of)
        try:
            value = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            return ScoreResult(fields={self.name: False}, notes={self.name: f"not JSON: {error}"})
        schema = json.loads(self.schema)
        validator = jsonschema.validators.validator_for(schema)(schema)
        violation = jsonschema.exceptions.best_match(validator.iter_errors(value))
        if violation is None:
            return ScoreResult(fields={self.name: True})
        note = f"{violation.json_path}: {violation.message}"[:_NOTE_LENGTH]
        return ScoreResult(fields={self.name: False}, notes={self.name: note})


def contains(text: str | None = None, *, of: str | None = None) -> Scorer:
    """Requires a text to contain another.

    Args:
        text: What to look for; when omitted, what the case expects of the field `of`.
        of: The observed field to look in; when omitted, the message that the user reads.

    Returns:
        The scorer.

    Raises:
        BadInput: Neither is given.
    """
    if text is None and of is None:
        raise BadInput('contains: give a text or a field, such as contains("refund") or contains(of="reply")')
    return Contains(text, of, wanted=True, name="contains")


def lacks(text: str, *, of: str | None = None) -> Scorer:
    """Requires a text to be there and not to contain another.

    Args:
        text: What must not occur.
        of: The observed field to look in; when omitted, the message that the user reads.

    Returns:
        The scorer.
    """
    return Contains(text, of, wanted=False, name="lacks")


def matches(pattern: str, *, of: str | None = None) -> Scorer:
    """Requires a regular expression to be found somewhere in a text.

    Args:
        pattern: The regular expression, as `re.search` takes it.
        of: The observed field to search; when omitted, the message that the user reads.

    Returns:
        The scorer.

    Raises:
        BadInput: The pattern is not a valid regular expression.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"matches: {pattern!r} is not a valid regular expression ({error}); correct it") from error
    return Matches(pattern, of)


def json_schema(schema: Mapping[str, Any] | type[BaseModel], *, of: str | None = None) -> Scorer:
    """Requires a value to satisfy a JSON schema.

    Args:
        schema: The schema, or a Pydantic model that stands for its own.
        of: The observed field to validate; when omitted, the message that the user reads, parsed as JSON.

    Returns:
        The scorer.

    Raises:
        BadInput: The schema is not valid.
    """
    content = schema.model_json_schema() if isinstance(schema, type) else dict(schema)
    try:
        jsonschema.validators.validator_for(content).check_schema(content)
    except jsonschema.exceptions.SchemaError as error:
        raise BadInput(f"json_schema: {error.json_path}: {error.message}; correct the schema") from error
    return JsonSchema(json.dumps(content, sort_keys=True), of)


def _text_of(context: ScorerContext, of: str | None) -> str | None:
    """The observed field, or the message that the user reads; None when it is not a text."""
    value = getattr(context.outcome, "message", None) if of is None else context.observed.get(of)
    return value if isinstance(value, str) else None
