"""Ends a process right before or right after one of its commits, as a power cut would."""

import itertools
import os
import signal
from typing import Any

from sqlalchemy import event

from handrail.runs.runtime import Runtime


def kill_at_commit(runtime: Runtime, kill_point: int) -> None:
    """Makes this process kill itself with SIGKILL at a commit to the store, to test what a crash leaves behind.

    Run the code under test in a process of its own, with kill point 0, 1, 2 and so on until it survives.

    Args:
        runtime: The runtime whose commits count.
        kill_point: Two for each commit: 0 is right before the first, 1 right after it, 2 right before the second.
    """
    engine, counter = runtime.database._engine, itertools.count()  # noqa: SLF001
    committing = False

    def before_commit(*_: Any) -> None:
        nonlocal committing
        if next(counter) == kill_point:
            os.kill(os.getpid(), signal.SIGKILL)
        committing = True

    def after_commit(*_: Any) -> None:
        nonlocal committing
        if committing and next(counter) == kill_point:
            os.kill(os.getpid(), signal.SIGKILL)
        committing = False

    def before_statement(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement == "COMMIT":
            before_commit()

    if engine.dialect.name == "sqlite":
        # Transactions are opened and committed by hand there, and SQLAlchemy's own event does not fire.
        event.listen(engine, "before_cursor_execute", before_statement)
    else:
        event.listen(engine, "commit", before_commit)
    # There is no event right after a commit; the connection goes back to the pool next.
    event.listen(engine, "checkin", after_commit)
