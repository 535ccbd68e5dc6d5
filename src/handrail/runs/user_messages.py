"""What a run says when it has no answer of the agent's own. Fit for the user: no internals, and what comes next."""

from collections.abc import Mapping
from datetime import datetime

PROPOSED = "This needs a colleague's approval. We have passed it on; nothing has been changed yet."
FAILED = "Something went wrong on our side and we could not answer. Please try again in a few minutes."
ANSWERED = "Your request has been dealt with."

ESCALATED = "A colleague will look at this and get back to you."
UNCERTAIN = "We could not finish this by ourselves. A colleague is checking it and will get back to you."
EXPIRED = "Nobody could decide on this in time. A colleague will look at it and get back to you."

_REFUSED: Mapping[str, str] = {
    "user": "You have reached today's limit for this assistant.",
    "tenant": "This month's limit for this assistant is reached.",
    "run": "This request is more than can be dealt with in one go. Please send a shorter one, or split it.",
    "price": "This assistant is not available at the moment.",
}
_FAILED_BY_CODE: Mapping[str, str] = {
    "input_too_long": "Your message is too long for us to read in one go. Please send a shorter one.",
    "content_filtered": "We cannot answer this message. Please put it differently.",
}


def failed(code: str) -> str:
    """What the user reads when a run failed with the fault `code`."""
    return _FAILED_BY_CODE.get(code, FAILED)


def refused(scope: str, resets_at: datetime | None) -> str:
    """What the user reads when a ceiling stopped a run. Amounts are the operator's: they stand in the refusal."""
    if resets_at is None:
        return _REFUSED[scope]
    return (
        f"{_REFUSED[scope]} It is available again on {resets_at.day} {resets_at:%B %Y at %H:%M} ({resets_at.tzname()})."
    )
