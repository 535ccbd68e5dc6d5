"""The one retry that a run gets after malformed output, with a stricter instruction.

Agent frameworks reset their retry counters after a success, so they never stop a model that alternates between valid
and malformed output. This one counts over the whole run.
"""

from collections import Counter

from pydantic import ValidationError

MAX_RETRIES = 1
"""Retries after malformed output in one run."""


class MalformedTwice(Exception):
    """The model's output was malformed for the second time in a run; the first time was retried."""


class OneRetry:
    """The one retry of a run.

    Args:
        used: The retries that the run used before it was resumed.
    """

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self._instruction: str | None = None

    def grant(self, check: str, error: Exception) -> None:
        """Grants the retry, with a stricter instruction ready for `take_instruction`.

        Args:
            check: What was checked, such as `validate output`.
            error: Why it was rejected.

        Raises:
            MalformedTwice: The retry is already used.
        """
        if self.used == MAX_RETRIES:
            raise MalformedTwice(f"{check}: {error}") from error
        self.used += 1
        self._instruction = stricter_instruction(check, error)

    def take_instruction(self) -> str | None:
        """Returns the stricter instruction once, for the request that is the retry; None for every other request."""
        instruction, self._instruction = self._instruction, None
        return instruction


def stricter_instruction(check: str, error: Exception) -> str:
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


def _error_kinds(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return ""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    counts = Counter(detail["type"] for detail in details)
    return ": " + ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in sorted(counts.items()))
