"""Sends finished spans to a collector, beside the runs: it slows none down, fails none, and says what it lost.

    # handrail.toml
    [export]
    endpoint = "https://cloud.langfuse.com/api/public/otel/v1/traces"
    headers = { Authorization = "LANGFUSE_AUTH" }     # a header, and the environment variable that holds its value
    content = false                                   # whether what was said leaves, too

Spans wait in memory, at most QUEUE of them, and go out in batches from a thread of their own.
"""

import atexit
import gzip
import logging
import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.error import HTTPError

from opentelemetry import context as otel_context

from handrail.config.settings import ExportTo
from handrail.kernel.clock import Clock, SystemClock
from handrail.kernel.errors import BadSettings, MissingExtra
from handrail.traces.model import Span

from .otlp_encoder import as_otlp

QUEUE = 4_096
BATCH = 256
DELAY_SECONDS = 1.0
"""How long a span waits for others to go with."""
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = (1.0, 2.0, 4.0)
CLOSING_SECONDS = 3.0
"""How long the end of the program waits for what is still to be sent."""
LOG_NS = 60_000_000_000
_LONGEST_ANSWER = 65_536
# What a collector says no to for a while only (OTLP/HTTP, "Failures").
_TRY_AGAIN = frozenset({429, 502, 503, 504})

_logger = logging.getLogger("handrail.export")


def open_export(to: ExportTo, env: Mapping[str, str]) -> "Export":
    """Raises BadSettings where a variable is not set that holds a header's value, MissingExtra without protobuf."""
    missing = [variable for variable in to.headers.values() if not env.get(variable)]
    if missing:
        raise BadSettings(f"export.headers: {' and '.join(missing)} not set in the environment")
    headers = {name: env[variable] for name, variable in to.headers.items()}
    return Export(Collector(to.endpoint, headers), with_content if to.content else without_content)


def with_content(span: Span) -> Span:
    return span


def without_content(span: Span) -> Span:
    """What was said does not leave, and does not wait in memory either."""
    return replace(span, payload=None)


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """A collector that has moved is a wrong setting: a key is not carried on to wherever an answer points."""

    def redirect_request(self, *_: object) -> None:
        return None


class Collector:
    """The other side."""

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        """Raises MissingExtra where protobuf cannot be written here."""
        try:
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
        except ModuleNotFoundError:
            raise MissingExtra("export", "otlp") from None
        self._answer = ExportTraceServiceResponse
        self._endpoint = endpoint
        self._opener = urllib.request.build_opener(_Unmoved)
        self._headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", **headers}

    def send(self, spans: Sequence[Span]) -> int:
        """How many of the spans it said it did not take. Raises what the network does, HTTPError where it says no."""
        body = gzip.compress(as_otlp(spans), compresslevel=1)
        request = urllib.request.Request(self._endpoint, body, self._headers)  # noqa: S310 - settings have http(s) only
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            told = response.read(_LONGEST_ANSWER)
            if response.headers.get_content_type() != "application/x-protobuf":
                return 0
        return int(self._answer.FromString(told).partial_success.rejected_spans)


class Export:
    """Spans on their way out. `sent` and `lost` count them since it was opened; what is in neither is on its way."""

    def __init__(
        self,
        collector: Collector,
        leaves: Callable[[Span], Span],
        *,
        clock: Clock | None = None,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        """`leaves` is what of a span goes out."""
        self.sent = 0
        self.lost = 0
        self._collector = collector
        self._leaves = leaves
        self._clock = clock or SystemClock()
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Span | None] = queue.Queue(QUEUE)
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._logged_ns: int | None = None
        self._unlogged = 0
        self._thread: threading.Thread | None = None

    def add(self, span: Span) -> None:
        """Takes a span along; where too many are waiting already, or after the end, it is lost."""
        if self._thread is None:
            self._start()
        try:
            if self._closing.is_set():
                raise queue.Full
            self._waiting.put_nowait(self._leaves(span))
        except queue.Full:
            self._lose(1, "too many are waiting")

    def close(self) -> None:
        """Sends what is waiting, for CLOSING_SECONDS at most; what cannot be sent by then is lost."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread is None:
            return
        atexit.unregister(self.close)
        until = time.monotonic() + CLOSING_SECONDS
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSING_SECONDS)
        self._thread.join(max(0.0, until - time.monotonic()))
        self._given_up.set()
        if self._thread.is_alive():
            self._lose(self._waiting.qsize(), "the program ended")

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="handrail-export", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _work(self) -> None:
        # Our own requests are nobody's spans, also where the program traces every request it makes.
        otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: SLF001
        more = True
        while more and not self._given_up.is_set():
            batch, more = self._gather()
            if batch:
                self._send(batch)

    def _gather(self) -> tuple[list[Span], bool]:
        """What is there, once something is and others had the time to join it; and whether there will be more."""
        batch: list[Span] = []
        until = None
        while len(batch) < BATCH:
            try:
                span = self._waiting.get(timeout=until and max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if span is None:
                return batch, False
            until = until or time.monotonic() + DELAY_SECONDS
            batch.append(span)
        return batch, True

    def _send(self, batch: Sequence[Span]) -> None:
        for pause in (*self._retry_seconds, None):
            try:
                refused = self._collector.send(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next batch may go through
                passing = isinstance(error, OSError) and (
                    error.code in _TRY_AGAIN if isinstance(error, HTTPError) else True
                )
                if pause is None or not passing or self._closing.wait(pause):
                    self._lose(len(batch), _reason(error))
                    return
            else:
                with self._lock:
                    self.sent += len(batch) - refused
                if refused:
                    self._lose(refused, "it did not take them")
                return

    def _lose(self, count: int, why: str) -> None:
        """Counts lost spans, and says so once a minute at most."""
        now = self._clock.monotonic_ns()
        with self._lock:
            self.lost += count
            self._unlogged += count
            if self._logged_ns is not None and now - self._logged_ns < LOG_NS:
                return
            self._logged_ns, lost, self._unlogged = now, self._unlogged, 0
        _logger.warning("%d spans were not exported, %s; runs go on, and the store has them", lost, why)


def _reason(error: Exception) -> str:
    return f"HTTP {error.code}" if isinstance(error, HTTPError) else type(error).__name__
