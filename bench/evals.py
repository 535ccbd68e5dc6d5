"""The eval runner on a plain async callable, compared with its peers, each in an environment of its own."""

import asyncio
import datetime as dt
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median
from typing import Any

from bench.figure import Figure
from handrail import Runtime, Settings
from handrail.evals.eval_set.lock import freeze
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.spec import EvalSpec

CASES = 300
CONCURRENCY = 100
SECONDS = 1.0
ROUNDS = 3
PEERS = {"pydantic-evals": "pydantic-evals", "inspect": "inspect-ai", "deepeval": "deepeval"}
_PEER_PROGRAM = Path(__file__).parent / "evals_peer.py"
_METHOD = (
    f"{CASES} cases on a plain async callable, exact match, medians of {ROUNDS} interleaved rounds of fresh processes"
)


def figures() -> list[Figure]:
    """Runs the benchmark."""
    peers = {name: python for name, package in PEERS.items() if (python := _environment(package)) is not None}
    instant: dict[str, list[dict[str, float]]] = {}
    slow: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for results, seconds in ((instant, 0.0), (slow, SECONDS)):
            results.setdefault("ours", []).append(_ours(seconds))
            for name, python in peers.items():
                results.setdefault(name, []).append(_peer(python, name, seconds))
    cpu = {name: median(result["cpu"] for result in rounds) * 1e3 / CASES for name, rounds in instant.items()}
    wall = {name: median(result["wall"] for result in rounds) for name, rounds in slow.items()}
    return [
        Figure(
            "cpu_ms_per_case",
            cpu.pop("ours"),
            "ms",
            "lower",
            f"{_METHOD}, instant; CPU of the process between start and end of the run. Ours commits every trial",
            cpu,
        ),
        Figure(
            f"wall_{CASES}_cases_of_1s_s",
            wall.pop("ours"),
            "s",
            "lower",
            f"{_METHOD}, each waits {SECONDS:g} s, {CONCURRENCY} at a time; at least {CASES / CONCURRENCY:g} s",
            wall,
        ),
        _cached_rerun(),
    ]


def _ours(seconds: float) -> dict[str, float]:
    return _measured([sys.executable, "-m", "bench.evals", str(seconds)])


def _peer(python: Path, name: str, seconds: float) -> dict[str, float]:
    return _measured([str(python), str(_PEER_PROGRAM), name, str(CASES), str(CONCURRENCY), str(seconds)])


def _measured(command: list[str]) -> dict[str, float]:
    # In a folder of its own: DeepEval leaves one where it runs.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "DEEPEVAL_TELEMETRY_OPT_OUT": "YES"}
        process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return result


def _environment(package: str) -> Path | None:
    """The Python of an environment that has `package`, created once under build/; None if it cannot be installed."""
    folder = Path("build") / "peers" / package
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True)
        process = subprocess.run([python, "-m", "pip", "install", "-qq", package], check=False)
        if process.returncode:
            print(f"{package} cannot be installed here; it is left out", file=sys.stderr)
            return None
        (folder / "installed").touch()
    return python.absolute()


_CACHED = """\
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from handrail import Answered, govern
from handrail.evals import EvalSpec

model = FunctionModel(lambda _messages, _info: ModelResponse([TextPart("ok")]), model_name="instant")
cached = govern(Agent(model), name="cached")
cached_evals = EvalSpec(
    agent=cached,
    cases=Path(__file__).parent / "cases.yaml",
    observe=lambda outcome: {"answer": outcome.output if isinstance(outcome, Answered) else None},
)
"""


def _cached_rerun() -> Figure:
    """The seconds that the command reports for rerunning a governed agent with recorded responses."""
    handrail = [
        str(Path(sys.executable).with_name("handrail")),
        "eval",
        "run",
        "cached",
        "--concurrency",
        str(CONCURRENCY),
    ]
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        _freeze_cases(folder)
        (folder / "handrail.toml").write_text('[agents]\ncached = "cached_agent:cached"\n')
        (folder / "cached_agent.py").write_text(_CACHED)
        seconds = []
        for number in range(ROUNDS + 1):
            options = ["--recorded" if number else "--cache", "responses.jsonl", "--json"]
            process = subprocess.run([*handrail, *options], capture_output=True, text=True, check=True, cwd=folder)
            seconds.append(json.loads(process.stdout)["seconds"])
    method = (
        f"`handrail eval run --recorded`, a governed agent, {CASES} cases, every trial committed; median of {ROUNDS}"
    )
    return Figure(f"cached_rerun_{CASES}_s", median(seconds[1:]), "s", "lower", method)


def _freeze_cases(folder: Path) -> Path:
    cases = folder / "cases.yaml"
    rows = [
        f"  - {{id: c-{n}, input: 'case {n}', expect: {{answer: ok}}, source: bench, date: 2026-11-25}}"
        for n in range(CASES)
    ]
    cases.write_text("\n".join(["name: bench", "description: Nothing.", "cases:", *rows, ""]))
    freeze(cases, "bench", dt.date(2026, 11, 25))
    return cases


def _run_once(seconds: float) -> dict[str, Any]:
    async def answer(_text: str) -> dict[str, str]:
        if seconds:
            await asyncio.sleep(seconds)
        return {"answer": "ok"}

    with tempfile.TemporaryDirectory() as folder:
        spec = EvalSpec(agent=answer, name="bench", cases=_freeze_cases(Path(folder)))
        runtime = Runtime(Settings(base=Path(folder)))
        cpu, wall = time.process_time(), time.perf_counter()
        report = asyncio.run(run_evals(runtime, spec, concurrency=CONCURRENCY))
        times = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        runtime.close()
    assert report.score is not None
    assert report.score.mean == 1
    return {**times, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    print(json.dumps(_run_once(float(sys.argv[1]))))
