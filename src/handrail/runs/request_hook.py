"""Governs every model request that is sent while a run is under way, whoever sends it.

A capability sees only the requests of the agent that it is attached to. It does not see the legs of a `FallbackModel`,
the attempts of a wrapper that tries again, agents inside tools, or code that calls a model itself. So each concrete
Pydantic AI model class is hooked, where the requests of all of these end: inside a run, a request is held, sent,
settled and traced; outside of runs, the hook changes nothing. Agents that run inside a run are hooked too, for their
tools. Why the class and not each object: docs/decisions/0011-the-model-class-is-hooked.md.

Calls that do not pass through a Pydantic AI model, such as a provider's own client in a tool, are out of reach.
"""

import functools
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.capabilities.abstract import leaf_capabilities
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from handrail.kernel.forks import begin_anew_when_forked

from .agent_loop import AgentLoop
from .held_call import ModelCall
from .model_call import model_call
from .provider_errors import as_provider_error, check_parts, watch_stream
from .record import RunRecord
from .request_hold import refuse_unbounded

_HOOKED = "__handrail_hooked__"


@dataclass(frozen=True)
class _Sender:
    """Who sends requests at the moment."""

    record: RunRecord
    loop: AgentLoop | None
    call: ModelCall | None = None
    """The request under way, in which the model may make others."""
    depth: int = 0
    """How many requests deep the code is within it."""


class _Installation:
    """Hooks the model classes that exist, those defined later, `Agent.iter` and thread pools, once in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_done = False
        begin_anew_when_forked(self)

    def begin_anew(self) -> None:
        """Replaces the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Hooks what is not hooked yet."""
        with self._lock:
            if self._is_done:
                return
            define = Model.__dict__["__init_subclass__"].__func__

            def define_and_hook(cls: type[Model], /, **options: Any) -> None:
                define(cls, **options)
                _hook_class(cls)

            Model.__init_subclass__ = classmethod(define_and_hook)  # type: ignore[assignment, method-assign]
            for model_class in list(_subclasses(Model)):
                _hook_class(model_class)
            for owner, name, hook in ((Agent, "iter", _hook_iter), (ThreadPoolExecutor, "submit", _hook_submit)):
                setattr(owner, name, hook(getattr(owner, name)))
            self._is_done = True


_installation = _Installation()
_sender: ContextVar[_Sender | None] = ContextVar("handrail_sender", default=None)


@contextmanager
def sending(record: RunRecord, loop: AgentLoop | None = None) -> Iterator[None]:
    """Governs the model requests that the block sends, in this task and in those that it starts.

    Args:
        record: The record of the run that pays for them.
        loop: The agent's loop that sends them; None if code other than an agent does.
    """
    _installation.ensure()
    with _as_sender(_Sender(record, loop)):
        yield


@contextmanager
def _as_sender(sender: _Sender) -> Iterator[None]:
    previous = _sender.get()
    _sender.set(sender)
    try:
        yield
    finally:
        # Not reset with a token: an abandoned stream is closed from another context, where the token is invalid.
        if _sender.get() is sender:
            _sender.set(previous)


def _subclasses(cls: type[Any]) -> Iterator[type[Model]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _hook_class(cls: type[Model]) -> None:
    """Hooks the methods with which a class itself sends requests.

    Wrappers have others send them. So do those of Pydantic AI's own classes that extend another one with `request`.
    """
    extends = any("request" in base.__dict__ for base in cls.__mro__[1:] if base is not Model)
    if issubclass(cls, WrapperModel | FallbackModel) or (extends and cls.__module__.startswith("pydantic_ai.models.")):
        return
    hooks: dict[str, Callable[[Any], Any]] = {
        "request": _hook_request,
        "request_stream": _hook_stream,
        "compact_messages": functools.partial(_hook_unbounded, "compaction at the provider"),
        "batch_create": functools.partial(_hook_unbounded, "a batch of requests"),
    }
    for name, hook in hooks.items():
        method = cls.__dict__.get(name)
        if callable(method) and not hasattr(method, _HOOKED):
            hooked = hook(method)
            setattr(hooked, _HOOKED, True)
            setattr(cls, name, hooked)


def _is_inner(agent: Agent[Any, Any], capabilities: Sequence[AbstractCapability[Any]]) -> bool:
    """Whether an agent that starts is part of the run: one with a run of its own brings its governance with it."""
    from .capability import LoopGovernance  # imports this module
    from .governance import Governance

    everywhere = [*leaf_capabilities(agent._root_capability), *capabilities]  # noqa: SLF001
    return not any(isinstance(capability, LoopGovernance | Governance) for capability in everywhere)


def _inner_sender(
    sender: _Sender,
    model: Model,
    messages: list[ModelMessage],
    settings: ModelSettings,
    parameters: ModelRequestParameters,
) -> _Sender | None:
    """The sender within a request that the one under way covers; None if the request needs a hold of its own."""
    depth = sender.depth + 1
    if sender.call is None or not sender.call.covers(depth, model, messages, settings, parameters):
        return None
    return replace(sender, depth=depth)


@contextmanager
def _noted(inner: _Sender) -> Iterator[list[ModelResponse]]:
    """Notes how a covered request ends: with the response that the block adds to the list, else with its exception."""
    results: list[ModelResponse] = []
    call = inner.call
    assert call is not None
    try:
        yield results
    except BaseException as error:
        call.note_result(inner.depth, results[0] if results else error)
        raise
    call.note_result(inner.depth, results[0])


def _hook_request(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def request(
        self: Model,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        sender = _sender.get()
        if sender is None:
            response: ModelResponse = await method(self, messages, model_settings, model_request_parameters)
            return response
        settings = model_settings or {}
        inner = _inner_sender(sender, self, messages, settings, model_request_parameters)
        if inner is not None:
            with _as_sender(inner), _noted(inner) as results:
                response = await method(self, messages, model_settings, model_request_parameters)
                results.append(response)
            return response
        async with model_call(sender.record, sender.loop, self, messages, settings, model_request_parameters) as call:
            with _as_sender(replace(sender, call=call, depth=0)), as_provider_error(self):
                response = await method(self, messages, call.settings, model_request_parameters)
                call.settlement.settle_response(response)
                check_parts(response.parts)
        return response

    return request


def _hook_stream(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    @asynccontextmanager
    async def request_stream(
        self: Model,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        sender = _sender.get()
        if sender is None:
            async with method(self, messages, model_settings, model_request_parameters, run_context) as stream:
                yield stream
            return
        settings = model_settings or {}
        inner = _inner_sender(sender, self, messages, settings, model_request_parameters)
        if inner is not None:
            opened = method(self, messages, model_settings, model_request_parameters, run_context)
            async with AsyncExitStack() as stack:
                results = stack.enter_context(_noted(inner))
                with _as_sender(inner):
                    stream = await stack.enter_async_context(opened)
                try:
                    yield stream
                finally:
                    results.append(stream.get())
            return
        async with model_call(sender.record, sender.loop, self, messages, settings, model_request_parameters) as call:
            opened = method(self, messages, call.settings, model_request_parameters, run_context)
            with _as_sender(replace(sender, call=call, depth=0)), as_provider_error(self):
                stream = await opened.__aenter__()
            finishes = watch_stream(stream, self)
            if sender.loop is not None:
                sender.loop.finishes = finishes
            try:
                yield stream
            except BaseException as error:
                call.settlement.settle_partial(stream.get())
                await opened.__aexit__(type(error), error, error.__traceback__)
                raise
            call.settlement.settle_stream(stream.get())
            await opened.__aexit__(None, None, None)

    return request_stream


def _hook_unbounded(what: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: Model, *args: Any, **options: Any) -> Any:
        sender = _sender.get()
        if sender is not None:
            refuse_unbounded(sender.record, what)
        return await method(self, *args, **options)

    return call


def _hook_iter(method: Callable[..., Any]) -> Callable[..., Any]:
    """Attaches the run's rules to an agent that runs inside the run, and has no run of its own."""

    @functools.wraps(method)
    def iterate(self: Agent[Any, Any], *args: Any, **options: Any) -> Any:
        sender = _sender.get()
        capabilities: Sequence[AbstractCapability[Any]] = options.get("capabilities") or ()
        if sender is not None and _is_inner(self, capabilities):
            from .inner_agent import InnerGovernance  # imports this module

            options["capabilities"] = [InnerGovernance(sender.record, self.name or "an agent"), *capabilities]
        return method(self, *args, **options)

    return iterate


def _hook_submit(method: Callable[..., Any]) -> Callable[..., Any]:
    """Takes a run's context along into the threads of a pool, which `asyncio.to_thread` does and `submit` does not."""

    @functools.wraps(method)
    def submit(self: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        if _sender.get() is None:
            return method(self, function, *args, **options)
        return method(self, copy_context().run, function, *args, **options)

    return submit
