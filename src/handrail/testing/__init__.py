"""Helpers for tests of governed agents: a virtual clock, a store of its own, crashes at any commit, a model provider.

Example::

    clock = VirtualClock()
    with sandbox(tmp_path, model=FunctionModel(script), clock=clock) as runtime:
        outcome = await support.run("Where is my parcel?", user="u-1")
        clock.advance(3600)
"""

from .clock import VirtualClock
from .kill_points import kill_at_commit
from .loopback import (
    Bill,
    Disconnect,
    EndsWithoutFinish,
    Hang,
    HtmlPage,
    HttpError,
    LoopbackProvider,
    RawBody,
    ReceivedRequest,
    Reply,
    ReplyToolCall,
    StreamError,
)
from .sandbox import sandbox

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
    "VirtualClock",
    "kill_at_commit",
    "sandbox",
]
