"""What sending spans out costs a run, with the collector there, gone and silent; and what arrives in a real Phoenix."""

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
from handrail.config.settings import ExportTo
from handrail.kernel.money import NanoUsd, nano_usd
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace

MODEL = "claude-sonnet-4-5"
ROUNDS = 9
RUNS = 30
PHOENIX = Path(__file__).parents[1] / "build" / "phoenix"
_SECONDS = 120
_ASKED = """{ projects { edges { node { spans(first: 100) { edges { node {
    spanId parentId spanKind tokenCountTotal costSummary { total { cost } } } } } } } } }"""


class Sonnet(FunctionModel):
    """A model of Anthropic's name and prices that answers at once."""

    @property
    def system(self) -> str:
        return "anthropic"


def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    part = TextPart("It is on its way.") if len(messages) > 1 else ToolCallPart("find_order", {"order": 1042})
    used = RequestUsage(input_tokens=1_000, output_tokens=200, cache_read_tokens=600, cache_write_tokens=100)
    return ModelResponse([part], usage=used)


def find_order(order: int) -> str:
    """Finds an order."""
    return f"order {order} is on its way"


support = govern(Agent(Sonnet(reply, model_name=MODEL), tools=[tool(find_order, effect="reads")]), name="support")


def figures() -> list[Figure]:
    return [*_slowed(), *_arrived()]


def _slowed() -> list[Figure]:
    """A run's time with spans going out, beside one without, whatever is at the other end."""
    found = []
    with silent() as nobody_answers, gone() as nobody_listens:
        for name, address in (("down", nobody_listens), ("hanging", nobody_answers)):
            with runtime_of(None) as bare, runtime_of(ExportTo(endpoint=address, content=True)) as exporting:
                compared = interleaved(partial(run_ms, exporting), partial(run_ms, bare), ROUNDS)
            found.append(
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
    return found


def _arrived() -> list[Figure]:
    """One run in Phoenix: its tree, tokens and cost, beside the store's."""
    with phoenix() as address, runtime_of(ExportTo(endpoint=f"{address}/v1/traces", content=True)) as runtime:
        with use_runtime(runtime):
            outcome = support.run_sync("Where is order 1042?", user="u-1", tenant="acme")
        _, stored = runtime.database.read_now(lambda conn: load_trace(conn, outcome.facts.trace_id, None))
        runtime.telemetry.close()
        there = wait_for(address, len(stored))
    same_tree = sum(there.get(span.span_id, {}).get("parentId") == span.parent_id for span in stored)
    same_tokens = sum(_tokens(there, span) == span.usage.input + span.usage.output for span in stored)
    how = "a run of one tool call and two requests, exported with content to Phoenix from the package index, on SQLite"
    cost = sum(span.cost for span in stored)
    return [
        Figure("phoenix_spans_with_parent", same_tree / len(stored), "share", "higher", how),
        Figure("phoenix_spans_with_tokens", same_tokens / len(stored), "share", "higher", how),
        Figure("run_cost_nano_usd", cost, "nano-dollars", "lower", how, {"phoenix": sum(map(_cost, there.values()))}),
    ]


def _tokens(there: Mapping[str, Any], span: Span) -> int:
    return int(there.get(span.span_id, {}).get("tokenCountTotal") or 0)


def _cost(span: Mapping[str, Any]) -> NanoUsd:
    total = (span.get("costSummary") or {}).get("total") or {}
    return nano_usd(round(Decimal(str(total.get("cost") or 0)), 9))


def run_ms(runtime: Runtime) -> float:
    with use_runtime(runtime):
        taken = []
        for _ in range(RUNS):
            start = time.perf_counter()
            support.run_sync("Where is order 1042?", user="u-1", tenant="acme")
            taken.append((time.perf_counter() - start) * 1e3)
    return median(taken)


@contextmanager
def runtime_of(to: ExportTo | None) -> Iterator[Runtime]:
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Settings(base=Path(folder), export=to))
        try:
            yield runtime
        finally:
            runtime.close()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a collector that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


@contextmanager
def gone() -> Iterator[str]:
    """The address of a port where nobody listens."""
    yield f"http://127.0.0.1:{free_port()}/v1/traces"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def phoenix() -> Iterator[str]:
    """A Phoenix of its own, installed from the package index if it is not yet."""
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
    """The spans that Phoenix has, by their ids, once it has so many."""
    found: dict[str, Any] = {}

    def all_there() -> bool:
        body = json.dumps({"query": _ASKED}).encode()
        request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
        projects = json.load(urllib.request.urlopen(request, timeout=10))["data"]["projects"]["edges"]
        nodes = [edge["node"] for project in projects for edge in project["node"]["spans"]["edges"]]
        found.update({node["spanId"]: node for node in nodes})
        return len(found) >= spans and sum(map(_cost, found.values())) > 0

    _until(all_there)
    return found


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            if there():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"Phoenix did not do it in {_SECONDS} s")
        time.sleep(0.2)
