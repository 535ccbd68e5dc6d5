"""Checks of a new case's expectations against those of the eval set's other cases."""

from collections.abc import Mapping
from difflib import get_close_matches

from pydantic import JsonValue

from handrail.kernel.errors import BadInput

from .model import EvalSet


def check_expectations(eval_set: EvalSet, expect: Mapping[str, JsonValue], where: str, example: str) -> None:
    """Checks that every expected field, and its type of value, occurs in some case of the eval set.

    The agent's output has no other fields or types, so no answer could meet such a case.

    Args:
        eval_set: The eval set.
        expect: The expectations of the new case.
        where: The start of an error message.
        example: How a person writes a field, with the placeholders `{name}` and `{value}`.

    Raises:
        BadInput: A field or type is new.
    """
    types: dict[str, set[str]] = {}
    for case in eval_set.cases:
        for name, value in case.expect.items():
            types.setdefault(name, set()).add(_type_name(value))
    for name, value in expect.items():
        if name not in types:
            near = get_close_matches(name, types, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its cases expect {', '.join(sorted(types))}"
            raise BadInput(f"{where}: no case of {eval_set.name} expects {name!r}; {hint}")
        known_types = types[name] - {_type_name(None)}
        if value is not None and known_types and _type_name(value) not in known_types:
            quoted_example = example.format(name=name, value=f'"{value}"')
            quotes = f"; write it in quotes, {quoted_example}" if known_types == {"text"} else ""
            raise BadInput(
                f"{where}: {name} is {_type_name(value)} here but {' or '.join(sorted(known_types))} in the other "
                f"cases of {eval_set.name}, so no answer could match both{quotes}"
            )


def _type_name(value: JsonValue) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return "nothing" if value is None else names.get(type(value), "a mapping")
