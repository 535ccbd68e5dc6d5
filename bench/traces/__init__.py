"""A million spans in 100,000 traces: how fast they are stored, asked about and opened, beside Phoenix and MLflow.

HANDRAIL_BENCH_TRACES=1000 makes a small month, for a quick look; HANDRAIL_BENCH_PEERS=0 leaves the peers out. Peers are
installed into virtual environments of their own under build/ and get as many spans as they can store in some minutes.
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
    world_bodies,
)
from bench.traces.page import opened_s
from bench.traces.phoenix_peer import Phoenix
from bench.traces.world import large_trace, names
from handrail.kernel.db.database import Database

TRACES = int(os.environ.get("HANDRAIL_BENCH_TRACES", "100000"))
PEERS = os.environ.get("HANDRAIL_BENCH_PEERS", "1") != "0"
OTLP_SPANS = min(100_000, TRACES * 10)
PEER_SPANS = min(10_000, TRACES * 10)
PEER_LARGE = min(5_000, TRACES * 5)
KILLS = 3
_OTHERS = 5
"""A seed for spans that no store has yet: what is there already cannot be lost."""
_BUILD = Path(__file__).parents[2] / "build"
_PHOENIX = "arize-phoenix==20.26.1"
_MLFLOW = "mlflow==3.17.2"
_PORTS = {"phoenix": 46006, "mlflow": 46007, "ours": 46008}


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ours = _ours(folder)
        sent = _over_http(folder)
        peers: dict[str, dict[str, float]] = {}
        if PEERS:
            bodies = world_bodies(folder / "peers", PEER_SPANS, PEER_LARGE)
            peers = {"phoenix": _phoenix(folder, bodies), "mlflow": _mlflow(folder, bodies)}
        return [*_told(ours, sent, peers), *_only_ours(ours), _fsync(folder)]


def _ours(folder: Path) -> dict[str, float]:
    place = folder / "ours"
    place.mkdir()
    command = [sys.executable, "-m", "bench.traces.ours", str(TRACES), str(place)]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def _over_http(folder: Path) -> dict[str, float]:
    place = folder / "http"
    place.mkdir()
    (place / "handrail.toml").write_text('store = "handrail.db"\n')
    Database.open("handrail.db", place).close()
    port = _PORTS["ours"]
    command = [str(Path(sys.executable).parent / "handrail"), "serve", "--no-worker", "--port", str(port)]
    server = Server(command, place, f"http://127.0.0.1:{port}/v1/traces", place / "handrail.db", {})
    bodies = world_bodies(folder / "otlp", OTLP_SPANS)
    process = server.start()
    try:
        _, durable = spans_per_s(server, bodies)
        memory = resident_mb(process)
    finally:
        kill(process)
    others = world_bodies(folder / "killed", OTLP_SPANS, seed=_OTHERS)
    missing, acknowledged = lost(server, others, KILLS, 2.0)
    return {"durable": durable, "memory": memory, "lost": missing, "acknowledged": acknowledged}


def _phoenix(folder: Path, bodies: list[Path]) -> dict[str, float]:
    place = folder / "phoenix"
    place.mkdir()
    port = _PORTS["phoenix"]
    file = place / "phoenix.db"
    env = {
        "PHOENIX_WORKING_DIR": str(place),
        "PHOENIX_SQL_DATABASE_URL": f"sqlite:///{file}",
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(port + 100),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    python = _installed("phoenix", _PHOENIX)
    server = Server(
        [str(python), "-m", "phoenix.server.main", "serve"], place, f"http://127.0.0.1:{port}/v1/traces", file, env
    )
    process = server.start()
    try:
        acknowledged, durable = spans_per_s(server, bodies)
        memory = resident_mb(process)
        asked = Phoenix(f"http://127.0.0.1:{port}")
        found = {
            "acknowledged_per_s": acknowledged,
            "durable": durable,
            "memory": memory,
            "percentiles": timed_ms(partial(asked.percentiles, names()), 3),
            "dearest": timed_ms(asked.dearest, 5),
            "trace": timed_ms(partial(asked.trace, large_trace(PEER_LARGE)[0].trace_id), 2),
            "file": file.stat().st_size / 1e6,
        }
    finally:
        kill(process)
    missing, acknowledged = lost(server, world_bodies(folder / "phoenix-killed", PEER_SPANS, seed=_OTHERS), KILLS, 2.0)
    return {**found, "lost": missing, "acknowledged": acknowledged}


def _mlflow(folder: Path, bodies: list[Path]) -> dict[str, float]:
    place = folder / "mlflow"
    place.mkdir()
    port, file = _PORTS["mlflow"], place / "mlflow.db"
    python = _installed("mlflow", _MLFLOW)
    command = [str(python.parent / "mlflow"), "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{file}", "--artifacts-destination", str(place / "artifacts")]
    server = Server(command, place, f"http://127.0.0.1:{port}/v1/traces", file, {"MLFLOW_DISABLE_TELEMETRY": "true"})
    process = server.start()
    try:
        _, durable = spans_per_s(server, bodies)
        memory = resident_mb(process)
    finally:
        kill(process)
    asking = [str(python), str(Path(__file__).parent / "mlflow_peer.py"), f"sqlite:///{file}"]
    told = subprocess.check_output([*asking, large_trace(PEER_LARGE)[0].trace_id, "3"], cwd=place)
    answers: dict[str, float] = json.loads(told)
    found = {"durable": durable, "memory": memory, "file": file.stat().st_size / 1e6, **answers}
    missing, acknowledged = lost(server, world_bodies(folder / "mlflow-killed", PEER_SPANS, seed=_OTHERS), KILLS, 15.0)
    return {**found, "lost": missing, "acknowledged": acknowledged}


def _installed(name: str, requirement: str) -> Path:
    """The Python of a virtual environment that has the peer."""
    python = _BUILD / name / "bin" / "python"
    if not python.exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(_BUILD / name)])
    subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", requirement])
    return python


def _of(peers: dict[str, dict[str, float]], name: str, scale: float = 1.0) -> dict[str, float]:
    return {peer: found[name] * scale for peer, found in peers.items() if name in found}


def _told(ours: dict[str, float], sent: dict[str, float], peers: dict[str, dict[str, float]]) -> Iterator[Figure]:
    world = f"ours over {ours['spans']:,.0f} spans in {TRACES:,} traces, 30 days, 20 tenants"
    theirs = f"peers over {PEER_SPANS:,} spans and one trace of {PEER_LARGE:,}, which they store in minutes"
    http = f"protobuf, {SPANS_PER_REQUEST} spans a request, {SENDERS} senders"
    yield Figure(
        "otlp_spans_per_s",
        sent["durable"],
        "spans/s",
        "higher",
        f"until they are in the database file, {http}; ours {OTLP_SPANS:,} spans with synchronous=FULL, {theirs}",
        _of(peers, "durable"),
    )
    acknowledged = {"ours": sent["acknowledged"], **_of(peers, "acknowledged")}
    yield Figure(
        "lost_acknowledged_spans",
        sent["lost"],
        "spans",
        "lower",
        f"kill -9 two seconds into sending (MLflow 15), {KILLS} times, then a restart; acknowledged: "
        + ", ".join(f"{name} {count:,.0f}" for name, count in acknowledged.items()),
        _of(peers, "lost"),
    )
    yield Figure(
        "percentiles_by_step_ms",
        ours["percentiles_by_step_ms"],
        "ms",
        "lower",
        f"p50, p95, p99 of every step; {world}, {theirs}; Phoenix through GraphQL, one query a step",
        _of(peers, "percentiles"),
    )
    yield Figure(
        "top_cost_ms",
        ours["top_cost_ms"],
        "ms",
        "lower",
        f"the 20 most expensive traces; {world}, {theirs}; Phoenix through GraphQL; MLflow has no such order",
        _of(peers, "dearest"),
    )
    yield Figure(
        "open_20k_span_trace_s",
        opened_s(),
        "s",
        "lower",
        "from asking for the page of a trace of 20,000 spans until its first row is seen in Chromium, median of 7",
    )
    yield Figure(
        "read_20k_span_trace_s",
        ours["open_20k_span_trace_ms"] / 1e3,
        "s",
        "lower",
        f"reading a trace of 20,000 spans with what is missing in it, without the page; peers' has {PEER_LARGE:,}",
        _of(peers, "trace", 1e-3),
    )
    yield Figure(
        "server_memory_mb",
        sent["memory"],
        "MB",
        "lower",
        f"resident memory of the server's processes after taking {OTLP_SPANS:,} spans, peers {PEER_SPANS:,}",
        _of(peers, "memory"),
    )
    yield Figure(
        "file_bytes_per_span",
        ours["file_mb"] * 1e6 / ours["spans"],
        "bytes",
        "lower",
        f"the database file, about 1.2 KB of text in each span but the agents'; {world}, {theirs}",
        {peer: found["file"] * 1e6 / (PEER_SPANS + PEER_LARGE) for peer, found in peers.items()},
    )


def _only_ours(ours: dict[str, float]) -> Iterator[Figure]:
    asked = "median of 9 through Database.read, over the same spans"
    yield Figure(
        "stored_spans_per_s", ours["stored_spans_per_s"], "spans/s", "higher", "StoreSpans, 4 callers, 500 spans each"
    )
    for name in ours:
        if name.endswith("_ms") and name not in ("percentiles_by_step_ms", "top_cost_ms", "open_20k_span_trace_ms"):
            how = "the writer's time for the spans of a run of six" if name == "small_run_ms" else asked
            yield Figure(name, ours[name], "ms", "lower", how)
    yield Figure("file_mb", ours["file_mb"], "MB", "lower", f"after {ours['spans']:,.0f} spans")
    yield Figure("peak_memory_mb", ours["peak_memory_mb"], "MB", "lower", "of the process that stored and asked")


def _fsync(folder: Path) -> Figure:
    return Figure("raw_fsync_ms", raw_fsync_ms(folder), "ms", "lower", "median of 4 KiB appends, same disk")
