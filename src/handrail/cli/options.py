"""What people type: who they are, and fields with their values."""

import getpass
import math
from collections.abc import Sequence
from typing import Annotated

import typer
import yaml
from pydantic import JsonValue

from handrail.kernel.errors import BadInput

By = Annotated[str | None, typer.Option(help="Who does this; the system's user name where it is not given.")]
Should = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=VALUE", help="A field of the right outcome; may be repeated. Quoted text stays text."),
]


def person(by: str | None) -> str:
    """Who does this. Raises BadInput where nobody says."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        raise BadInput("the system does not say who you are; name yourself with --by") from None


def read_fields(given: Sequence[str]) -> dict[str, JsonValue]:
    """`FIELD=VALUE` with VALUE as a YAML scalar. Raises BadInput."""
    found: dict[str, JsonValue] = {}
    for text in given:
        name, equals, written = text.partition("=")
        if not name or not equals or name in found:
            problem = "stands twice" if name in found else "is not FIELD=VALUE"
            raise BadInput(f"--should {text!r} {problem}; write for example --should refund=true")
        try:
            value = yaml.safe_load(written)
        except (yaml.YAMLError, ValueError):
            value = ...
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise BadInput(f"--should {name}: {written!r} is no text, number, true, false or null; put it in quotes")
        found[name] = value
    return found
