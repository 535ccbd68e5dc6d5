"""What a run says when it has no answer of the agent's own. Fit for the user: no internals, and what comes next."""

from collections.abc import Mapping

PROPOSED = "This needs a colleague's approval. We have passed it on; nothing has been changed yet."
FAILED = "Something went wrong on our side and we could not answer. Please try again in a few minutes."
ANSWERED = "Your request has been dealt with."

_FAILED_BY_CODE: Mapping[str, str] = {
    "input_too_long": "Your message is too long for us to read in one go. Please send a shorter one.",
    "content_filtered": "We cannot answer this message. Please put it differently.",
}


def failed(code: str) -> str:
    """What the user reads when a run failed with the fault `code`."""
    return _FAILED_BY_CODE.get(code, FAILED)
