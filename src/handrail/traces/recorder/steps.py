"""`step` and `parallel`: spans for plain code inside a run. Outside a run the code runs without them."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import FunctionType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload
from uuid import UUID

from opentelemetry.trace import INVALID_SPAN
from pydantic import BaseModel

from handrail.kernel.errors import BadInput
from handrail.traces.payloads import OPAQUE_ARGUMENTS

from .recorder import LiveSpan, Recorder

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
P = ParamSpec("P")

_current_recorder: ContextVar[Recorder | None] = ContextVar("handrail_recorder", default=None)
_PLAIN = (str, bytes, int, float, Decimal, date, time, timedelta, UUID, Enum, type(None))
_MAX_DEPTH = 8


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Makes steps inside the block spans of `recorder`, in this task and those it starts."""
    previous = _current_recorder.get()
    _current_recorder.set(recorder)
    try:
        yield
    finally:
        # Not reset with a token: an abandoned run may be closed from another context, where the token is invalid.
        if _current_recorder.get() is recorder:
            _current_recorder.set(previous)


class StepSpan:
    """What `step` returns: a context manager (plain or `async`) that is also a decorator.

    Args:
        name: The name of the span.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: AbstractContextManager[LiveSpan] | None = None

    def __enter__(self) -> LiveSpan:
        recorder = _current_recorder.get()
        if recorder is None:
            return LiveSpan(INVALID_SPAN, 0)
        self._span = recorder.span(self._name, {})
        return self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span, self._span = self._span, None
        if span is not None:
            span.__exit__(kind, error, trace)

    async def __aenter__(self) -> LiveSpan:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorates a function, so that each call is a span with its arguments and result.

        Args:
            function: A plain or `async` function. Of its arguments and result only plain data is recorded.

        Returns:
            The function, with the same signature.

        Raises:
            BadInput: It is a generator function, whose work goes on after the call.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise BadInput(f"step {self._name!r}: a generator cannot be decorated; put `with step(...)` inside it")
        signature = inspect.signature(function)
        if inspect.iscoroutinefunction(function):
            return cast(Callable[P, T], _asynchronous(function, self._name, signature))

        @functools.wraps(function)
        def recorded(*args: P.args, **kwargs: P.kwargs) -> T:
            if _current_recorder.get() is None:
                return function(*args, **kwargs)
            with StepSpan(self._name) as span:
                span.payload.update(_recorded_arguments(signature, args, kwargs))
                return _record_result(span, function(*args, **kwargs))

        return recorded


def step(name: str) -> StepSpan:
    """Gives a block of code, or each call of a function, a span in the current run's trace. For example::

        @step("look up orders")
        async def orders(customer: str) -> list[str]: ...

        with step("read the page") as span:
            span.set({"rows": 3})

    As a decorator it records arguments and result in the span, as far as they are plain data. As a context manager
    (`with` or `async with`) it yields the span, on which attributes can be set. Outside a run it does nothing.

    Args:
        name: The name of the span; reports add up steps of the same name, so it should not contain ids.

    Returns:
        The context manager and decorator.

    Raises:
        BadInput: On decorating a generator function; put `with step(...)` inside it instead.
    """
    return StepSpan(name)


@overload
async def parallel(first: Awaitable[T1], /, *, names: Sequence[str] | None = None) -> tuple[T1]: ...
@overload
async def parallel(
    first: Awaitable[T1], second: Awaitable[T2], /, *, names: Sequence[str] | None = None
) -> tuple[T1, T2]: ...
@overload
async def parallel(
    first: Awaitable[T1], second: Awaitable[T2], third: Awaitable[T3], /, *, names: Sequence[str] | None = None
) -> tuple[T1, T2, T3]: ...
@overload
async def parallel(
    first: Awaitable[T1],
    second: Awaitable[T2],
    third: Awaitable[T3],
    fourth: Awaitable[T4],
    /,
    *,
    names: Sequence[str] | None = None,
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def parallel(*work: Awaitable[T], names: Sequence[str] | None = None) -> tuple[T, ...]: ...


async def parallel(*work: Awaitable[Any], names: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Runs awaitables concurrently, each in a step of its own. For example::

        first, second = await parallel(orders("c-17"), tickets("c-17"))

    If one fails, the others are cancelled; its exception is raised once they have all ended. Outside a run the
    awaitables run concurrently without being recorded.

    Args:
        *work: Coroutines, tasks or futures.
        names: The names of the steps, one for each awaitable. Without them a step is named after its function, and a
            call of a function that `step` decorates keeps the name given there.

    Returns:
        The results in the order of the awaitables.

    Raises:
        BadInput: There are more or fewer names than awaitables.
    """
    if names is not None and len(names) != len(work):
        for awaitable in work:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # or Python warns that it was never awaited
        raise BadInput(f"parallel: {len(names)} names for {len(work)} awaitables; give one for each")
    tasks = [
        asyncio.ensure_future(awaitable if names is None and _is_step(awaitable) else _in_step(awaitable, name))
        for awaitable, name in zip(work, names or map(_name_of, work), strict=True)
    ]
    try:
        return tuple(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        # Their spans must end before the span around them does.
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _in_step(work: Awaitable[T], name: str) -> T:
    with StepSpan(name) as span:
        return _record_result(span, await work)


def _asynchronous(function: Callable[..., Any], name: str, signature: inspect.Signature) -> Callable[..., Any]:
    @functools.wraps(function)
    async def recorded(*args: Any, **kwargs: Any) -> Any:
        if _current_recorder.get() is None:
            return await function(*args, **kwargs)
        with StepSpan(name) as span:
            span.payload.update(_recorded_arguments(signature, args, kwargs))
            return _record_result(span, await function(*args, **kwargs))

    return recorded


# Every function that `_asynchronous` returns has this one code object, which identifies its coroutines.
_STEP_CODE = cast(FunctionType, _asynchronous(_in_step, "", inspect.signature(_in_step))).__code__


def _is_step(work: Awaitable[Any]) -> bool:
    return getattr(work, "cr_code", None) is _STEP_CODE


def _name_of(work: Awaitable[Any]) -> str:
    return getattr(work, "__name__", None) or type(work).__name__


def _recorded_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    plain = {name: value for name, value in bound.arguments.items() if _is_plain(value)}
    payload: dict[str, Any] = {"arguments": plain}
    if opaque := [name for name in bound.arguments if name not in plain]:
        payload[OPAQUE_ARGUMENTS] = opaque
    return payload


def _record_result(span: LiveSpan, result: T) -> T:
    if _is_plain(result):
        span.payload["result"] = result
    return result


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is data all the way down, so that its recorded form is complete."""
    if isinstance(value, _PLAIN):
        return True
    if depth == _MAX_DEPTH:
        return False
    if isinstance(value, Mapping):
        return all(_is_plain(item, depth + 1) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, BaseModel):
        return True
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name), depth + 1) for field in fields(value))
    return False
