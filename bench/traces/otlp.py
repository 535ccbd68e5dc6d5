"""OTLP requests made beforehand, and their way into a server that is killed or not: the same for ours and peers."""

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

from bench.traces.world import large_trace, traces
from handrail.traces.model import Kind, Span

SPANS_PER_REQUEST = 100
SENDERS = 4
_ALIVE_SECONDS = 120
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
    """A program that takes OTLP, and the SQLite file where its spans end up in the table `spans`, by `span_id`."""

    command: Sequence[str]
    folder: Path
    url: str
    file: Path
    env: Mapping[str, str]

    def start(self) -> "subprocess.Popen[bytes]":
        """The process, once it answers."""
        log = (self.folder / "server.log").open("ab")
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env={**os.environ, **self.env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _ALIVE_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                kill(process)
                raise RuntimeError(f"{self.command[0]} did not start; see {self.folder / 'server.log'}")
            time.sleep(0.1)
        return process

    def stored(self) -> set[str]:
        """The ids of the spans that are in the database file."""
        with closing(sqlite3.connect(self.file, timeout=60)) as conn:
            return {row[0] for row in conn.execute("SELECT span_id FROM spans")}

    def count(self) -> int:
        """How many spans are in the database file."""
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
    """kill -9, of its children too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_bodies(folder: Path, spans: Iterable[Span]) -> list[Path]:
    """Requests of SPANS_PER_REQUEST spans, each with a file beside it that has their ids."""
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    found = iter(spans)
    while batch := list(islice(found, SPANS_PER_REQUEST)):
        body = folder / f"{len(written):06}.otlp"
        body.write_bytes(_encoded(batch))
        body.with_suffix(".json").write_text(json.dumps([span.span_id for span in batch]))
        written.append(body)
    return written


def world_bodies(folder: Path, count: int, large: int = 0, seed: int = 4) -> list[Path]:
    """Requests with `count` spans of a made-up month, and one trace of `large` spans where that is above 0."""
    month = islice(chain.from_iterable(traces(count, seed)), count)
    return write_bodies(folder, chain(month, large_trace(large) if large else ()))


def spans_per_s(server: Server, bodies: Sequence[Path]) -> tuple[float, float]:
    """Spans a second until they were acknowledged, and until they were in the database file."""
    wanted = len(bodies) * SPANS_PER_REQUEST
    before, began = server.count(), time.monotonic()
    seconds = float(_sent(server, bodies, SENDERS)["seconds"])
    while server.count() - before < wanted * 0.999:
        if time.monotonic() - began > 600:
            raise RuntimeError(f"{server.url}: {server.count() - before} of {wanted} spans after ten minutes")
        time.sleep(0.25)
    return wanted / seconds, wanted / max(seconds, time.monotonic() - began)


def lost(server: Server, bodies: Sequence[Path], rounds: int, after_seconds: float) -> tuple[int, int]:
    """How many acknowledged spans are not there after `kill -9` in the midst of sending and a restart; of how many."""
    acknowledged: set[str] = set()
    share = len(bodies) // rounds
    for number in range(rounds):
        process = server.start()
        some = bodies[number * share : (number + 1) * share]
        sending = subprocess.Popen(_command(server, SENDERS), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert sending.stdin
        sending.stdin.write(json.dumps([str(body) for body in some]).encode())
        sending.stdin.close()
        time.sleep(after_seconds)
        kill(process)
        assert sending.stdout
        told = json.loads(sending.stdout.read())
        sending.wait()
        for body in told["acknowledged"]:
            acknowledged.update(json.loads(Path(body).with_suffix(".json").read_text()))
    process = server.start()
    time.sleep(5)
    missing = acknowledged - server.stored()
    kill(process)
    return len(missing), len(acknowledged)


def resident_mb(process: "subprocess.Popen[bytes]") -> float:
    """The memory of a process and its children, now."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if os.getpgid(int(status.parent.name)) == process.pid:
                total += int(fields.get("VmRSS", "0 kB").split()[0])
        except (OSError, ValueError):
            continue
    return total / 1024


def timed_ms(ask: Callable[[], object], rounds: int) -> float:
    """The median of some rounds, the first left out."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1e3)
    return sorted(taken[1:])[rounds // 2]


def _encoded(spans: Sequence[Span]) -> bytes:
    """An ExportTraceServiceRequest under the GenAI conventions, with OpenInference's kinds for those who read these."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for span in spans:
        written = scope.spans.add()
        written.trace_id, written.span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
        written.parent_span_id = bytes.fromhex(span.parent_id or "")
        written.name = span.name
        written.start_time_unix_nano, written.end_time_unix_nano = span.start_ns, span.end_ns
        written.status.code = 2 if span.error_type else 0
        for name, value in _attributes(span).items():
            kind = "int_value" if isinstance(value, int) else "string_value"
            setattr(written.attributes.add(key=name).value, kind, value)
    return bytes(request.SerializeToString())


def _attributes(span: Span) -> dict[str, str | int]:
    operation, kind = _KINDS[span.kind]
    found: dict[str, str | int | None] = {
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
            found[name] = span.model
        found["gen_ai.provider.name"] = found["llm.provider"] = span.provider
        found["gen_ai.usage.input_tokens"] = found["llm.token_count.prompt"] = span.usage.input
        found["gen_ai.usage.output_tokens"] = found["llm.token_count.completion"] = span.usage.output
    said = span.payload or {}
    found.update({f"{which}.value": text for which, text in said.items()})
    return {name: value for name, value in found.items() if value is not None}


def _command(server: Server, senders: int) -> list[str]:
    return [sys.executable, str(_SENDER), server.url, str(senders)]


def _sent(server: Server, bodies: Sequence[Path], senders: int) -> dict[str, float]:
    listed = json.dumps([str(body) for body in bodies]).encode()
    told: dict[str, float] = json.loads(subprocess.check_output(_command(server, senders), input=listed))
    return told
