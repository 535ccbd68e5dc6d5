"""Queries Phoenix through the GraphQL that its own pages use."""

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

_PROJECT = "query { projects(first: 1) { edges { node { id } } } }"
_QUANTILES = """query($id: ID!, $condition: String!) { node(id: $id) { ... on Project {
  p50: spanLatencyMsQuantile(probability: 0.5, filterCondition: $condition)
  p95: spanLatencyMsQuantile(probability: 0.95, filterCondition: $condition)
  p99: spanLatencyMsQuantile(probability: 0.99, filterCondition: $condition) } } }"""
_MOST_EXPENSIVE = """query($id: ID!) { node(id: $id) { ... on Project {
  spans(first: 20, sort: {col: cumulativeTokenCostTotal, dir: desc}, filterCondition: "parent_id is None") {
    edges { node { spanId name latencyMs costSummary { total { cost } } } } } } } }"""
_TRACE = """query($id: ID!, $trace: ID!, $after: String) { node(id: $id) { ... on Project { trace(traceId: $trace) {
  spans(first: 1000, after: $after) { pageInfo { hasNextPage endCursor }
    edges { node { spanId name spanKind startTime endTime latencyMs parentId statusCode } } } } } } }"""


class Phoenix:
    """A Phoenix server with spans in it."""

    def __init__(self, address: str) -> None:
        self._address = address
        [edge] = self._query(_PROJECT)["projects"]["edges"]
        self._project = edge["node"]["id"]

    def percentiles(self, names: Sequence[str]) -> None:
        """p50, p95 and p99 of each span name; Phoenix has no query for all names, so they are given."""
        for name in names:
            self._query(_QUANTILES, id=self._project, condition=f"name == {name!r}")

    def most_expensive(self) -> None:
        """The twenty root spans with the highest cost below them."""
        self._query(_MOST_EXPENSIVE, id=self._project)

    def trace(self, trace_id: str) -> int:
        """Reads all spans of a trace, a thousand at a time, which is Phoenix's limit, and returns their number."""
        count, after = 0, None
        while True:
            page = self._query(_TRACE, id=self._project, trace=trace_id, after=after)["node"]["trace"]["spans"]
            count += len(page["edges"])
            if not page["pageInfo"]["hasNextPage"]:
                return count
            after = page["pageInfo"]["endCursor"]

    def _query(self, query: str, **variables: str | None) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self._address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as response:
            document = json.load(response)
        if document.get("errors"):
            raise RuntimeError(f"Phoenix: {document['errors']}")
        return document["data"]
