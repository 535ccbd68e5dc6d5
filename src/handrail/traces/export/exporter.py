"""Sends finished spans to a collector in the background. It neither slows nor fails runs, and counts lost spans.

    # handrail.toml
    [export]
    endpoint = "https://cloud.langfuse.com/api/public/otel/v1/traces"
    headers = { Authorization = "LANGFUSE_AUTH" }     # a header, and the environment variable that holds its value
    content = false                                   # whether prompts, responses, arguments and results are exported

A run puts its spans into a bounded queue; one background thread takes them out in batches and sends each batch, with
retries. Every span is counted once, as `sent` or as `lost`. The store has all of them in any case.
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

from handrail.config.settings import ExportSettings
from handrail.kernel.clock import Clock, SystemClock
from handrail.kernel.errors import BadSettings, MissingExtra
from handrail.kernel.forks import begin_anew_when_forked
from handrail.traces.model import Span

from .otlp_encoder import encode_request

MAX_QUEUED_SPANS = 4_096
"""Spans that may wait in memory. A span with content may be megabytes large, so the queue must not grow further while
the collector is unreachable."""
MAX_BATCH_SPANS = 256
BATCH_DELAY_SECONDS = 1.0
"""How long the first span of a batch waits for others to join it."""
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = (1.0, 2.0, 4.0)
"""The pauses before each further attempt. Meanwhile the queue fills, and what does not fit is lost."""
CLOSING_SECONDS = 3.0
"""How long the program waits at its end for the queue to be sent."""
LOG_INTERVAL_NS = 60_000_000_000
_MAX_RESPONSE_BYTES = 65_536
# Statuses that OTLP/HTTP calls retryable (specification, "Failures"); with any other, the batch can never succeed.
_RETRYABLE_STATUS = frozenset({429, 502, 503, 504})

_logger = logging.getLogger(__name__)


def open_exporter(settings: ExportSettings, env: Mapping[str, str]) -> "SpanExporter":
    """The exporter that the settings describe.

    Args:
        settings: The section `[export]` of the settings.
        env: The environment, which holds the values of the headers.

    Raises:
        BadSettings: A variable that holds a header's value is not set.
        MissingExtra: The packages that encode protobuf are not installed.
    """
    missing = [variable for variable in settings.headers.values() if not env.get(variable)]
    if missing:
        raise BadSettings(f"export.headers: {' and '.join(missing)} not set in the environment")
    headers = {name: env[variable] for name, variable in settings.headers.items()}
    return SpanExporter(
        CollectorClient(settings.endpoint, headers), with_content if settings.content else without_content
    )


def with_content(span: Span) -> Span:
    """The span as it is."""
    return span


def without_content(span: Span) -> Span:
    """The span without its payload, so that content is neither sent nor kept in memory."""
    return replace(span, payload=None)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as a failure: following it would send the key to wherever the response points."""

    def redirect_request(self, *_: object) -> None:
        return None


class CollectorClient:
    """Sends batches to one OTLP endpoint."""

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        """
        Args:
            endpoint: The full URL of the collector's traces.
            headers: Headers of every request, such as one with a key.

        Raises:
            MissingExtra: The packages that encode protobuf are not installed.
        """
        try:
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
        except ModuleNotFoundError:
            raise MissingExtra("export", "otlp") from None
        self._response = ExportTraceServiceResponse
        self._endpoint = endpoint
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", **headers}

    def send(self, spans: Sequence[Span]) -> int:
        """Sends one batch, once.

        Returns:
            The number of spans that the collector rejected (OTLP's `partial_success`).

        Raises:
            HTTPError: The collector refused the batch.
            Exception: Whatever else the network or a broken response causes, mostly OSError.
        """
        body = gzip.compress(encode_request(spans), compresslevel=1)
        request = urllib.request.Request(self._endpoint, body, self._headers)  # noqa: S310 - settings have http(s) only
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            content = response.read(_MAX_RESPONSE_BYTES)
            if response.headers.get_content_type() != "application/x-protobuf":
                return 0
        return int(self._response.FromString(content).partial_success.rejected_spans)


class SpanExporter:
    """Queues spans and sends them from a thread of its own.

    `sent` and `lost` count spans since the exporter was opened; a span in neither is queued or being sent. A forked
    process counts from 0, and sends only its own spans.
    """

    def __init__(
        self,
        client: CollectorClient,
        prepare: Callable[[Span], Span],
        *,
        clock: Clock | None = None,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        """
        Args:
            client: Where batches are sent.
            prepare: Returns the part of a span that is exported; called before the span is queued.
            clock: Limits how often lost spans are logged.
            retry_seconds: The pauses before each further attempt to send a batch.
        """
        self._client = client
        self._prepare = prepare
        self._clock = clock or SystemClock()
        self._retry_seconds = retry_seconds
        self._closing = threading.Event()
        """Set once nothing more is queued; it also ends the pause before another attempt."""
        self._start_empty()
        begin_anew_when_forked(self)

    def _start_empty(self) -> None:
        self.sent = 0
        self.lost = 0
        self._lock = threading.Lock()
        # None marks the end of the queue: it wakes the thread, which may be waiting for a span.
        self._queue: queue.Queue[Span | None] = queue.Queue(MAX_QUEUED_SPANS)
        self._gave_up = threading.Event()
        """Set once time is up: the thread stops before the next batch."""
        self._logged_ns: int | None = None
        self._lost_unlogged = 0
        self._thread: threading.Thread | None = None

    def begin_anew(self) -> None:
        """In a forked process: leaves to the parent what is queued, and has no thread yet."""
        closed, self._closing = self._closing.is_set(), threading.Event()
        if closed:
            self._closing.set()
        self._start_empty()

    def add(self, span: Span) -> None:
        """Queues a span without waiting; if the queue is full or the exporter closed, the span is lost."""
        if self._closing.is_set():
            self._lose(1, "the exporter is closed")
            return
        if self._thread is None:
            self._start()
        try:
            self._queue.put_nowait(self._prepare(span))
        except queue.Full:
            self._lose(1, "the queue is full")

    def close(self) -> None:
        """Sends what is queued, for CLOSING_SECONDS at most; what cannot be sent by then is lost."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread is None:
            return
        atexit.unregister(self.close)
        deadline = time.monotonic() + CLOSING_SECONDS
        # A full queue has no place for the end mark until the thread has taken a batch out.
        with suppress(queue.Full):
            self._queue.put(None, timeout=CLOSING_SECONDS)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._gave_up.set()
        # The thread is a daemon, so a collector that hangs cannot keep the process alive. The batch that it is
        # sending is still counted if its request ends before the process does.
        if self._thread.is_alive():
            self._lose(self._queue.qsize(), "the program ended")

    def _start(self) -> None:
        # Only once there is something to send: a program that exports nothing gets no thread and no exit handler.
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="handrail-export", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _work(self) -> None:
        # Without this, a program that traces its own HTTP requests would also trace the exporter's.
        otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: SLF001
        more = True
        while more and not self._gave_up.is_set():
            batch, more = self._next_batch()
            if batch:
                self._send(batch)

    def _next_batch(self) -> tuple[list[Span], bool]:
        """Waits for a span and then BATCH_DELAY_SECONDS for others; the flag says whether more may follow."""
        batch: list[Span] = []
        deadline = None
        while len(batch) < MAX_BATCH_SPANS:
            try:
                span = self._queue.get(timeout=deadline and max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if span is None:
                return batch, False
            deadline = deadline or time.monotonic() + BATCH_DELAY_SECONDS
            batch.append(span)
        return batch, True

    def _send(self, batch: Sequence[Span]) -> None:
        """Sends a batch with retries, and counts each of its spans once: as sent or as lost.

        A network failure and a retryable status are retried; any other status would only be repeated. While closing,
        the pause ends at once and the batch is lost. A retry may send spans a second time if the response to the first
        was lost: a backend recognises them by their ids.
        """
        for pause in (*self._retry_seconds, None):
            try:
                rejected = self._client.send(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next batch may go through
                retryable = isinstance(error, OSError) and (
                    error.code in _RETRYABLE_STATUS if isinstance(error, HTTPError) else True
                )
                if pause is None or not retryable or self._closing.wait(pause):
                    self._lose(len(batch), _reason(error))
                    return
            else:
                with self._lock:
                    self.sent += len(batch) - rejected
                if rejected:
                    self._lose(rejected, "the collector rejected them")
                return

    def _lose(self, count: int, reason: str) -> None:
        """Counts lost spans, and logs them once a minute at most, with those since the last line."""
        now = self._clock.monotonic_ns()
        with self._lock:
            self.lost += count
            self._lost_unlogged += count
            if self._logged_ns is not None and now - self._logged_ns < LOG_INTERVAL_NS:
                return
            self._logged_ns, lost, self._lost_unlogged = now, self._lost_unlogged, 0
        _logger.warning("%d spans were not exported: %s; runs are not affected, and the store has them", lost, reason)


def _reason(error: Exception) -> str:
    return f"HTTP {error.code}" if isinstance(error, HTTPError) else type(error).__name__
