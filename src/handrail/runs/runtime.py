"""What runs stand on in this process: settings, the store, the clock and the model that is used where none is named."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage

from handrail.ceilings.limits import limits_of
from handrail.config.settings import Settings, load_settings
from handrail.kernel.clock import Clock, SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.money import NanoUsd
from handrail.models.factory import default_model
from handrail.models.pricing import price_of, price_sheet
from handrail.traces.recorder.recorder import open_telemetry

from .fingerprint import Fingerprint

_REMEMBERED = 10_000


class Runtime:
    """Opened once per process as a rule; several may stand side by side, each with its own store."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, model: Model | None = None) -> None:
        """Opens the store that `settings` name; raises what Database.open and open_telemetry raise.

        `model` is used by agents that name none, instead of the one the settings and the environment lead to.
        """
        self.settings = settings
        self.clock = clock or SystemClock()
        self.limits = limits_of(settings.ceilings)
        self.telemetry = open_telemetry(settings, os.environ)
        self.database = Database.open(settings.store, settings.base)
        self._model = model
        self._seen: set[Fingerprint] = set()
        self._lock = threading.Lock()

    def model(self) -> Model:
        """The model for agents that name none; found on first use, which may load weights (seconds, blocking).

        Raises ModelUnavailable where no model can be had.
        """
        with self._lock:
            if self._model is None:
                self._model = default_model(self.settings)
            return self._model

    def price(self, model: str, provider: str, usage: RequestUsage) -> NanoUsd | None:
        """What a request cost, or None where nobody knows the model's price."""
        return price_of(model, provider, usage, self.settings.prices)

    def price_bound(self, model: str, provider: str) -> Callable[[int, int], NanoUsd] | None:
        """The most that so many input and output tokens may cost, or None where nobody knows the model's price."""
        sheet = price_sheet(model, provider, self.settings.prices, self.clock.now())
        return None if sheet is None else sheet.worst

    def has_seen(self, fingerprint: Fingerprint) -> bool:
        """Whether the texts behind `fingerprint` were committed by this process."""
        return fingerprint in self._seen

    def saw(self, fingerprint: Fingerprint) -> None:
        """Notes that the texts behind `fingerprint` are in the store."""
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen.add(fingerprint)

    def close(self) -> None:
        """Lets go of the store, once everything submitted is written; spans on their way out get a few seconds."""
        self.telemetry.close()
        self.database.close()


_chosen: ContextVar[Runtime | None] = ContextVar("handrail_runtime", default=None)
_default: Runtime | None = None
_opening = threading.Lock()


def current_runtime() -> Runtime:
    """The runtime of the enclosing `use_runtime`, else the process's own, opened from its settings on first use."""
    global _default
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    with _opening:
        if _default is None:
            _default = Runtime(load_settings())
        return _default


@contextmanager
def use_runtime(runtime: Runtime) -> Iterator[Runtime]:
    """Makes `runtime` the current one in the block, for this task and those it starts. Does not close it."""
    token = _chosen.set(runtime)
    try:
        yield runtime
    finally:
        _chosen.reset(token)
