"""Our side, in a process of its own so that its memory can be told: `python -m bench.traces.ours TRACES FOLDER`."""

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

from bench.traces.world import SINCE, UNTIL, large_trace, traces
from handrail.kernel.db.database import Database
from handrail.traces.model import Span
from handrail.traces.store.queries import missing_spans, spend_by, step_latencies, top_traces
from handrail.traces.store.spans import StoreSpans, load_trace

BATCH = 500
LANES = 4
ROUNDS = 9
LARGE = 20_000


async def load(database: Database, spans: Iterator[Span]) -> tuple[int, float, float]:
    """Stores spans in batches from LANES senders at once; how many, the seconds, and the part spent making them up."""
    stored, making = 0, 0.0

    async def send() -> None:
        nonlocal stored, making
        while True:
            began = time.perf_counter()
            batch = list(islice(spans, BATCH))
            making += time.perf_counter() - began
            if not batch:
                return
            [new] = await database.write(StoreSpans(batch))
            stored += new

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(LANES)))
    return stored, time.perf_counter() - began, making


def asked_ms(database: Database, question: Callable[[Any], object]) -> float:
    """The median of ROUNDS, the first being left out: it fills the page cache."""
    taken = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        database.read_now(question)
        taken.append((time.perf_counter() - began) * 1e3)
    return median(taken[1:])


def small_run_ms(database: Database) -> float:
    """What storing the spans of one small run adds to a commit: the writer's time, without the fsync."""

    def timed(op: StoreSpans) -> Callable[[Any], float]:
        def run(conn: Any) -> float:
            began = time.perf_counter()
            op(conn)
            return (time.perf_counter() - began) * 1e3

        return run

    runs = (StoreSpans(trace[-6:]) for trace in traces(300, seed=9))
    return float(median(database.write_now(timed(op))[0] for op in runs))


def measured(count: int, folder: Path) -> dict[str, float]:
    """Every figure of ours that needs no server."""
    file = folder / "traces.db"
    database = Database.open(str(file))
    stored, seconds, making = asyncio.run(load(database, chain.from_iterable(traces(count))))
    found: dict[str, float] = {
        "spans": stored,
        "stored_spans_per_s": stored / (seconds - making),
        "small_run_ms": small_run_ms(database),
    }
    large = large_trace(LARGE)
    asyncio.run(load(database, iter(large)))
    trace_id, tenant = large[0].trace_id, None
    del large
    whole: dict[str, Any] = {"tenant": None, "since": SINCE, "until": UNTIL}
    one = {**whole, "tenant": "tenant-00"}
    questions: dict[str, Callable[[Any], object]] = {
        "percentiles_by_step_ms": lambda conn: step_latencies(conn, **whole),
        "percentiles_by_step_one_tenant_ms": lambda conn: step_latencies(conn, **one),
        "top_cost_ms": lambda conn: top_traces(conn, order="cost", **whole),
        "top_cost_one_tenant_ms": lambda conn: top_traces(conn, order="cost", **one),
        "slowest_of_a_user_ms": lambda conn: top_traces(conn, order="duration", user="user-00010", **one),
        "spend_by_user_ms": lambda conn: spend_by(conn, key="user", limit=20, **whole),
        "spend_by_user_one_tenant_ms": lambda conn: spend_by(conn, key="user", limit=20, **one),
        "spend_by_model_ms": lambda conn: spend_by(conn, key="model", **whole),
        "open_20k_span_trace_ms": lambda conn: (
            load_trace(conn, trace_id, tenant),
            missing_spans(conn, trace_id, tenant),
        ),
    }
    found.update({name: asked_ms(database, question) for name, question in questions.items()})
    database.close()
    found["file_mb"] = file.stat().st_size / 1e6
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), Path(sys.argv[2]))))
