"""Tracebacks for logs: where an error was raised and of which type, without messages.

A message may quote secrets or what users and models wrote: Postgres reports the values that violate a constraint, and
Pydantic the input that it rejects. The lines of code that a traceback shows are the program's own.
"""

import errno
import traceback
from collections.abc import Iterator

from pydantic_core import ValidationError

_MAX_PROBLEMS = 20
"""How many of the problems of one validation error are named."""

_CAUSED = "The above error was the direct cause of the following one:"
_DURING = "While the above error was handled, another one occurred:"


def format_traceback(error: BaseException) -> str:
    """The traceback of an error and of the errors that led to it, oldest first, with types in place of messages."""
    return "\n".join(_lines(error))


def describe_error(error: BaseException) -> str:
    """An error's type, with what is safe of its content: a code, or where and how a validation failed."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        places = [f"{_location(problem['loc'])} {problem['type']}" for problem in problems[:_MAX_PROBLEMS]]
        return f"{name}: {'; '.join(places)}"
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None)
    if isinstance(error, OSError):
        code = errno.errorcode.get(error.errno or 0)
    return f"{name} ({code})" if isinstance(code, str) else name


def _lines(error: BaseException) -> Iterator[str]:
    chain = _chain(error)
    for position, (member, is_cause) in enumerate(chain):
        if position:
            yield _CAUSED if is_cause else _DURING
        if member.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            yield from "".join(traceback.format_tb(member.__traceback__)).splitlines()
        yield describe_error(member)
        if isinstance(member, BaseExceptionGroup):
            for part in member.exceptions:
                yield from (f"  | {line}" for line in _lines(part))


def _chain(error: BaseException) -> list[tuple[BaseException, bool]]:
    """The error and what led to it, oldest first, each with whether its predecessor is its explicit cause."""
    newest_first: list[tuple[BaseException, bool]] = []
    known: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in known:
        known.add(id(current))
        newest_first.append((current, current.__cause__ is not None))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return newest_first[::-1]


def _location(parts: tuple[int | str, ...]) -> str:
    # A key that is no field's name comes from the input.
    return ".".join(str(part) if isinstance(part, int) or part.isidentifier() else "?" for part in parts) or "."
