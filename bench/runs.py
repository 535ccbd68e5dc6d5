"""The overhead of governing a run: the same agent with an instant fake model, bare and governed, in one process."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from bench.figure import Figure
from bench.measure import interleaved, raw_fsync_ms
from handrail import Runtime, Settings, govern, tool, use_runtime

ROUNDS = 15
RUNS = 40
CONCURRENT_RUNS = 50
_METHOD = (
    f"one tool call, two requests to an instant fake model, SQLite with synchronous=FULL; {ROUNDS} interleaved rounds "
    f"of {RUNS} runs each way in one process"
)


class Answer(BaseModel):
    text: str


def look_up(number: str) -> str:
    """Look something up."""
    return f"found {number}"


def _model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if len(messages) == 1:
        return ModelResponse([ToolCallPart("look_up", {"number": "1042"})])
    return ModelResponse([ToolCallPart(info.output_tools[0].name, {"text": "done"})])


agent = Agent(
    FunctionModel(_model), output_type=Answer, instructions="Be brief.", tools=[tool(look_up, effect="reads")]
)
governed = govern(agent, name="bench")


async def _bare() -> None:
    await agent.run("Where is order 1042?")


async def _governed() -> None:
    await governed.run("Where is order 1042?", user="u-1", tenant="acme")


def figures() -> list[Figure]:
    """Runs the benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Settings(base=Path(folder)))
        with use_runtime(runtime), asyncio.Runner() as runner:
            for work in (_bare, _governed):
                _seconds(runner, work, time.perf_counter)
            before = runtime.database.commits
            runner.run(_governed())
            commits = runtime.database.commits - before
            measured = [
                *_added(runner, "cpu_ms_added", time.process_time, "process CPU time"),
                *_added(runner, "wall_ms_added", time.perf_counter, "wall time, one run after another"),
                Figure("commits_per_run", commits, "commits", "lower", "counted by the writer over one run alone"),
                _concurrent_rate(runner),
                Figure("raw_fsync_ms", raw_fsync_ms(Path(folder)), "ms", "lower", "median of 4 KiB appends, same disk"),
            ]
        runtime.close()
    return [*measured, _import_added()]


def _import_added() -> Figure:
    """The seconds that `import handrail` takes in a process that has imported pydantic_ai."""
    script = (
        "import time; t = time.perf_counter(); import pydantic_ai; a = time.perf_counter(); import handrail; "
        "print(a - t, time.perf_counter() - a)"
    )
    pairs = [
        tuple(map(float, subprocess.check_output([sys.executable, "-c", script], text=True).split()))
        for _ in range(ROUNDS)
    ]
    return Figure(
        "import_s_added",
        median(ours for _, ours in pairs),
        "s",
        "lower",
        f"import handrail after import pydantic_ai, medians of {ROUNDS} fresh processes; the peer is pydantic_ai's own",
        {"pydantic_ai": median(theirs for theirs, _ in pairs)},
    )


def _seconds(runner: asyncio.Runner, work: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> float:
    async def repeat() -> float:
        start = clock()
        for _ in range(RUNS):
            await work()
        return clock() - start

    return runner.run(repeat())


def _added(runner: asyncio.Runner, name: str, clock: Callable[[], float], time_kind: str) -> list[Figure]:
    added: list[float] = []

    def ours() -> float:
        governed_s, bare_s = _seconds(runner, _governed, clock), _seconds(runner, _bare, clock)
        added.append((governed_s - bare_s) / RUNS * 1e3)
        return governed_s

    compared = interleaved(ours, lambda: _seconds(runner, _bare, clock), ROUNDS)
    total = name.removesuffix("_added")
    return [
        Figure(name, median(added), "ms", "lower", f"governed less bare, median of rounds, {time_kind}; {_METHOD}"),
        Figure(
            f"{total}_per_run",
            compared.ours / RUNS * 1e3,
            "ms",
            "lower",
            f"{time_kind} of a governed run beside a bare one; median ratio {compared.ratio:.2f}",
            {"pydantic_ai": compared.peer / RUNS * 1e3},
        ),
    ]


def _concurrent_rate(runner: asyncio.Runner) -> Figure:
    def rate(work: Callable[[], Awaitable[None]]) -> float:
        async def gather_runs() -> float:
            start = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(CONCURRENT_RUNS)))
            return CONCURRENT_RUNS / (time.perf_counter() - start)

        return runner.run(gather_runs())

    compared = interleaved(lambda: rate(_governed), lambda: rate(_bare), ROUNDS)
    method = (
        f"{CONCURRENT_RUNS} runs at once on one loop, {ROUNDS} interleaved rounds; median ratio {compared.ratio:.2f}"
    )
    return Figure("runs_per_s_50_at_once", compared.ours, "runs/s", "higher", method, {"pydantic_ai": compared.peer})
