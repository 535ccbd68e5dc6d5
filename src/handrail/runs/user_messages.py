"""What the user reads if the agent has no answer: what happens next, without internals."""

from collections.abc import Mapping
from datetime import datetime

PROPOSED = "This needs a colleague's approval. We have passed it on, and nothing has been changed yet."
FAILED = "Something went wrong on our side and we could not answer. Please try again in a few minutes."
ANSWERED = "Your request has been processed."
"""For an output that is not text, if `govern` was given no `message`."""

ESCALATED = "A colleague will look at this and get back to you."
UNCERTAIN = "We could not complete this automatically. A colleague is checking it and will get back to you."
EXPIRED = "This was not approved in time. A colleague will look at it and get back to you."

_REFUSED: Mapping[str, str] = {
    "user": "You have reached today's limit for this assistant.",
    "tenant": "This month's limit for this assistant has been reached.",
    "run": "This request is too large to handle at once. Please shorten it, or split it into several.",
    "conversation": "This conversation has become too long to continue. Please start a new one.",
    "price": "This assistant is not available at the moment.",
    "unbounded": "This assistant is not available at the moment.",
}
_FAILED_BY_CODE: Mapping[str, str] = {
    "input_too_long": "Your message is too long. Please send a shorter one.",
    "output_cut": "The answer would have been too long. Please ask for less at once.",
    "output_filtered": "We cannot answer this message. Please rephrase it.",
    "output_refused": "We cannot answer this message. Please rephrase it.",
}


def failed(code: str) -> str:
    """The message of a run that failed with the fault `code`."""
    return _FAILED_BY_CODE.get(code, FAILED)


def refused(scope: str, resets_at: datetime | None) -> str:
    """The message of a run that a ceiling stopped.

    It has no amounts: those are for operators, in the refusal.

    Args:
        scope: Whose ceiling it is, as in `Refusal.scope`.
        resets_at: When it resets, in the time zone to show it in; None if it does not reset.
    """
    if resets_at is None:
        return _REFUSED[scope]
    return (
        f"{_REFUSED[scope]} It is available again on {resets_at.day} {resets_at:%B %Y at %H:%M} ({resets_at.tzname()})."
    )
