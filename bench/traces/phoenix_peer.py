"""Phoenix's answers, through the GraphQL queries that its pages send."""

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

_PROJECT = "query { projects(first: 1) { edges { node { id } } } }"
_QUANTILES = """query($id: ID!, $condition: String!) { node(id: $id) { ... on Project {
  p50: spanLatencyMsQuantile(probability: 0.5, filterCondition: $condition)
  p95: spanLatencyMsQuantile(probability: 0.95, filterCondition: $condition)
  p99: spanLatencyMsQuantile(probability: 0.99, filterCondition: $condition) } } }"""
_DEAREST = """query($id: ID!) { node(id: $id) { ... on Project {
  spans(first: 20, sort: {col: cumulativeTokenCostTotal, dir: desc}, filterCondition: "parent_id is None") {
    edges { node { spanId name latencyMs costSummary { total { cost } } } } } } } }"""
_TRACE = """query($id: ID!, $trace: ID!, $after: String) { node(id: $id) { ... on Project { trace(traceId: $trace) {
  spans(first: 1000, after: $after) { pageInfo { hasNextPage endCursor }
    edges { node { spanId name spanKind startTime endTime latencyMs parentId statusCode } } } } } } }"""


class Phoenix:
    """A server that has spans."""

    def __init__(self, address: str) -> None:
        self._address = address
        [edge] = self._ask(_PROJECT)["projects"]["edges"]
        self._project = edge["node"]["id"]

    def percentiles(self, names: Sequence[str]) -> None:
        """p50, p95 and p99 of each name of a span; Phoenix cannot be asked for all names, so they are known here."""
        for name in names:
            self._ask(_QUANTILES, id=self._project, condition=f"name == {name!r}")

    def dearest(self) -> None:
        """The twenty root spans with most cost below them."""
        self._ask(_DEAREST, id=self._project)

    def trace(self, trace_id: str) -> int:
        """How many spans a trace has, all being read, a thousand at a time: more cannot be asked for."""
        count, after = 0, None
        while True:
            found = self._ask(_TRACE, id=self._project, trace=trace_id, after=after)["node"]["trace"]["spans"]
            count += len(found["edges"])
            if not found["pageInfo"]["hasNextPage"]:
                return count
            after = found["pageInfo"]["endCursor"]

    def _ask(self, query: str, **variables: str | None) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self._address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            told = json.load(answer)
        if told.get("errors"):
            raise RuntimeError(f"Phoenix: {told['errors']}")
        return told["data"]
