"""`step` and `parallel`: plain code inside a run gets spans of its own. Outside a run they time nothing.

@step("find orders")
async def orders(customer: str) -> list[str]: ...

first, second = await parallel(orders("c-17"), tickets("c-17"))
"""

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
from handrail.traces.payloads import OPAQUE

from .recorder import LiveSpan, Recorder

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
P = ParamSpec("P")

_current: ContextVar[Recorder | None] = ContextVar("handrail_recorder", default=None)
_PLAIN = (str, bytes, int, float, Decimal, date, time, timedelta, UUID, Enum, type(None))
_DEEPEST = 8


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """In the block, steps are spans of `recorder`, for this task and those it starts."""
    before = _current.get()
    _current.set(recorder)
    try:
        yield
    finally:
        # Not by a token: a run that is left in the middle may be closed from another context.
        if _current.get() is recorder:
            _current.set(before)


class Step:
    """A context manager, plain or `async`, that gives its block a span; or a decorator that gives each call one.

    As a decorator it keeps what the function was given and what it returned, as far as that is plain data.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: AbstractContextManager[LiveSpan] | None = None

    def __enter__(self) -> LiveSpan:
        recorder = _current.get()
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
        """`function` with a step around each call. Raises BadInput for a generator, which goes on after its call."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise BadInput(f"step {self._name!r}: a generator cannot be decorated; put `with step(...)` inside it")
        signature = inspect.signature(function)
        if inspect.iscoroutinefunction(function):
            return cast(Callable[P, T], _asynchronous(function, self._name, signature))

        @functools.wraps(function)
        def timed(*args: P.args, **named: P.kwargs) -> T:
            if _current.get() is None:
                return function(*args, **named)
            with Step(self._name) as span:
                span.payload.update(_given(signature, args, named))
                return _returned(span, function(*args, **named))

        return timed


def step(name: str) -> Step:
    """A span of this name in the current run's trace: `with step("read"):`, or `@step("read")` above a function."""
    return Step(name)


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
    """The results of awaitables that run side by side, in their order, each in a step of its own.

    The first to fail cancels the others; once they have ended, its exception is raised. Without `names`, steps are
    named after the functions, and a call of a function that `step` decorates keeps its own. Raises BadInput where
    there are not as many names as awaitables.
    """
    if names is not None and len(names) != len(work):
        for each in work:
            if inspect.iscoroutine(each):
                each.close()
        raise BadInput(f"parallel: {len(names)} names for {len(work)} awaitables; give one for each")
    tasks = [
        asyncio.ensure_future(each if names is None and _is_step(each) else _named(each, name))
        for each, name in zip(work, names or map(_name_of, work), strict=True)
    ]
    try:
        return tuple(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        # Their spans end before the one that they are in.
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _named(work: Awaitable[T], name: str) -> T:
    with Step(name) as span:
        return _returned(span, await work)


def _asynchronous(function: Callable[..., Any], name: str, signature: inspect.Signature) -> Callable[..., Any]:
    @functools.wraps(function)
    async def timed(*args: Any, **named: Any) -> Any:
        if _current.get() is None:
            return await function(*args, **named)
        with Step(name) as span:
            span.payload.update(_given(signature, args, named))
            return _returned(span, await function(*args, **named))

    return timed


# Every decorated coroutine function is a closure over this one code.
_TIMED = cast(FunctionType, _asynchronous(_named, "", inspect.signature(_named))).__code__


def _is_step(work: Awaitable[Any]) -> bool:
    return getattr(work, "cr_code", None) is _TIMED


def _name_of(work: Awaitable[Any]) -> str:
    return getattr(work, "__name__", None) or type(work).__name__


def _given(signature: inspect.Signature, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    bound = signature.bind(*args, **named)
    bound.apply_defaults()
    plain = {name: value for name, value in bound.arguments.items() if _is_plain(value)}
    found: dict[str, Any] = {"arguments": plain}
    if opaque := [name for name in bound.arguments if name not in plain]:
        found[OPAQUE] = opaque
    return found


def _returned(span: LiveSpan, result: T) -> T:
    if _is_plain(result):
        span.payload["result"] = result
    return result


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is data through and through, so that what is kept of it says all."""
    if isinstance(value, _PLAIN):
        return True
    if depth == _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return all(_is_plain(each, depth + 1) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(each, depth + 1) for each in value)
    if isinstance(value, BaseModel):
        return True
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name), depth + 1) for field in fields(value))
    return False
