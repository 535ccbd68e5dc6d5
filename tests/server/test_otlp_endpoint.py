"""The OTLP endpoint, on a real socket: acknowledged spans are stored, rejected ones are reported."""

import gzip
import json
from typing import Any

from handrail import Runtime
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace
from tests.server.conftest import make_key
from tests.server.live_server import LiveServer
from tests.server.test_api import assert_problem

TRACE = "ab" * 16
JSON = {"content-type": "application/json"}


def batch(*names: str, **overrides: Any) -> bytes:
    """An OTLP request with spans of these names, as JSON."""
    spans = [
        {
            "traceId": TRACE,
            "spanId": f"{number:016x}",
            "name": name,
            "startTimeUnixNano": "1767225600000000000",
            "endTimeUnixNano": "1767225601000000000",
            **overrides,
        }
        for number, name in enumerate(names, start=1)
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def stored(runtime: Runtime, tenant: str) -> list[Span]:
    return runtime.database.read_now(load_trace(TRACE, tenant))[1]


def test_spans_are_stored_for_the_keys_tenant(public: LiveServer, runtime: Runtime) -> None:
    """Spans are stored before the 200, once each, for the key's tenant whatever tenant they name."""
    tenant_attribute = {"attributes": [{"key": "tenant.id", "value": {"stringValue": "globex"}}]}
    with public.client(make_key(runtime, "acme", "ingest")) as client:
        for _ in range(2):
            response = client.post("/v1/traces", content=batch("a", "b", **tenant_attribute), headers=JSON)
            assert (response.status_code, response.json(), response.headers["content-type"]) == (
                200,
                {},
                "application/json",
            )
            assert sorted(span.name for span in stored(runtime, "acme")) == ["a", "b"]
        compressed = gzip.compress(batch("c"))
        assert (
            client.post("/v1/traces", content=compressed, headers={**JSON, "content-encoding": "gzip"}).status_code
            == 200
        )
    assert {span.tenant for span in stored(runtime, "acme")} == {"acme"}


def test_the_operators_spans_belong_to_the_tenant_they_name(local: LiveServer, runtime: Runtime) -> None:
    """On 127.0.0.1 a span belongs to the tenant that it names."""
    tenant_attribute = {"attributes": [{"key": "tenant.id", "value": {"stringValue": "globex"}}]}
    with local.client() as client:
        assert client.post("/v1/traces", content=batch("a", **tenant_attribute), headers=JSON).status_code == 200
    assert [span.name for span in stored(runtime, "globex")] == ["a"]


def test_a_malformed_span_is_counted(local: LiveServer, runtime: Runtime) -> None:
    """The valid spans of a batch are stored, and the response counts the others."""
    body = json.loads(batch("good", "bad"))
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["startTimeUnixNano"] = "0"
    with local.client() as client:
        response = client.post("/v1/traces", json=body)
    assert (response.status_code, response.json()["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert [span.name for span in stored(runtime, "default")] == ["good"]


def test_bodies_that_are_not_otlp(local: LiveServer) -> None:
    """A malformed body is a 400, another media type a 415, too large a body a 413, compressed or not."""
    with local.client() as client:
        assert_problem(client.post("/v1/traces", content=b"{", headers=JSON), 400, "bad_otlp")
        assert_problem(
            client.post("/v1/traces", content=b"\xff", headers={"content-type": "application/x-protobuf"}),
            400,
            "bad_otlp",
        )
        assert_problem(
            client.post("/v1/traces", content=b"x", headers={"content-type": "text/plain"}), 415, "unsupported_media"
        )
        assert_problem(
            client.post("/v1/traces", content=b"x", headers={**JSON, "content-encoding": "br"}),
            415,
            "unsupported_media",
        )
        bomb = gzip.compress(b" " * (64 * 1024 * 1024), 1)
        assert_problem(
            client.post("/v1/traces", content=bomb, headers={**JSON, "content-encoding": "gzip"}), 413, "too_large"
        )
        assert_problem(client.post("/v1/traces", content=b" " * (16 * 1024 * 1024 + 1), headers=JSON), 413, "too_large")
