"""Operations that wait for a run's next commit are written once, even if that commit fails."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from handrail import Runtime
from handrail.kernel.errors import StoreError
from handrail.kernel.money import NanoUsd
from handrail.runs.commit_buffer import CommitBuffer
from handrail.runs.totals import RunTotals
from handrail.traces.model import Usage


class Log:
    """Operations that record their names."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def op(self, line: str) -> Callable[[Connection], str]:
        def op(_conn: Connection) -> str:
            self.lines.append(line)
            return line

        return op


def failing(_conn: Connection) -> None:
    raise StoreError("no")


async def test_the_order_of_a_commit(runtime: Runtime) -> None:
    """A commit opens the run, writes pending operations and then its own, and returns the results of its own."""
    buffer, log = CommitBuffer(runtime.database), Log()
    buffer.open_with(lambda: log.op("start"))
    buffer.add(log.op("settle"))
    assert buffer.opens_run
    assert await buffer.commit([log.op("hold")], []) == ["hold"]
    assert (log.lines, buffer.opens_run) == (["start", "settle", "hold"], False)


async def test_a_commit_that_fails(runtime: Runtime) -> None:
    """The operations of a failed commit are written by the next one, before later operations."""
    buffer, log = CommitBuffer(runtime.database), Log()
    buffer.open_with(lambda: log.op("start"))
    buffer.add(log.op("settle"))
    with pytest.raises(StoreError):
        await buffer.commit([failing], [])
    buffer.add(log.op("settle the next"))
    log.lines.clear()
    assert await buffer.commit([log.op("hold")], []) == ["hold"]
    assert log.lines == ["start", "settle", "settle the next", "hold"]


async def test_a_commit_whose_caller_is_cancelled(runtime: Runtime) -> None:
    """A write that succeeded although its caller was cancelled is not repeated."""
    buffer, log = CommitBuffer(runtime.database), Log()
    buffer.add(log.op("settle"))
    commit = asyncio.ensure_future(buffer.commit([], []))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await buffer.commit([log.op("outcome")], [])
    assert log.lines == ["settle", "outcome"]


def test_totals() -> None:
    """Totals add up, and each change returns a new object."""
    none = RunTotals()
    used = none.with_request().with_settled(Usage(input=3, output=2, cache_read=1), NanoUsd(7)).with_tool("find")
    refused = used.with_request().without_request()
    expected: dict[str, Any] = {"requests": 1, "cost": NanoUsd(7), "tools": ("find",)}
    assert refused == RunTotals(usage=Usage(input=3, output=2, cache_read=1), **expected)
    assert none == RunTotals()
