"""Injures a coroutine at one of its awaits: there the process is killed, or the coroutine is cancelled or stopped.

Each await has two points: where the coroutine suspends, and where it is about to go on with what it waited for. The
awaits of the tasks that the coroutine starts count too. The first two points are both before the coroutine's first
step, the last two both after its last.
"""

import asyncio
import gc
import os
import signal
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from itertools import count
from typing import Any, Literal, TypeAlias

Injury: TypeAlias = Literal["kill", "cancel", "timeout", "exit", "stop"]
"""What happens at the point: the process gets SIGKILL; the coroutine's task is cancelled; a timeout around it expires;
the code there raises KeyboardInterrupt or SystemExit, in turns; the event loop is stopped and never goes on."""


class Stopped(Exception):
    """The event loop was stopped before the coroutine ended."""


class InjuredRunner:
    """Runs one coroutine and injures it.

    Args:
        injury: What happens.
        point: Where: two for each await, and 0 and 1 before the coroutine's first step.
    """

    def __init__(self, injury: Injury, point: int) -> None:
        self.reached = False
        """Whether the point was reached."""
        self._injury = injury
        self._point = point
        self._numbers = count()
        self._task: asyncio.Task[Any] | None = None
        self._timeout: asyncio.Timeout | None = None

    def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs the coroutine that `make` returns in an event loop of its own, and returns its result.

        Raises:
            Stopped: The loop was stopped.
            BaseException: What the coroutine raised, or the injury.
        """
        if self._injury == "stop":
            return self._run_until_stopped(make)
        with asyncio.Runner() as runner:
            return runner.run(self._run(make))

    def _run_until_stopped(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        task = loop.create_task(self._run(make))
        task.add_done_callback(lambda _task: loop.stop())
        loop.run_forever()
        if task.done():
            result = task.result()
            loop.close()
            return result
        loop.close()
        self._task = self._timeout = task = None  # type: ignore[assignment]
        gc.collect()
        raise Stopped

    async def _run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        asyncio.get_running_loop().set_task_factory(self._make_task)
        self._task = asyncio.current_task()
        async with asyncio.timeout(None) as self._timeout:
            return await self._stepping(make(), is_main=True)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **options: Any
    ) -> "asyncio.Task[Any]":
        stepped = _as_coroutine(self._stepping(coro, is_main=False))
        return asyncio.Task(stepped, loop=loop, context=context, **options)

    @types.coroutine
    def _stepping(self, coro: Any, is_main: bool) -> Generator[Any, Any, Any]:
        """Runs a coroutine step by step, with a point before and after each wait."""
        error = self._reach_end() if is_main else None
        while True:
            try:
                waited_for = coro.send(None) if error is None else coro.throw(error)
            except StopIteration as stop:
                error = self._reach_end() if is_main else None
                if error is not None:
                    raise error from None
                return stop.value
            number = next(self._numbers)
            error = self._reach(2 * number)
            if error is not None:
                continue
            try:
                yield waited_for
            except BaseException as raised:  # noqa: BLE001 - it is passed on to the coroutine
                error = raised
            if not isinstance(error, GeneratorExit):
                error = self._reach(2 * number + 1, has_result=is_main) or error

    def _reach_end(self) -> BaseException | None:
        number = next(self._numbers)
        return self._reach(2 * number, has_result=True) or self._reach(2 * number + 1, has_result=True)

    def _reach(self, point: int, has_result: bool = False) -> BaseException | None:
        """Injures the coroutine if this is the point; returns what it has to raise there."""
        if point != self._point:
            return None
        self.reached = True
        if has_result and self._injury == "cancel":
            # Nothing is left to cancel but the next step.
            return asyncio.CancelledError()
        return self._injure()

    def _injure(self) -> BaseException | None:
        """Does what can be done from outside, or returns what the code at the point has to raise."""
        assert self._task is not None
        loop = self._task.get_loop()
        match self._injury:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "cancel":
                self._task.cancel()
            case "timeout":
                assert self._timeout is not None
                self._timeout.reschedule(loop.time())
            case "stop":
                loop.stop()
            case "exit":
                # An await has two points.
                return KeyboardInterrupt() if self._point % 4 < 2 else SystemExit(1)
        return None


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
