"""MLflow's answers, asked in its own virtual environment: `mlflow_peer.py STORE TRACE ROUNDS`; prints milliseconds."""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from typing import Any


def timed_ms(ask: Callable[[], Any], rounds: int) -> float:
    """The median of some rounds, the first left out."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1e3)
    return median(taken[1:])


def main(uri: str, trace_id: str, rounds: int) -> None:
    metrics = import_module("mlflow.entities.trace_metrics")
    store = import_module("mlflow.store.tracking.sqlalchemy_store").SqlAlchemyStore(uri, "./artifacts")
    percentile = metrics.AggregationType.PERCENTILE
    percentiles = [
        metrics.MetricAggregation(aggregation_type=percentile, percentile_value=value) for value in (50, 95, 99)
    ]

    def by_step() -> Any:
        return store.query_trace_metrics(["0"], metrics.MetricViewType.SPANS, "latency", percentiles, ["span_name"])

    def one() -> Any:
        [trace] = store.batch_get_traces([f"tr-{trace_id}"])
        return trace.data.spans

    print(json.dumps({"steps": len(by_step()), "spans": len(one())}), file=sys.stderr)
    print(json.dumps({"percentiles": timed_ms(by_step, rounds), "trace": timed_ms(one, rounds)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
