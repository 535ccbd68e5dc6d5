"""Prepares OTLP requests and sends them to a server, which may be killed meanwhile; the same for Handrail and peers."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.traces.workload import large_trace, traces
from handrail.traces.model import Kind, Span

SPANS_PER_REQUEST = 100
SENDERS = 4
_START_SECONDS = 120
_KINDS: Mapping[Kind, tuple[str | None, str]] = {
    "agent": ("invoke_agent", "AGENT"),
    "model": ("chat", "LLM"),
    "tool": ("execute_tool", "TOOL"),
    "step": (None, "CHAIN"),
    "wait": (None, "CHAIN"),
}
_SENDER = Path(__file__).parent / "sender.py"


@dataclass(frozen=True)
class Server:
    """A program that receives OTLP, and its SQLite file, with a table `spans` that has a `span_id`."""

    command: Sequence[str]
    folder: Path
    url: str
    file: Path
    env: Mapping[str, str]

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts the process and waits until it answers."""
        log = (self.folder / "server.log").open("ab")
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env={**os.environ, **self.env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                kill(process)
                raise RuntimeError(f"{self.command[0]} did not start; see {self.folder / 'server.log'}")
            time.sleep(0.1)
        return process

    def stored(self) -> set[str]:
        """The ids of the spans in the database file."""
        with closing(sqlite3.connect(self.file, timeout=60)) as conn:
            return {row[0] for row in conn.execute("SELECT span_id FROM spans")}

    def count(self) -> int:
        """The number of spans in the database file."""
        with closing(sqlite3.connect(self.file, timeout=60)) as conn:
            return int(conn.execute("SELECT count(*) FROM spans").fetchone()[0])

    def _answers(self) -> bool:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except OSError:
            return False
        return True


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Sends SIGKILL to the process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_requests(folder: Path, spans: Iterable[Span]) -> list[Path]:
    """Writes requests of SPANS_PER_REQUEST spans to files, and the ids of their spans to a JSON file beside each."""
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    remaining = iter(spans)
    while batch := list(islice(remaining, SPANS_PER_REQUEST)):
        body = folder / f"{len(written):06}.otlp"
        body.write_bytes(_encoded(batch))
        body.with_suffix(".json").write_text(json.dumps([span.span_id for span in batch]))
        written.append(body)
    return written


def workload_requests(folder: Path, count: int, large: int = 0, seed: int = 4) -> list[Path]:
    """Requests with `count` spans of a simulated month, and one trace of `large` spans if that is above 0."""
    month = islice(chain.from_iterable(traces(count, seed)), count)
    return write_requests(folder, chain(month, large_trace(large) if large else ()))


def spans_per_s(server: Server, bodies: Sequence[Path]) -> tuple[float, float]:
    """Spans per second until they were acknowledged, and until they were in the database file."""
    total = len(bodies) * SPANS_PER_REQUEST
    before, start = server.count(), time.monotonic()
    seconds = float(_send(server, bodies, SENDERS)["seconds"])
    while server.count() - before < total * 0.999:
        if time.monotonic() - start > 600:
            raise RuntimeError(f"{server.url}: {server.count() - before} of {total} spans after ten minutes")
        time.sleep(0.25)
    return total / seconds, total / max(seconds, time.monotonic() - start)


def lost(server: Server, bodies: Sequence[Path], rounds: int, after_seconds: float) -> tuple[int, int]:
    """The number of acknowledged spans that are missing after kills while sending and a restart, and that of all."""
    acknowledged: set[str] = set()
    share = len(bodies) // rounds
    for number in range(rounds):
        process = server.start()
        part = bodies[number * share : (number + 1) * share]
        sending = subprocess.Popen(_command(server, SENDERS), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert sending.stdin
        sending.stdin.write(json.dumps([str(body) for body in part]).encode())
        sending.stdin.close()
        time.sleep(after_seconds)
        kill(process)
        assert sending.stdout
        outcome = json.loads(sending.stdout.read())
        sending.wait()
        for body in outcome["acknowledged"]:
            acknowledged.update(json.loads(Path(body).with_suffix(".json").read_text()))
    process = server.start()
    time.sleep(5)
    missing = acknowledged - server.stored()
    kill(process)
    return len(missing), len(acknowledged)


def resident_mb(process: "subprocess.Popen[bytes]") -> float:
    """The current memory of a process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if os.getpgid(int(status.parent.name)) == process.pid:
                total += int(fields.get("VmRSS", "0 kB").split()[0])
        except (OSError, ValueError):
            continue
    return total / 1024


def timed_ms(query: Callable[[], object], rounds: int) -> float:
    """The median of the rounds, without the first."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        query()
        times.append((time.perf_counter() - start) * 1e3)
    return sorted(times[1:])[rounds // 2]


def _encoded(spans: Sequence[Span]) -> bytes:
    """An ExportTraceServiceRequest under the GenAI conventions, with OpenInference's kinds for peers that read them."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for span in spans:
        encoded = scope.spans.add()
        encoded.trace_id, encoded.span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
        encoded.parent_span_id = bytes.fromhex(span.parent_id or "")
        encoded.name = span.name
        encoded.start_time_unix_nano, encoded.end_time_unix_nano = span.start_ns, span.end_ns
        encoded.status.code = 2 if span.error_type else 0
        for name, value in _attributes(span).items():
            kind = "int_value" if isinstance(value, int) else "string_value"
            setattr(encoded.attributes.add(key=name).value, kind, value)
    return bytes(request.SerializeToString())


def _attributes(span: Span) -> dict[str, str | int]:
    operation, kind = _KINDS[span.kind]
    attributes: dict[str, str | int | None] = {
        "gen_ai.operation.name": operation,
        "openinference.span.kind": kind,
        "gen_ai.agent.name": span.agent,
        "gen_ai.conversation.id": span.conversation_id,
        "session.id": span.conversation_id,
        "user.id": span.user,
        "tenant.id": span.tenant,
        "error.type": span.error_type,
    }
    if span.kind == "model":
        for name in ("gen_ai.request.model", "llm.model_name"):
            attributes[name] = span.model
        attributes["gen_ai.provider.name"] = attributes["llm.provider"] = span.provider
        attributes["gen_ai.usage.input_tokens"] = attributes["llm.token_count.prompt"] = span.usage.input
        attributes["gen_ai.usage.output_tokens"] = attributes["llm.token_count.completion"] = span.usage.output
    attributes.update({f"{slot}.value": text for slot, text in (span.payload or {}).items()})
    return {name: value for name, value in attributes.items() if value is not None}


def _command(server: Server, senders: int) -> list[str]:
    return [sys.executable, str(_SENDER), server.url, str(senders)]


def _send(server: Server, bodies: Sequence[Path], senders: int) -> dict[str, float]:
    paths = json.dumps([str(body) for body in bodies]).encode()
    outcome: dict[str, float] = json.loads(subprocess.check_output(_command(server, senders), input=paths))
    return outcome
