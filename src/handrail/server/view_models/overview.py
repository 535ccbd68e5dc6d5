"""The rows of the overview's charts. Pure."""

from collections.abc import Iterable
from typing import Any

from handrail.kernel.money import usd
from handrail.runs.outcome import PATHS
from handrail.runs.store.stats import PathPoint
from handrail.traces.store.rollup_queries import LatencyPoint, SpendPoint

PERCENTILES = ("p50", "p95", "p99")


def path_rows(points: Iterable[PathPoint]) -> list[dict[str, Any]]:
    """The number of runs on each path, in the order in which the paths are stacked."""
    return [
        {"at": point.at, "series": path, "value": point.runs[path], "rank": rank}
        for point in points
        for rank, path in enumerate(PATHS)
        if point.runs[path]
    ]


def spend_rows(points: Iterable[SpendPoint]) -> list[dict[str, Any]]:
    """The spend in dollars."""
    return [{"at": point.at, "value": float(usd(point.cost))} for point in points]


def latency_rows(points: Iterable[LatencyPoint]) -> list[dict[str, Any]]:
    """The percentiles of latency in seconds."""
    return [
        {"at": point.at, "series": name, "value": getattr(point, f"{name}_ns") / 1e9}
        for point in points
        for name in PERCENTILES
    ]


def error_rows(points: Iterable[LatencyPoint]) -> list[dict[str, Any]]:
    """The number of failed traces."""
    return [{"at": point.at, "value": point.errors} for point in points]
