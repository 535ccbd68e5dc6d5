"""The eval runner on a plain async callable, beside the others' runners, each in an environment of its own."""

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
from handrail.evals.eval_set.model import freeze
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.runner.task import CallableTask

CASES = 300
AT_ONCE = 100
SECONDS = 1.0
ROUNDS = 3
PEERS = {"pydantic-evals": "pydantic-evals", "inspect": "inspect-ai", "deepeval": "deepeval"}
_PEER_PROGRAM = Path(__file__).parent / "evals_peer.py"
_HOW = (
    f"{CASES} cases on a plain async callable, exact match, medians of {ROUNDS} interleaved rounds of fresh processes"
)


def figures() -> list[Figure]:
    peers = {name: python for name, package in PEERS.items() if (python := _environment(package)) is not None}
    found: dict[str, dict[str, list[dict[str, float]]]] = {"instant": {}, "slow": {}}
    for _ in range(ROUNDS):
        for kind, seconds in (("instant", 0.0), ("slow", SECONDS)):
            found[kind].setdefault("ours", []).append(_ours(seconds))
            for name, python in peers.items():
                found[kind].setdefault(name, []).append(_peer(python, name, seconds))
    cpu = {who: median(each["cpu"] for each in rounds) * 1e3 / CASES for who, rounds in found["instant"].items()}
    wall = {who: median(each["wall"] for each in rounds) for who, rounds in found["slow"].items()}
    return [
        Figure(
            "cpu_ms_per_case",
            cpu.pop("ours"),
            "ms",
            "lower",
            f"{_HOW}, instant; CPU of the process between start and end of the run. Ours commits every trial",
            cpu,
        ),
        Figure(
            f"wall_{CASES}_cases_of_1s_s",
            wall.pop("ours"),
            "s",
            "lower",
            f"{_HOW}, each waits {SECONDS:g} s, {AT_ONCE} at a time; the least possible is {CASES / AT_ONCE:g} s",
            wall,
        ),
        _cached_rerun(),
    ]


def _ours(seconds: float) -> dict[str, float]:
    return _measured([sys.executable, "-m", "bench.evals", str(seconds)])


def _peer(python: Path, name: str, seconds: float) -> dict[str, float]:
    return _measured([str(python), str(_PEER_PROGRAM), name, str(CASES), str(AT_ONCE), str(seconds)])


def _measured(command: list[str]) -> dict[str, float]:
    # In a folder of its own: DeepEval leaves one where it runs.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "DEEPEVAL_TELEMETRY_OPT_OUT": "YES"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment(package: str) -> Path | None:
    """The Python of an environment that has `package`, made once under build/; None where it cannot be installed."""
    folder = Path("build") / "peers" / package
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True)
        done = subprocess.run([python, "-m", "pip", "install", "-qq", package], check=False)
        if done.returncode:
            print(f"{package} cannot be installed here; it is left out", file=sys.stderr)
            return None
        (folder / "made").touch()
    return python.absolute()


_CACHED = """\
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from handrail import Answered, Trials, govern

model = FunctionModel(lambda _messages, _info: ModelResponse([TextPart("ok")]), model_name="instant")
cached = govern(
    Agent(model),
    name="cached",
    trials=Trials(
        cases=Path(__file__).parent / "cases.yaml",
        observe=lambda found: {"said": found.output if isinstance(found, Answered) else None},
    ),
)
"""


def _cached_rerun() -> Figure:
    """Seconds that a rerun of a governed agent takes whose model's responses are all kept, as the command reports."""
    handrail = [str(Path(sys.executable).with_name("handrail")), "eval", "run", "cached", "--at-once", str(AT_ONCE)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _frozen(folder)
        (folder / "handrail.toml").write_text('[agents]\ncached = "cached_agent:cached"\n')
        (folder / "cached_agent.py").write_text(_CACHED)
        taken = []
        for number in range(ROUNDS + 1):
            kept = ["--recorded" if number else "--cache", "kept.jsonl", "--json"]
            done = subprocess.run([*handrail, *kept], capture_output=True, text=True, check=True, cwd=folder)
            taken.append(json.loads(done.stdout)["seconds"])
    how = f"`handrail eval run --recorded`, a governed agent, {CASES} cases, every trial committed; median of {ROUNDS}"
    return Figure(f"cached_rerun_{CASES}_s", median(taken[1:]), "s", "lower", how)


def _frozen(folder: Path) -> Path:
    cases = folder / "cases.yaml"
    rows = [
        f"  - {{id: c-{n}, input: 'case {n}', expect: {{said: ok}}, source: bench, date: 2026-11-25}}"
        for n in range(CASES)
    ]
    cases.write_text("\n".join(["name: bench", "description: Nothing.", "cases:", *rows, ""]))
    freeze(cases, "bench", dt.date(2026, 11, 25))
    return cases


def _run_once(seconds: float) -> dict[str, Any]:
    async def answer(_text: str) -> dict[str, str]:
        if seconds:
            await asyncio.sleep(seconds)
        return {"said": "ok"}

    with tempfile.TemporaryDirectory() as made:
        task = CallableTask(answer, name="bench", cases=_frozen(Path(made)))
        runtime = Runtime(Settings(base=Path(made)))
        cpu, wall = time.process_time(), time.perf_counter()
        report = asyncio.run(run_evals(runtime, task, at_once=AT_ONCE))
        found = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        runtime.close()
    assert report.score is not None
    assert report.score.mean == 1
    return {**found, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    print(json.dumps(_run_once(float(sys.argv[1]))))
