"""A million spans in 100,000 traces: how fast they are stored, queried and opened, compared with Phoenix and MLflow.

HANDRAIL_BENCH_TRACES=1000 simulates a small month, for a quick run; HANDRAIL_BENCH_PEERS=0 leaves the peers out. Peers
are installed into virtual environments of their own under build/ and get as many spans as they can store in a few
minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.figure import Figure
from bench.measure import raw_fsync_ms
from bench.traces.otlp import (
    SENDERS,
    SPANS_PER_REQUEST,
    Server,
    kill,
    lost,
    resident_mb,
    spans_per_s,
    timed_ms,
    workload_requests,
)
from bench.traces.page import open_trace_s
from bench.traces.phoenix_peer import Phoenix
from bench.traces.workload import large_trace, names
from handrail.kernel.db.database import Database

TRACES = int(os.environ.get("HANDRAIL_BENCH_TRACES", "100000"))
PEERS = os.environ.get("HANDRAIL_BENCH_PEERS", "1") != "0"
OTLP_SPANS = min(100_000, TRACES * 10)
PEER_SPANS = min(10_000, TRACES * 10)
PEER_LARGE = min(5_000, TRACES * 5)
KILLS = 3
_OTHER_SEED = 5
"""Gives spans that the server does not have yet: a span that is stored already cannot be lost."""
_BUILD = Path(__file__).parents[2] / "build"
_PHOENIX = "arize-phoenix==20.26.1"
_MLFLOW = "mlflow==3.17.2"
_PORTS = {"phoenix": 46006, "mlflow": 46007, "ours": 46008}


def figures() -> list[Figure]:
    """Runs the benchmark."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        ours = _ours(folder)
        http = _over_http(folder)
        peers: dict[str, dict[str, float]] = {}
        if PEERS:
            bodies = workload_requests(folder / "peers", PEER_SPANS, PEER_LARGE)
            peers = {"phoenix": _phoenix(folder, bodies), "mlflow": _mlflow(folder, bodies)}
        return [*_compared(ours, http, peers), *_only_ours(ours), _fsync(folder)]


def _ours(folder: Path) -> dict[str, float]:
    workdir = folder / "ours"
    workdir.mkdir()
    command = [sys.executable, "-m", "bench.traces.ours", str(TRACES), str(workdir)]
    values: dict[str, float] = json.loads(subprocess.check_output(command))
    return values


def _over_http(folder: Path) -> dict[str, float]:
    workdir = folder / "http"
    workdir.mkdir()
    (workdir / "handrail.toml").write_text('store = "handrail.db"\n')
    Database.open("handrail.db", workdir).close()
    port = _PORTS["ours"]
    command = [str(Path(sys.executable).parent / "handrail"), "serve", "--no-worker", "--port", str(port)]
    server = Server(command, workdir, f"http://127.0.0.1:{port}/v1/traces", workdir / "handrail.db", {})
    bodies = workload_requests(folder / "otlp", OTLP_SPANS)
    process = server.start()
    try:
        _, durable = spans_per_s(server, bodies)
        memory = resident_mb(process)
    finally:
        kill(process)
    unsent = workload_requests(folder / "killed", OTLP_SPANS, seed=_OTHER_SEED)
    missing, acknowledged = lost(server, unsent, KILLS, 2.0)
    return {"durable": durable, "memory": memory, "lost": missing, "acknowledged": acknowledged}


def _phoenix(folder: Path, bodies: list[Path]) -> dict[str, float]:
    workdir = folder / "phoenix"
    workdir.mkdir()
    port = _PORTS["phoenix"]
    file = workdir / "phoenix.db"
    env = {
        "PHOENIX_WORKING_DIR": str(workdir),
        "PHOENIX_SQL_DATABASE_URL": f"sqlite:///{file}",
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(port + 100),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    python = _installed("phoenix", _PHOENIX)
    server = Server(
        [str(python), "-m", "phoenix.server.main", "serve"], workdir, f"http://127.0.0.1:{port}/v1/traces", file, env
    )
    process = server.start()
    try:
        acknowledged, durable = spans_per_s(server, bodies)
        memory = resident_mb(process)
        phoenix = Phoenix(f"http://127.0.0.1:{port}")
        values = {
            "acknowledged_per_s": acknowledged,
            "durable": durable,
            "memory": memory,
            "percentiles": timed_ms(partial(phoenix.percentiles, names()), 3),
            "most_expensive": timed_ms(phoenix.most_expensive, 5),
            "trace": timed_ms(partial(phoenix.trace, large_trace(PEER_LARGE)[0].trace_id), 2),
            "file": file.stat().st_size / 1e6,
        }
    finally:
        kill(process)
    missing, acknowledged = lost(
        server, workload_requests(folder / "phoenix-killed", PEER_SPANS, seed=_OTHER_SEED), KILLS, 2.0
    )
    return {**values, "lost": missing, "acknowledged": acknowledged}


def _mlflow(folder: Path, bodies: list[Path]) -> dict[str, float]:
    workdir = folder / "mlflow"
    workdir.mkdir()
    port, file = _PORTS["mlflow"], workdir / "mlflow.db"
    python = _installed("mlflow", _MLFLOW)
    command = [str(python.parent / "mlflow"), "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{file}", "--artifacts-destination", str(workdir / "artifacts")]
    server = Server(command, workdir, f"http://127.0.0.1:{port}/v1/traces", file, {"MLFLOW_DISABLE_TELEMETRY": "true"})
    process = server.start()
    try:
        _, durable = spans_per_s(server, bodies)
        memory = resident_mb(process)
    finally:
        kill(process)
    command = [str(python), str(Path(__file__).parent / "mlflow_peer.py"), f"sqlite:///{file}"]
    output = subprocess.check_output([*command, large_trace(PEER_LARGE)[0].trace_id, "3"], cwd=workdir)
    query_ms: dict[str, float] = json.loads(output)
    values = {"durable": durable, "memory": memory, "file": file.stat().st_size / 1e6, **query_ms}
    missing, acknowledged = lost(
        server, workload_requests(folder / "mlflow-killed", PEER_SPANS, seed=_OTHER_SEED), KILLS, 15.0
    )
    return {**values, "lost": missing, "acknowledged": acknowledged}


def _installed(name: str, requirement: str) -> Path:
    """The Python of a virtual environment with the peer installed."""
    python = _BUILD / name / "bin" / "python"
    if not python.exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(_BUILD / name)])
    subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", requirement])
    return python


def _peer_values(peers: dict[str, dict[str, float]], name: str, scale: float = 1.0) -> dict[str, float]:
    return {peer: values[name] * scale for peer, values in peers.items() if name in values}


def _compared(ours: dict[str, float], sent: dict[str, float], peers: dict[str, dict[str, float]]) -> Iterator[Figure]:
    data = f"ours over {ours['spans']:,.0f} spans in {TRACES:,} traces, 30 days, 20 tenants"
    peer_data = f"peers over {PEER_SPANS:,} spans and one trace of {PEER_LARGE:,}, which they store in minutes"
    http = f"protobuf, {SPANS_PER_REQUEST} spans a request, {SENDERS} senders"
    yield Figure(
        "otlp_spans_per_s",
        sent["durable"],
        "spans/s",
        "higher",
        f"until they are in the database file, {http}; ours {OTLP_SPANS:,} spans with synchronous=FULL, {peer_data}",
        _peer_values(peers, "durable"),
    )
    acknowledged = {"ours": sent["acknowledged"], **_peer_values(peers, "acknowledged")}
    yield Figure(
        "lost_acknowledged_spans",
        sent["lost"],
        "spans",
        "lower",
        f"kill -9 two seconds into sending (MLflow 15), {KILLS} times, then a restart; acknowledged: "
        + ", ".join(f"{name} {count:,.0f}" for name, count in acknowledged.items()),
        _peer_values(peers, "lost"),
    )
    yield Figure(
        "percentiles_by_step_ms",
        ours["percentiles_by_step_ms"],
        "ms",
        "lower",
        f"p50, p95, p99 of every step; {data}, {peer_data}; Phoenix through GraphQL, one query a step",
        _peer_values(peers, "percentiles"),
    )
    yield Figure(
        "top_cost_ms",
        ours["top_cost_ms"],
        "ms",
        "lower",
        f"the 20 most expensive traces; {data}, {peer_data}; Phoenix through GraphQL; MLflow has no such order",
        _peer_values(peers, "most_expensive"),
    )
    yield Figure(
        "open_20k_span_trace_s",
        open_trace_s(),
        "s",
        "lower",
        "from requesting the page of a trace of 20,000 spans until its first row is visible in Chromium, median of 7",
    )
    yield Figure(
        "read_20k_span_trace_s",
        ours["open_20k_span_trace_ms"] / 1e3,
        "s",
        "lower",
        f"reading a trace of 20,000 spans and counting missing parents, without the page; peers' has {PEER_LARGE:,}",
        _peer_values(peers, "trace", 1e-3),
    )
    yield Figure(
        "server_memory_mb",
        sent["memory"],
        "MB",
        "lower",
        f"resident memory of the server's processes after receiving {OTLP_SPANS:,} spans, peers {PEER_SPANS:,}",
        _peer_values(peers, "memory"),
    )
    yield Figure(
        "file_bytes_per_span",
        ours["file_mb"] * 1e6 / ours["spans"],
        "bytes",
        "lower",
        f"the database file, about 1.2 KB of content in each span except the agents'; {data}, {peer_data}",
        {peer: values["file"] * 1e6 / (PEER_SPANS + PEER_LARGE) for peer, values in peers.items()},
    )


def _only_ours(ours: dict[str, float]) -> Iterator[Figure]:
    query_method = "median of 9 through Database.read, over the same spans"
    yield Figure(
        "stored_spans_per_s", ours["stored_spans_per_s"], "spans/s", "higher", "SpanBatch, 4 callers, 500 spans each"
    )
    for name in ours:
        if name.endswith("_ms") and name not in ("percentiles_by_step_ms", "top_cost_ms", "open_20k_span_trace_ms"):
            is_write = name == "small_run_ms"
            method = "the writer's time for the spans of a run of six" if is_write else query_method
            yield Figure(name, ours[name], "ms", "lower", method)
    yield Figure("file_mb", ours["file_mb"], "MB", "lower", f"after {ours['spans']:,.0f} spans")
    yield Figure("peak_memory_mb", ours["peak_memory_mb"], "MB", "lower", "of the process that stored and queried")


def _fsync(folder: Path) -> Figure:
    return Figure("raw_fsync_ms", raw_fsync_ms(folder), "ms", "lower", "median of 4 KiB appends, same disk")
