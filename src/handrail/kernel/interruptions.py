"""Work that has to be finished, or undone, although the task that does it is interrupted."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

INTERRUPTIONS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
"""What interrupts a task that may still wait for something; after GeneratorExit, of a closed event loop, it may not."""


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Waits for `work` to end, also if the caller is interrupted meanwhile; only then does the interruption go on.

    Args:
        work: What has to be finished.

    Returns:
        Its result. It raises what the work raises.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except INTERRUPTIONS:
        await outwait(task)
        raise


async def outwait(task: "asyncio.Future[Any]") -> None:
    """Waits for a task to end, however often the caller is interrupted meanwhile; the caller is about to stop anyway.

    Args:
        task: The task. What it raises is left in it.
    """
    while not task.done():
        with suppress(*INTERRUPTIONS):
            await asyncio.wait([task])
