"""What all runs of a process share: settings, store, clock, telemetry, and the model for agents that name none."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic_ai.models import Model

from handrail.ceilings.limits import limits_of
from handrail.config.settings import Settings
from handrail.config.sources import load_settings
from handrail.kernel.clock import Clock, SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.forks import CAN_FORK, begin_anew_when_forked
from handrail.models.factory import default_model
from handrail.models.inherited_connections import drop_inherited_connections
from handrail.traces.recorder.recorder import open_pipeline

from .fingerprint import Fingerprint

_MAX_FINGERPRINTS = 10_000


class Runtime:
    """What runs share. A process usually has one; several may exist side by side, each with its own store.

    A runtime may be used in processes forked from the one that made it: each opens the store anew at its first use.

    Args:
        settings: The settings, from `load_settings()` or constructed directly.
        clock: The clock, by default the system's; `handrail.testing.VirtualClock` in tests.
        model: The model of agents that name none; by default, the settings and the environment determine it.

    Raises:
        StoreError: The store cannot be opened, or belongs to another version of Handrail.
        BadSettings: Traces are to be exported, and the settings for it are not valid.
        MissingExtra: The store or the export needs packages that are not installed.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None, model: Model | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.limits = limits_of(settings.ceilings)
        self.telemetry = open_pipeline(settings, os.environ)
        self.database = Database.open(settings.store, settings.base)
        self._model = model
        self._fingerprints: set[Fingerprint] = set()
        self._lock = threading.Lock()
        begin_anew_when_forked(self)

    def begin_anew(self) -> None:
        """In a forked process: another thread may hold the parent's lock. The store and the exporter have their own."""
        self._lock = threading.Lock()

    def model(self) -> Model:
        """The model for agents that name none. The first call may load weights: it blocks, for seconds.

        Returns:
            The model that the runtime was given, or the one that its settings and the environment determine.

        Raises:
            ModelUnavailable: No model is configured, or it cannot be loaded.
        """
        with self._lock:
            if self._model is None:
                self._model = default_model(self.settings)
            return self._model

    def knows_fingerprint(self, fingerprint: Fingerprint) -> bool:
        """Whether this process knows that the texts behind a fingerprint are committed.

        Args:
            fingerprint: A run's fingerprint.

        Returns:
            False also if another process committed them.
        """
        return fingerprint in self._fingerprints

    def remember_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Records that the texts behind a fingerprint are committed, so that later runs need not write them again.

        Args:
            fingerprint: A run's fingerprint.
        """
        if len(self._fingerprints) >= _MAX_FINGERPRINTS:
            self._fingerprints.clear()
        self._fingerprints.add(fingerprint)

    def close(self) -> None:
        """Closes the store after pending writes; exports of spans get a few seconds to finish."""
        self.telemetry.close()
        self.database.close()


_current: ContextVar[Runtime | None] = ContextVar("handrail_runtime", default=None)
_default: Runtime | None = None
_default_lock = threading.Lock()


_has_inherited_connections = False


def _begin_anew() -> None:
    global _default_lock, _has_inherited_connections
    _default_lock = threading.Lock()
    _has_inherited_connections = True


if CAN_FORK:
    os.register_at_fork(after_in_child=_begin_anew)


def current_runtime() -> Runtime:
    """The runtime of the enclosing `use_runtime`, else the process's default one, opened on first use."""
    global _default, _has_inherited_connections
    if _has_inherited_connections:
        _has_inherited_connections = False
        drop_inherited_connections()
    runtime = _current.get()
    if runtime is not None:
        return runtime
    with _default_lock:
        if _default is None:
            _default = Runtime(load_settings())
        return _default


@contextmanager
def use_runtime(runtime: Runtime) -> Iterator[Runtime]:
    """Makes `runtime` the current one inside the block, for this task and the tasks that it starts.

    Args:
        runtime: The runtime, which is not closed at the end of the block.

    Yields:
        The same runtime.
    """
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)
