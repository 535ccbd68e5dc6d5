"""HTTP connections that a forked process inherits from its parent, open in the clients of its models.

A request on one of them would reach the provider through the parent's socket: the parent or another child could read
the response in place of its own. Pydantic AI's clients share connections for the whole process and have no function
that gives them up without closing them, which would end the parent's connections too.
"""

import gc
import sys
from collections.abc import Iterator
from typing import Any

_LIBRARIES = ("httpcore", "httpcore2")


def drop_inherited_connections() -> None:
    """Empties every connection pool of HTTPX in a forked process, before its first request; nothing is sent."""
    kinds = {
        kind
        for name in _LIBRARIES
        if name in sys.modules
        for base in ("AsyncConnectionPool", "ConnectionPool")
        for kind in _with_subclasses(getattr(sys.modules[name], base))
    }
    if not kinds:
        return
    # By exact type, since `isinstance` is slow and asks other libraries' proxy objects what they are.
    for pool in [tracked for tracked in gc.get_objects() if type(tracked) in kinds]:
        _empty(pool)


def _with_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


def _empty(pool: Any) -> None:
    pool._connections = []  # noqa: SLF001 - see above
    pool._requests = []  # noqa: SLF001
    # Another thread of the parent may hold it; an asynchronous pool's is empty.
    pool._optional_thread_lock = type(pool._optional_thread_lock)()  # noqa: SLF001
