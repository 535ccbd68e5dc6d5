"""Functions that touch the database: `@operation` makes one return a value that a connection is given to later.

    @operation
    def load_run(conn: Connection, run_id: str, now: datetime) -> RunView: ...

    run = await db.read(load_run(run_id, now))           # around the writer, in a snapshot
    await db.write(settle(hold, used), finish(run_id))   # both or neither
    run = load_run(run_id, now)(conn)                    # inside another operation

On SQLite every write of a process goes through one thread, so what an operation does there keeps all others waiting.
Work that needs no connection (compressing, hashing, building rows and statements) therefore belongs in a plain function
that prepares it and returns the operation of a small private one.
"""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")

Operation = Callable[[Connection], T]
"""SQL on the connection it is given, and nothing else, since it may be run more than once (after a deadlock)."""


def operation(function: Callable[Concatenate[Connection, P], T]) -> Callable[P, Operation[T]]:
    """Makes a function of a connection and other arguments one of the other arguments that returns an operation.

    Args:
        function: Its first parameter is the connection. It may raise: nothing of its call to `write` is stored then.
    """

    @functools.wraps(function)
    def bind(*args: P.args, **kwargs: P.kwargs) -> Operation[T]:
        def run(conn: Connection) -> T:
            return function(conn, *args, **kwargs)

        return run

    return bind
