"""Error messages for settings: each uses the name that the author wrote and suggests the nearest valid one.

A message never repeats a value, since any of them may be a secret.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from .settings import ENV_PREFIX, Settings


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a setting is, or that the entries of a table are."""
    candidates = (annotation, *get_args(annotation))
    return next((model for model in candidates if isinstance(model, type) and issubclass(model, BaseModel)), None)


KEYS = sorted(Settings.model_fields.keys() - {"base"})
_TABLES = frozenset(
    key
    for key in KEYS
    for annotation in [Settings.model_fields[key].annotation]
    if get_origin(annotation) is dict or _model_of(annotation) is not None
)


def is_setting(variable: str) -> bool:
    """Whether an environment variable names a setting, or a key inside a setting that is a table."""
    key, *inner = variable.removeprefix(ENV_PREFIX).lower().split("__")
    return key in _TABLES if inner else key in KEYS


def unknown_key(key: str) -> str:
    """The message for a top-level key of the file that is not a setting."""
    return f"{key} is not a setting{_suggest(key, KEYS)}"


def unknown_variable(variable: str) -> str:
    """The message for a HANDRAIL_ environment variable that is not a setting."""
    key = variable.removeprefix(ENV_PREFIX).partition("__")[0]
    return f"{variable} is not a setting{_suggest(key, KEYS, ENV_PREFIX)}"


def not_json(error: SettingsError) -> str:
    """The message for an environment variable that sets a whole table and is not JSON."""
    return f"{ENV_PREFIX}* variables: {str(error).partition(' from source')[0]}, expected JSON"


def invalid_values(
    error: ValidationError, *, arguments: Mapping[str, Any], environment: Mapping[str, Any], file: object | None
) -> list[str]:
    """One message for each invalid value.

    Args:
        error: What validation raised.
        arguments: The settings given as arguments.
        environment: The settings given by environment variables.
        file: The settings file that all other values come from, or None.
    """
    problems = []
    for details in error.errors(include_url=False, include_input=False, include_context=False):
        path = [str(part) for part in details["loc"]]
        if _contains(arguments, path):
            name = f"argument {'.'.join(path)}"
        elif file is None or _contains(environment, path):
            name = ENV_PREFIX + "__".join(path).upper()
        else:
            name = f"{file}: {'.'.join(path)}"
        problems.append(f"{name}: {_describe(details)}")
    return problems


def _describe(details: ErrorDetails) -> str:
    *tables, key = (str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return f"unknown{_suggest(key, _keys_in(tables))}"
        case "path_type":
            return "expected a path"
        case _:
            message = details["msg"].removeprefix("Value error, ")
            return message.replace("Input should be", "expected").replace("Field", "this key is")


def _keys_in(tables: Sequence[str]) -> Sequence[str]:
    """The keys of the table at a path."""
    annotation: Any = Settings
    for table in tables:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif model := _model_of(annotation):
            annotation = model.model_fields[table].annotation
    model = _model_of(annotation)
    return KEYS if model in (Settings, None) else sorted(model.model_fields)


def _suggest(name: str, known: Sequence[str], prefix: str = "") -> str:
    matches = get_close_matches(name.lower(), known, n=2)
    names = [prefix + (key.upper() if prefix else key) for key in matches or known]
    return f"; did you mean {' or '.join(names)}?" if matches else f"; there are {', '.join(names)}"


def _contains(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True
