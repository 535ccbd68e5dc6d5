"""Queries MLflow in its own virtual environment and prints milliseconds: `mlflow_peer.py STORE TRACE ROUNDS`."""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from typing import Any


def timed_ms(query: Callable[[], Any], rounds: int) -> float:
    """The median of the rounds, without the first."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        query()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times[1:])


def main(uri: str, trace_id: str, rounds: int) -> None:
    metrics = import_module("mlflow.entities.trace_metrics")
    store = import_module("mlflow.store.tracking.sqlalchemy_store").SqlAlchemyStore(uri, "./artifacts")
    percentile = metrics.AggregationType.PERCENTILE
    percentiles = [
        metrics.MetricAggregation(aggregation_type=percentile, percentile_value=value) for value in (50, 95, 99)
    ]

    def by_step() -> Any:
        return store.query_trace_metrics(["0"], metrics.MetricViewType.SPANS, "latency", percentiles, ["span_name"])

    def one_trace() -> Any:
        [trace] = store.batch_get_traces([f"tr-{trace_id}"])
        return trace.data.spans

    print(json.dumps({"steps": len(by_step()), "spans": len(one_trace())}), file=sys.stderr)
    print(json.dumps({"percentiles": timed_ms(by_step, rounds), "trace": timed_ms(one_trace, rounds)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
