"""Compares the values of a `pydantic_ai.StructuredDict` with its JSON schema, which Pydantic AI does not do."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema_specifications import REGISTRY
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

_SHOWN = 200


def structured_dict_in(node: Mapping[str, Any]) -> type | None:
    """The `StructuredDict` that a core schema belongs to, if any.

    Its class is private to a function of Pydantic AI. What tells it apart is public: a dictionary that describes itself
    with a JSON schema of its own.
    """
    if node.get("type") != "dict":
        return None
    functions = node.get("metadata", {}).get("pydantic_js_functions", ())
    owners = (getattr(function, "__self__", None) for function in functions)
    return next((owner for owner in owners if isinstance(owner, type) and issubclass(owner, dict)), None)


def schema_violation(structured: type, value: Any) -> str | None:
    """What is wrong with a value of a `StructuredDict`, without the value itself; None if nothing is.

    Args:
        structured: The type that `StructuredDict` returned.
        value: The dictionary.

    Returns:
        For example `$.order.number: violates type "integer"`.
    """
    return violation_of(_json_schema(structured), value)


def violation_of(schema: Mapping[str, Any], value: Any) -> str | None:
    """As `schema_violation`, for a JSON schema."""
    # Without network: a reference to another document is an error, not a download.
    validator = Draft202012Validator(schema, registry=REGISTRY)
    error = best_match(validator.iter_errors(to_jsonable_python(value, fallback=repr)))
    return None if error is None else f"{error.json_path}: {_problem(error)}"


def _problem(error: ValidationError) -> str:
    if error.validator == "required":
        # Names the missing key; other messages quote the value, which may be secret.
        return str(error.message)
    return f"violates {error.validator} {json.dumps(error.validator_value, default=str)[:_SHOWN]}"


@functools.lru_cache(maxsize=256)
def _json_schema(structured: type) -> dict[str, Any]:
    return TypeAdapter(structured).json_schema()
