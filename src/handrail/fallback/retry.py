"""Should malformed work be tried again, and what is the model told? Once in a run, more strictly, then never again.

The counters that agent frameworks keep start anew after a success, so a model that alternates good and bad work is
never stopped by them. This one counts the whole run.
"""

from collections import Counter

from pydantic import ValidationError

MAX_RETRIES = 1
"""Second tries for malformed work in one run."""


class MalformedTwice(Exception):
    """Work of the model did not fit its schema for the second time in a run; the first was given another try."""


class OneRetry:
    """What is left of one run's second tries."""

    def __init__(self, used: int = 0) -> None:
        """`used` second tries were spent already, before the run was carried on here."""
        self.used = used
        self._instruction: str | None = None

    def malformed(self, what: str, error: Exception) -> None:
        """Grants the second try, its instruction ready for `take`. Raises MalformedTwice where it is spent."""
        if self.used == MAX_RETRIES:
            raise MalformedTwice(f"{what}: {error}") from error
        self.used += 1
        self._instruction = stricter(what, error)

    def take(self) -> str | None:
        """The stricter instruction for the next request, once; None where that request is no second try."""
        instruction, self._instruction = self._instruction, None
        return instruction


def stricter(what: str, error: Exception) -> str:
    """What the model is told beside its own mistake.

    It stands among the instructions, so it names kinds of mistakes and never repeats what the model or a user wrote,
    not even a field's name: that would lend their words the agent's own authority.
    """
    return (
        f"Your last answer was rejected ({what}{_kinds(error)}); the reasons stand in the message after it. This is "
        "the only second try. Answer again in exactly the form that was asked for: every required field, each of its "
        "type, no other fields, no text around it. Where you do not know a value, use what the form allows for that; "
        "do not make one up."
    )


def _kinds(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return ""
    found = Counter(
        each["type"] for each in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return ": " + ", ".join(kind if times == 1 else f"{times} x {kind}" for kind, times in sorted(found.items()))
