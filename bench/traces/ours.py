"""Measures Handrail in a process of its own, to learn its memory: `python -m bench.traces.ours TRACES FOLDER`."""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

from bench.traces.workload import SINCE, UNTIL, large_trace, traces
from handrail.kernel.db.database import Database
from handrail.traces.model import Span
from handrail.traces.store.rollup_queries import spend_by, step_latencies
from handrail.traces.store.spans import SpanBatch, load_trace
from handrail.traces.store.trace_queries import missing_spans, top_traces

BATCH = 500
SENDERS = 4
ROUNDS = 9
LARGE = 20_000


async def load(database: Database, spans: Iterator[Span]) -> tuple[int, float, float]:
    """Stores spans from SENDERS concurrent tasks: their number, the seconds, and those spent generating the spans."""
    stored, generating = 0, 0.0

    async def send() -> None:
        nonlocal stored, generating
        while True:
            start = time.perf_counter()
            batch = list(islice(spans, BATCH))
            generating += time.perf_counter() - start
            if not batch:
                return
            [new] = await database.write(SpanBatch(batch))
            stored += new

    start = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(SENDERS)))
    return stored, time.perf_counter() - start, generating


def query_ms(database: Database, query: Callable[[Any], object]) -> float:
    """The median of ROUNDS; one more round comes first and is not counted, since it fills the page cache."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        database.read_now(query)
        times.append((time.perf_counter() - start) * 1e3)
    return median(times[1:])


def small_run_ms(database: Database) -> float:
    """The writer's time for the spans of one small run, without the fsync of its commit."""

    def timed(op: SpanBatch) -> Callable[[Any], float]:
        def run(conn: Any) -> float:
            start = time.perf_counter()
            op(conn)
            return (time.perf_counter() - start) * 1e3

        return run

    runs = (SpanBatch(trace[-6:]) for trace in traces(300, seed=9))
    return float(median(database.write_now(timed(op))[0] for op in runs))


def measure(count: int, folder: Path) -> dict[str, float]:
    """Every figure of Handrail's that needs no server."""
    file = folder / "traces.db"
    database = Database.open(str(file))
    stored, seconds, generating = asyncio.run(load(database, chain.from_iterable(traces(count))))
    figures: dict[str, float] = {
        "spans": stored,
        "stored_spans_per_s": stored / (seconds - generating),
        "small_run_ms": small_run_ms(database),
    }
    large = large_trace(LARGE)
    asyncio.run(load(database, iter(large)))
    trace_id, tenant = large[0].trace_id, None
    del large
    whole: dict[str, Any] = {"tenant": None, "since": SINCE, "until": UNTIL}
    one = {**whole, "tenant": "tenant-00"}
    queries: dict[str, Callable[[Any], object]] = {
        "percentiles_by_step_ms": step_latencies(**whole),
        "percentiles_by_step_one_tenant_ms": step_latencies(**one),
        "top_cost_ms": top_traces(order="cost", **whole),
        "top_cost_one_tenant_ms": top_traces(order="cost", **one),
        "slowest_of_a_user_ms": top_traces(order="duration", user="user-00010", **one),
        "spend_by_user_ms": spend_by(key="user", limit=20, **whole),
        "spend_by_user_one_tenant_ms": spend_by(key="user", limit=20, **one),
        "spend_by_model_ms": spend_by(key="model", **whole),
        "open_20k_span_trace_ms": lambda conn: (
            load_trace(trace_id, tenant)(conn),
            missing_spans(trace_id, tenant)(conn),
        ),
    }
    figures.update({name: query_ms(database, query) for name, query in queries.items()})
    database.close()
    figures["file_mb"] = file.stat().st_size / 1e6
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
