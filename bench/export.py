"""How much exporting spans slows a run if the collector is down or hangs, and what arrives in a real Phoenix."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from bench.figure import Figure
from bench.measure import interleaved
from handrail import Runtime, Settings, govern, tool, use_runtime
from handrail.config.settings import ExportSettings
from handrail.kernel.money import NanoUsd, nano_usd
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace

MODEL = "claude-sonnet-4-5"
ROUNDS = 9
RUNS = 30
PHOENIX = Path(__file__).parents[1] / "build" / "phoenix"
_SECONDS = 120
_SPANS_QUERY = """{ projects { edges { node { spans(first: 100) { edges { node {
    spanId parentId spanKind tokenCountTotal costSummary { total { cost } } } } } } } } }"""


class Sonnet(FunctionModel):
    """A model with the name and prices of one of Anthropic's, which responds at once."""

    @property
    def system(self) -> str:
        return "anthropic"


def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    part = TextPart("It is on its way.") if len(messages) > 1 else ToolCallPart("find_order", {"order": 1042})
    usage = RequestUsage(input_tokens=1_000, output_tokens=200, cache_read_tokens=600, cache_write_tokens=100)
    return ModelResponse([part], usage=usage)


def find_order(order: int) -> str:
    """Finds an order."""
    return f"order {order} is on its way"


support = govern(Agent(Sonnet(reply, model_name=MODEL), tools=[tool(find_order, effect="reads")]), name="support")


def figures() -> list[Figure]:
    """Runs the benchmark."""
    return [*_run_times(), *_arrival()]


def _run_times() -> list[Figure]:
    """The time of a run with export to a collector that fails, compared with a run without export."""
    measured = []
    with hanging() as hanging_url, down() as down_url:
        for name, address in (("down", down_url), ("hanging", hanging_url)):
            with open_runtime(None) as bare, open_runtime(ExportSettings(endpoint=address, content=True)) as exporting:
                compared = interleaved(partial(run_ms, exporting), partial(run_ms, bare), ROUNDS)
            measured.append(
                Figure(
                    f"run_ms_collector_{name}",
                    compared.ours,
                    "ms",
                    "lower",
                    f"median of {ROUNDS} rounds of {RUNS} runs, one tool call and two requests, content exported; the "
                    f"peer is the same run without export; median ratio {compared.ratio:.2f}",
                    {"no export": compared.peer},
                )
            )
    return measured


def _arrival() -> list[Figure]:
    """One run in Phoenix: its tree, tokens and cost, compared with the store's."""
    with phoenix() as address, open_runtime(ExportSettings(endpoint=f"{address}/v1/traces", content=True)) as runtime:
        with use_runtime(runtime):
            outcome = support.run_sync("Where is order 1042?", user="u-1", tenant="acme")
        _, stored = runtime.database.read_now(load_trace(outcome.facts.trace_id, None))
        runtime.telemetry.close()
        arrived = wait_for(address, len(stored))
    same_tree = sum(arrived.get(span.span_id, {}).get("parentId") == span.parent_id for span in stored)
    same_tokens = sum(_tokens(arrived, span) == span.usage.input + span.usage.output for span in stored)
    method = (
        "a run of one tool call and two requests, exported with content to Phoenix from the package index, on SQLite"
    )
    cost = sum(span.cost for span in stored)
    return [
        Figure("phoenix_spans_with_parent", same_tree / len(stored), "share", "higher", method),
        Figure("phoenix_spans_with_tokens", same_tokens / len(stored), "share", "higher", method),
        Figure(
            "run_cost_nano_usd", cost, "nano-dollars", "lower", method, {"phoenix": sum(map(_cost, arrived.values()))}
        ),
    ]


def _tokens(arrived: Mapping[str, Any], span: Span) -> int:
    return int(arrived.get(span.span_id, {}).get("tokenCountTotal") or 0)


def _cost(span: Mapping[str, Any]) -> NanoUsd:
    total = (span.get("costSummary") or {}).get("total") or {}
    return nano_usd(round(Decimal(str(total.get("cost") or 0)), 9))


def run_ms(runtime: Runtime) -> float:
    """The median duration of RUNS runs."""
    with use_runtime(runtime):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            support.run_sync("Where is order 1042?", user="u-1", tenant="acme")
            times.append((time.perf_counter() - start) * 1e3)
    return median(times)


@contextmanager
def open_runtime(export: ExportSettings | None) -> Iterator[Runtime]:
    """A runtime in a temporary folder, closed after the block."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Settings(base=Path(folder), export=export))
        try:
            yield runtime
        finally:
            runtime.close()


@contextmanager
def hanging() -> Iterator[str]:
    """The URL of a collector that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


@contextmanager
def down() -> Iterator[str]:
    """The URL of a collector that is not running."""
    yield f"http://127.0.0.1:{free_port()}/v1/traces"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def phoenix() -> Iterator[str]:
    """A Phoenix in a folder of its own, installed from the package index if it is missing."""
    program = PHOENIX / "bin" / "phoenix"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PHOENIX)], check=True)
        subprocess.run([str(PHOENIX / "bin" / "pip"), "install", "--quiet", "arize-phoenix"], check=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        port = free_port()
        env = {
            **os.environ,
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        quiet = subprocess.DEVNULL
        server = stack.enter_context(subprocess.Popen([str(program), "serve"], env=env, stdout=quiet, stderr=quiet))
        stack.callback(server.kill)
        address = f"http://127.0.0.1:{port}"
        _until(lambda: urllib.request.urlopen(f"{address}/healthz", timeout=2).status == 200)
        yield address


def wait_for(address: str, spans: int) -> dict[str, Any]:
    """The spans in Phoenix by their ids, once there are that many."""
    spans_by_id: dict[str, Any] = {}

    def complete() -> bool:
        body = json.dumps({"query": _SPANS_QUERY}).encode()
        request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
        projects = json.load(urllib.request.urlopen(request, timeout=10))["data"]["projects"]["edges"]
        nodes = [edge["node"] for project in projects for edge in project["node"]["spans"]["edges"]]
        spans_by_id.update({node["spanId"]: node for node in nodes})
        return len(spans_by_id) >= spans and sum(map(_cost, spans_by_id.values())) > 0

    _until(complete)
    return spans_by_id


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"Phoenix was not ready within {_SECONDS} s")
        time.sleep(0.2)
