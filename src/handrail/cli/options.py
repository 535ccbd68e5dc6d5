"""Options that several commands share, and the values that people type for them."""

import math
from collections.abc import Sequence
from typing import Annotated

import typer
import yaml
from pydantic import JsonValue

from handrail.access.current_user import system_user
from handrail.evals.spec import EVALS_TENANT
from handrail.kernel.errors import BadInput

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Tenant = Annotated[str | None, typer.Option(help=f"Only this tenant; '{EVALS_TENANT}' is the tenant of eval trials.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000, help="The maximum number of rows.")]
By = Annotated[str | None, typer.Option(help="Your name; by default your login name on this machine.")]
Expected = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE", help="A field of the right outcome; can be repeated. Quote a value to keep it text."
    ),
]


def resolve_by(by: str | None) -> str:
    """The name under which a decision, feedback, label or baseline is recorded.

    Args:
        by: The name given with --by, if any.

    Raises:
        BadInput: There is no such name, and the system does not know the user's.
    """
    name = by if by is not None else system_user()
    if name is None:
        raise BadInput("the system does not know your user name; give your name with --by")
    return name


def parse_fields(assignments: Sequence[str]) -> dict[str, JsonValue]:
    """The fields of an expected outcome.

    Args:
        assignments: `FIELD=VALUE` each, with VALUE as a YAML scalar.

    Raises:
        BadInput: One of them is not an assignment, names a field twice, or has a value that is not a scalar.
    """
    fields: dict[str, JsonValue] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not name or not equals or name in fields:
            problem = "names a field twice" if name in fields else "is not FIELD=VALUE"
            raise BadInput(f"--expected {assignment!r} {problem}; write for example --expected refund=true")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            value = ...
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise BadInput(
                f"--expected {name}: {text!r} is not text, a number, true, false or null; put text in quotes"
            )
        fields[name] = value
    return fields
