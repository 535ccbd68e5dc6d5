"""What a new case may expect: what the set's cases expect already, since an agent is asked for nothing else."""

from collections.abc import Mapping
from difflib import get_close_matches

from pydantic import JsonValue

from handrail.kernel.errors import BadInput

from .model import EvalSet


def check_expectations(loaded: EvalSet, expect: Mapping[str, JsonValue], where: str, written: str) -> None:
    """Raises BadInput, `where` at its head, for a field or a kind of value that no case of the set has.

    `written` is how a field is written there, with `{name}` and `{value}` in their places.

    A case that expects what the agent is never asked for, or a value of another type, could not be met.
    """
    fields: dict[str, set[str]] = {}
    for case in loaded.cases:
        for name, value in case.expect.items():
            fields.setdefault(name, set()).add(_kind(value))
    for name, value in expect.items():
        if name not in fields:
            near = get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"they expect {', '.join(sorted(fields))}"
            raise BadInput(f"{where}: no case of {loaded.name} expects {name!r}; {hint}")
        usual = fields[name] - {_kind(None)}
        if value is not None and usual and _kind(value) not in usual:
            quoted = written.format(name=name, value=f'"{value}"')
            quotes = f"; write it in quotes, {quoted}" if usual == {"text"} else ""
            raise BadInput(
                f"{where}: {name} is {_kind(value)} here, and {' or '.join(sorted(usual))} in the cases of "
                f"{loaded.name}, so no answer could match both{quotes}"
            )


def _kind(value: JsonValue) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return "nothing" if value is None else names.get(type(value), "a mapping")
