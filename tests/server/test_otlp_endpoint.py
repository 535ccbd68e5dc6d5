"""OTLP over HTTP, on a real socket: what is acknowledged is there, what is wrong is told."""

import gzip
import json
from typing import Any

from handrail import Runtime
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace
from tests.server.conftest import make_key
from tests.server.serving import Served
from tests.server.test_api import problem

TRACE = "ab" * 16
JSON = {"content-type": "application/json"}


def batch(*names: str, **changed: Any) -> bytes:
    """An OTLP request with spans of these names, as JSON."""
    spans = [
        {
            "traceId": TRACE,
            "spanId": f"{number:016x}",
            "name": name,
            "startTimeUnixNano": "1767225600000000000",
            "endTimeUnixNano": "1767225601000000000",
            **changed,
        }
        for number, name in enumerate(names, start=1)
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def stored(runtime: Runtime, tenant: str) -> list[Span]:
    return runtime.database.read_now(lambda conn: load_trace(conn, TRACE, tenant))[1]


def test_spans_are_stored_for_the_keys_tenant(public: Served, runtime: Runtime) -> None:
    """Spans are there when the 200 is, once each, and of the key's tenant whatever they say of themselves."""
    says = {"attributes": [{"key": "tenant.id", "value": {"stringValue": "globex"}}]}
    with public.client(make_key(runtime, "acme", "ingest")) as client:
        for _ in range(2):
            answer = client.post("/v1/traces", content=batch("a", "b", **says), headers=JSON)
            assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (200, {}, "application/json")
            assert sorted(span.name for span in stored(runtime, "acme")) == ["a", "b"]
        packed = gzip.compress(batch("c"))
        assert (
            client.post("/v1/traces", content=packed, headers={**JSON, "content-encoding": "gzip"}).status_code == 200
        )
    assert {span.tenant for span in stored(runtime, "acme")} == {"acme"}


def test_the_operators_spans_are_of_the_tenants_they_name(local: Served, runtime: Runtime) -> None:
    """On 127.0.0.1 a span is of the tenant that it names."""
    says = {"attributes": [{"key": "tenant.id", "value": {"stringValue": "globex"}}]}
    with local.client() as client:
        assert client.post("/v1/traces", content=batch("a", **says), headers=JSON).status_code == 200
    assert [span.name for span in stored(runtime, "globex")] == ["a"]


def test_a_malformed_span_is_counted(local: Served, runtime: Runtime) -> None:
    """The good spans of a batch are kept, and the answer says how many were not."""
    found = json.loads(batch("good", "bad"))
    found["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["startTimeUnixNano"] = "0"
    with local.client() as client:
        answer = client.post("/v1/traces", json=found)
    assert (answer.status_code, answer.json()["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert [span.name for span in stored(runtime, "default")] == ["good"]


def test_what_is_no_otlp_is_told(local: Served) -> None:
    """A body that is none is a 400, another media type a 415, too much of it a 413, packed or not."""
    with local.client() as client:
        problem(client.post("/v1/traces", content=b"{", headers=JSON), 400, "bad_otlp")
        problem(
            client.post("/v1/traces", content=b"\xff", headers={"content-type": "application/x-protobuf"}),
            400,
            "bad_otlp",
        )
        problem(
            client.post("/v1/traces", content=b"x", headers={"content-type": "text/plain"}), 415, "unsupported_media"
        )
        problem(
            client.post("/v1/traces", content=b"x", headers={**JSON, "content-encoding": "br"}),
            415,
            "unsupported_media",
        )
        bomb = gzip.compress(b" " * (64 * 1024 * 1024), 1)
        problem(client.post("/v1/traces", content=bomb, headers={**JSON, "content-encoding": "gzip"}), 413, "too_large")
        problem(client.post("/v1/traces", content=b" " * (16 * 1024 * 1024 + 1), headers=JSON), 413, "too_large")
