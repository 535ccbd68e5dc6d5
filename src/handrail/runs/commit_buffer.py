"""Buffers operations until a run's next commit.

Nothing waits for settlements, prompt texts and spans to be stored. They are kept here until the run has to write
anyway: before the next model request, or at its end. A commit that fails puts everything back, so that the next one
writes it. If the process dies, what it spent is still covered by a hold in the ledger.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from handrail.kernel.db.database import Database
from handrail.kernel.db.operation import Operation
from handrail.kernel.interruptions import outwait
from handrail.traces.model import Span
from handrail.traces.store.spans import SpanBatch


class CommitBuffer:
    """Collects one run's operations and writes them together, from any thread and event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._start: Callable[[], Operation[Any]] | None = None
        self._pending: list[Operation[Any]] = []
        self._span_writes: list[Operation[Any]] = []

    def open_with(self, start: Callable[[], Operation[Any]]) -> None:
        """Makes the next commit begin with the operation that `start` then returns, which inserts the run's row."""
        self._start = start

    @property
    def opens_run(self) -> bool:
        """Whether the next commit is the one that opens the run."""
        return self._start is not None

    def add(self, op: Operation[Any]) -> None:
        """Keeps `op` for the next commit."""
        with self._lock:
            self._pending.append(op)

    async def commit(self, ops: Sequence[Operation[Any]], spans: Sequence[Span]) -> list[Any]:
        """Writes what is pending, `ops` and `spans` in one transaction.

        Args:
            ops: Operations whose results the caller needs now.
            spans: The spans that have ended since the last commit.

        Returns:
            The results of `ops`, in order.

        Raises:
            StoreError: Nothing was written. What was pending stays pending; the caller has to pass `ops` again.
        """
        with self._lock:
            start, self._start = self._start, None
            pending, self._pending = self._pending, []
            span_writes, self._span_writes = self._span_writes, []
        if spans:
            span_writes.append(SpanBatch(spans))
        earlier_ops = [start(), *pending] if start else pending
        # Spans go last: they touch rollup rows that all runs of a tenant share. If they came before the hold, Postgres
        # could find two runs waiting for each other, one with the shared rows, the other with the tenant's account.
        write = asyncio.ensure_future(self._database.write(*earlier_ops, *ops, *span_writes))
        try:
            results = await asyncio.shield(write)
        except GeneratorExit:
            raise
        except BaseException:
            # If the caller was cancelled, the write still runs, and its result decides what to do: after a success,
            # putting the operations back would settle a request twice; after a failure, dropping them would leave it
            # unsettled.
            await outwait(write)
            if write.exception() is not None:
                with self._lock:
                    self._start = start
                    self._pending = [*pending, *self._pending]
                    self._span_writes = [*span_writes, *self._span_writes]
            raise
        return results[len(earlier_ops) : len(earlier_ops) + len(ops)]
