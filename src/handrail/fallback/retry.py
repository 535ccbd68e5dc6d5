"""The one retry that a run gets after malformed output, with a stricter instruction.

Agent frameworks reset their retry counters after a success, so they never stop a model that alternates between valid
and malformed output. This one counts over the whole run.
"""

from collections import Counter
from dataclasses import dataclass

from pydantic import ValidationError

MAX_RETRIES = 1
"""Retries after malformed output in one run."""


@dataclass(frozen=True)
class Rejection:
    """What was wrong with a response."""

    check: str
    """What was checked, such as `validate output`."""
    error: Exception | None = None
    """Why it was rejected, if an exception says so."""


class MalformedTwice(Exception):
    """The model's output was malformed for the second time in a run; the first time was retried."""


class OneRetry:
    """The one retry of a run, however many mistakes a response has, and whichever agent of the run made it.

    Args:
        used: The retries that the run used before it was resumed.
    """

    def __init__(self, used: int = 0) -> None:
        self.used = used

    def use(self, rejection: Rejection) -> str:
        """Uses the retry for a malformed response that has to be repeated.

        Args:
            rejection: What was wrong with it.

        Returns:
            The stricter instruction for the request that is the retry.

        Raises:
            MalformedTwice: The retry is already used.
        """
        self.check_left(rejection)
        self.used += 1
        return stricter_instruction(rejection.check, rejection.error)

    def check_left(self, rejection: Rejection) -> None:
        """Raises MalformedTwice, with what was wrong, if the retry is already used.

        Args:
            rejection: What was wrong with a response.
        """
        if self.used >= MAX_RETRIES:
            raise MalformedTwice(f"{rejection.check}: {_reason(rejection.error)}") from rejection.error


def stricter_instruction(check: str, error: Exception | None) -> str:
    """The instruction that is added to the request that is the retry.

    The text becomes part of the agent's instructions. It therefore names kinds of errors only and repeats nothing that
    the model or a user wrote, not even a field's name: that would give their words the authority of the agent's own.
    """
    return (
        f"Your last answer was rejected ({check}{_error_kinds(error)}); the reasons stand in the message after it. "
        "This is the only second try. Answer again in exactly the form that was asked for: every required field, each "
        "of its type, no other fields, no text around it. Where you do not know a value, use what the form allows for "
        "that; do not make one up."
    )


def _reason(error: Exception | None) -> str:
    """Why a response was rejected, without the values that it had."""
    if error is None:
        return "the model gave no usable answer"
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'the answer'}: {detail['msg']}" for detail in details)


def _error_kinds(error: Exception | None) -> str:
    if not isinstance(error, ValidationError):
        return ""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    counts = Counter(detail["type"] for detail in details)
    return ": " + ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in sorted(counts.items()))
