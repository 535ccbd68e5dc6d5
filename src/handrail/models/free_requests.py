"""Which failed requests cost nothing: those that provably never reached the provider, and those that it turned down.

Any other failed request may have been worked on, in full, and billed: a time-out says nothing about the other side.
"""

from collections.abc import Iterator
from typing import Any

from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model

# Errors of connections that were never made, by class name: HTTPX 1 and 2 and the standard library share the names.
_NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "PoolTimeout", "UnsupportedProtocol"}
)
# Errors of connections that were made, so that the request may have arrived: one of these in a chain of errors, such as
# that of a transport that tried twice, disproves the former.
_MAYBE_SENT = frozenset(
    {
        "CloseError",
        "ConnectionAbortedError",
        "ConnectionResetError",
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "WriteError",
        "WriteTimeout",
    }
)
# 408 and 499 say that somebody stopped waiting, not that nothing was done.
_GAVE_UP = frozenset({408, 499})
_PLAIN_CLIENTS = frozenset({"httpx", "httpx2", "openai", "anthropic", "groq", "pydantic_ai"})
_PLAIN_TRANSPORTS = frozenset({"httpx", "httpx2"})


def is_free(error: BaseException, model: Model) -> bool:
    """Whether a request that ended in `error` provably costs nothing.

    Args:
        error: What the model's client raised.
        model: The model. If its HTTP client is not a plain one, it may have sent the request more than once, and the
            error is about the last attempt only.
    """
    if _may_send_again(model):
        return False
    chain = list(_chain(error))
    answered = next((cause for cause in chain if isinstance(cause, ModelHTTPError)), None)
    if answered is not None:
        return _is_turned_down(answered)
    names = {type(cause).__name__ for cause in chain}
    return bool(names & _NEVER_SENT) and not names & _MAYBE_SENT


def _is_turned_down(error: ModelHTTPError) -> bool:
    """Whether a client error was the answer to the request, and not an event in an answer that began with status 200.

    Pydantic AI gives such an event the status that it would have had before. The clients of OpenAI and Groq raise their
    base class for it, without a response, and Anthropic's a status error with the response that began.
    """
    cause = error.__cause__
    if type(cause).__name__ == "APIError" and not hasattr(cause, "response"):
        return False
    statuses = {error.status_code, getattr(getattr(cause, "response", None), "status_code", error.status_code)}
    return all(400 <= status < 500 and status not in _GAVE_UP for status in statuses)


def _chain(error: BaseException) -> Iterator[BaseException]:
    visited: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        visited.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _may_send_again(model: Model) -> bool:
    """Whether the model has an HTTP client that somebody has extended: with retries, or with a second server."""
    client: Any = getattr(getattr(model, "client", None), "_client", None)
    if client is None:
        return False
    transports = [getattr(client, "_transport", None), *(getattr(client, "_mounts", None) or {}).values()]
    return _package(client) not in _PLAIN_CLIENTS or any(
        _package(transport) not in _PLAIN_TRANSPORTS for transport in transports if transport is not None
    )


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]
