"""Checks an output as it is: an instance of one of the output types, and valid down to its last nested object."""

import copy
import functools
from collections.abc import Sequence
from types import NoneType
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_ai.output import OutputContext
from pydantic_core import SchemaValidator

from .checking_schema import STRUCTURED_DICT_ERROR, Node
from .class_check import (
    Check,
    Location,
    check_object,
    check_structured_dicts,
    copied,
    objects_in,
    rewrite_structured_dicts,
    rewrite_type,
)
from .structured_dicts import violation_of

_MAX_SHOWN = 3


class InvalidOutput(ValueError):
    """An output is not of an output type, or not valid. The text names what is wrong and where, but no values."""


def error_text(error: Exception) -> str:
    """What an exception says, without the values that a validation error of Pydantic quotes; they may be secret."""
    return _text_of(error, error.title, ()) if isinstance(error, ValidationError) else str(error)


class OutputCheck:
    """Checks outputs against some types.

    Args:
        types: The output types; an output has to be a valid value of one.
    """

    def __init__(self, types: Sequence[Any]) -> None:
        self._expected = " or ".join(_name_of(one) for one in types)
        self._validators = [SchemaValidator(rewrite_type(_core_schema(one))) for one in types]

    def check(self, output: Any) -> None:
        """Checks `output`, which stays as it is: its own validators run on a copy.

        Args:
            output: What a fallback returned.

        Raises:
            InvalidOutput: It is not an instance of an output type, or it is not valid.
        """
        name = type(output).__name__
        checked = copied(output, copy.deepcopy)
        problem = _mismatch(self._validators, checked, name)
        if problem is None:
            problem = _invalid_object(checked, name)
        if problem is not None:
            raise InvalidOutput(f"expected {self._expected}, got {name}" + (f": {problem}" if problem else ""))


def _mismatch(validators: Sequence[SchemaValidator], output: Any, name: str) -> str | None:
    """What is wrong inside of an output that no type accepts; an empty text if it is of another type altogether."""
    problems = []
    for validator in validators:
        try:
            validator.validate_python(output, strict=True)
        except ValidationError as error:
            if len(validators) == 1 or all(detail["loc"] for detail in error.errors(include_input=False)):
                problems.append(_text_of(error, name, ()))
        else:
            return None
    return "; ".join(problems)


def _invalid_object(output: Any, name: str) -> str | None:
    for value, location in objects_in(output):
        error = _error_of(check_object, value)
        if error is not None:
            return _text_of(error, name, location)
    return None


def structured_dict_violation(context: OutputContext, output: Any) -> str | None:
    """How a model's output violates the JSON schema of a `StructuredDict` in it, which Pydantic AI does not check.

    Args:
        context: What an output hook of Pydantic AI gets.
        output: The validated output, before an output function is called with it.

    Returns:
        A text for the model that names where it is wrong; None if nothing is.
    """
    output_type: Any = context.output_type
    if output_type is None:
        return _violation_of_union(context, output)
    if _has_several_arguments(context, output_type):
        return None
    name = type(output).__name__
    error = _structured_error(_error_of(_structured_check(output_type), output))
    if error is not None:
        return _text_of(error, name, ())
    for value, location in objects_in(output):
        error = _structured_error(_error_of(check_structured_dicts, value))
        if error is not None:
            return _text_of(error, name, location)
    return None


def _violation_of_union(context: OutputContext, output: Any) -> str | None:
    """Native and prompted output of several types: Pydantic AI does not say which one the model chose."""
    if type(output) is not dict or context.object_def is None:
        return None
    schema = context.object_def.json_schema
    members = schema.get("properties", {}).get("result", {}).get("anyOf", ())
    violations = []
    for member in members:
        data = member["properties"]["data"]
        # A type that is no object is wrapped in one with a single property.
        wrapped = list(data.get("properties", {}).values())
        for part in (data, *(wrapped if len(wrapped) == 1 else ())):
            violation = violation_of({"$defs": schema.get("$defs", {}), **part}, output)
            if violation is None:
                return None
            violations.append(violation)
    return violations[0] if violations else None


def _has_several_arguments(context: OutputContext, output_type: Any) -> bool:
    """Whether the output is the arguments of an output function; the context has only the first one's type."""
    if not context.has_function or context.object_def is None:
        return False
    properties = context.object_def.json_schema.get("properties", {})
    own = TypeAdapter(output_type).json_schema().get("properties")
    return len(properties) > 1 and properties.keys() != (own or {}).keys()


@functools.lru_cache(maxsize=256)
def _structured_check(output_type: Any) -> Check:
    validator = SchemaValidator(rewrite_structured_dicts(_core_schema(output_type)))

    def check(value: Any) -> None:
        validator.validate_python(value, strict=True)

    return check


def _error_of(check: Check, value: Any) -> ValidationError | None:
    try:
        check(value)
    except ValidationError as error:
        return error
    return None


def _structured_error(error: ValidationError | None) -> ValidationError | None:
    if error is None:
        return None
    details = error.errors(include_input=False)
    return error if any(detail["type"] == STRUCTURED_DICT_ERROR for detail in details) else None


def _core_schema(output_type: Any) -> Node:
    try:
        return TypeAdapter(output_type).core_schema
    except PydanticSchemaGenerationError:
        return TypeAdapter(output_type, config=ConfigDict(arbitrary_types_allowed=True)).core_schema
    except PydanticUserError:
        # Such as Pydantic AI's Choices of actions: what an action returns is not known.
        return TypeAdapter(Any).core_schema


def _name_of(output_type: Any) -> str:
    if output_type is NoneType:
        return "None"
    return output_type.__name__ if isinstance(output_type, type) else str(output_type)


def _text_of(error: ValidationError, name: str, location: Location) -> str:
    """The first errors, each with where it is, and without the values, which may be secret."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{_path(name, (*location, *detail['loc']))}: {detail['msg']}" for detail in details[:_MAX_SHOWN]]
    return "; ".join(shown) + (f"; and {len(details) - _MAX_SHOWN} more" if len(details) > _MAX_SHOWN else "")


def _path(name: str, location: Location) -> str:
    return name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
