"""Connections to other programs that a forked process inherits: to providers of models and to collectors of spans."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic_ai import Agent
from pydantic_ai.models import override_allow_model_requests
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from handrail import Answered, govern
from handrail.runs.sync_runner import run_on_own_loop
from handrail.testing import sandbox
from handrail.traces.export.exporter import SpanExporter, with_content
from handrail.traces.model import Span
from tests.traces.span_builders import make_span

from .children import Child, fork_tests, in_child, time_limit

pytestmark = fork_tests


class _EchoingProvider(BaseHTTPRequestHandler):
    """OpenAI's chat completions, answered with the question, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    ports: list[int]

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.ports.append(self.client_address[1])
        message = {"role": "assistant", "content": request["messages"][-1]["content"]}
        response = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-5.1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        body = json.dumps(response).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def _provider() -> Iterator[tuple[OpenAIChatModel, list[int]]]:
    """A model, and the client's port of each request that its provider received."""
    ports: list[int] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_EchoingProvider,), {"ports": ports}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = AsyncOpenAI(
        base_url=f"http://127.0.0.1:{server.server_port}/v1",
        api_key="test",
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(verify=False),
    )
    try:
        yield OpenAIChatModel("gpt-5.1", provider=OpenAIProvider(openai_client=client)), ports
    finally:
        run_on_own_loop(client.close())
        server.shutdown()
        thread.join()
        server.server_close()


def test_children_do_not_send_on_the_parents_connection(tmp_path: Path) -> None:
    """A child's first request opens its own connection and gets its own answer; the parent keeps its connection."""
    with time_limit(), override_allow_model_requests(True), _provider() as (model, ports), sandbox(tmp_path):
        agent = govern(Agent(model), name="echo")

        def answer(text: str) -> str:
            outcome = agent.run_sync(text, user="u")
            assert isinstance(outcome, Answered), outcome
            return outcome.output

        assert answer("parent") == "parent"
        children = [Child(partial(answer, f"child {number}")) for number in range(3)]
        assert [child.result() for child in children] == ["child 0", "child 1", "child 2"]
        assert answer("parent again") == "parent again"
    assert ports[0] == ports[-1]
    assert len(set(ports)) == 4


class _Collector:
    """Notes the names of the spans it is sent, after it was let go on."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.resume = threading.Event()

    def send(self, spans: Sequence[Span]) -> int:
        self.resume.wait(10)
        self.names += [span.name for span in spans]
        return 0


def test_a_child_exports_its_own_spans_only() -> None:
    """What is queued at a fork is sent once, by the parent; the child sends what it records, from its own thread."""
    collector = _Collector()
    exporter = SpanExporter(collector, with_content)  # type: ignore[arg-type]
    exporter.add(make_span("parent", None, 0, 1))

    def export() -> tuple[list[str], int, int]:
        collector.resume = threading.Event()
        collector.resume.set()
        exporter.add(make_span("child", None, 0, 1))
        exporter.close()
        return collector.names, exporter.sent, exporter.lost

    with time_limit():
        assert in_child(export) == (["child"], 1, 0)
        collector.resume.set()
        exporter.close()
    assert (collector.names, exporter.sent, exporter.lost) == (["parent"], 1, 0)


def test_a_closed_exporter_is_closed_in_a_child() -> None:
    """A span that a child adds to an exporter that its parent had closed is lost, and counted."""
    exporter = SpanExporter(_Collector(), with_content)  # type: ignore[arg-type]
    exporter.close()

    def add() -> int:
        exporter.add(make_span("child", None, 0, 1))
        return exporter.lost

    assert in_child(add) == 1
