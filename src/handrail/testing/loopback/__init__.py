"""A provider of language models on 127.0.0.1: real HTTP, the wire formats of OpenAI and Anthropic, and its own bill."""

from .bill import Bill
from .exchange import ReceivedRequest
from .provider import LoopbackProvider
from .replies import (
    Disconnect,
    EndsWithoutFinish,
    Hang,
    HtmlPage,
    HttpError,
    RawBody,
    Reply,
    ReplyToolCall,
    StreamError,
)

__all__ = [
    "Bill",
    "Disconnect",
    "EndsWithoutFinish",
    "Hang",
    "HtmlPage",
    "HttpError",
    "LoopbackProvider",
    "RawBody",
    "ReceivedRequest",
    "Reply",
    "ReplyToolCall",
    "StreamError",
]
