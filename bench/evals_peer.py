"""One round of another project's eval runner, in its own environment; prints JSON.

Usage: evals_peer.py NAME CASES CONCURRENCY SECONDS
"""

import asyncio
import json
import sys
import time
from typing import Any

name, cases, concurrency, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])


async def answer(_text: str) -> str:
    if seconds:
        await asyncio.sleep(seconds)
    return "ok"


def pydantic_evals() -> Any:
    from pydantic_evals import Case, Dataset
    from pydantic_evals.evaluators import EqualsExpected

    rows = [Case(name=f"c-{n}", inputs=f"case {n}", expected_output="ok") for n in range(cases)]
    dataset = Dataset(name="bench", cases=rows, evaluators=[EqualsExpected()])
    return lambda: asyncio.run(dataset.evaluate(answer, max_concurrency=concurrency, progress=False))


def inspect() -> Any:
    import tempfile

    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import exact
    from inspect_ai.solver import solver

    @solver  # type: ignore[untyped-decorator]
    def answering() -> Any:
        async def solve(state: Any, _generate: Any) -> Any:
            state.output.completion = await answer(state.input_text)
            return state

        return solve

    task = inspect_ai.Task(
        dataset=[Sample(input=f"case {n}", target="ok") for n in range(cases)], solver=answering(), scorer=exact()
    )
    folder = tempfile.mkdtemp()
    return lambda: inspect_ai.eval(task, model=None, max_samples=concurrency, log_dir=folder, display="none")


def deepeval() -> Any:
    from deepeval import evaluate
    from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig
    from deepeval.metrics import BaseMetric
    from deepeval.test_case import LLMTestCase

    class Exact(BaseMetric):  # type: ignore[misc]
        threshold = 1.0
        async_mode = True

        def measure(self, test_case: Any) -> float:
            self.score = float(test_case.actual_output == test_case.expected_output)
            self.success = self.score == 1
            return self.score

        async def a_measure(self, test_case: Any, *_: Any, **__: Any) -> float:
            await answer(test_case.input)
            return self.measure(test_case)

        def is_successful(self) -> bool:
            return bool(self.success)

        @property
        def __name__(self) -> str:
            return "exact"

    rows = [LLMTestCase(input=f"case {n}", actual_output="ok", expected_output="ok") for n in range(cases)]
    quiet = DisplayConfig(show_indicator=False, print_results=False)
    return lambda: evaluate(
        rows,
        [Exact()],
        async_config=AsyncConfig(max_concurrent=concurrency),
        display_config=quiet,
        cache_config=CacheConfig(write_cache=False),
    )


def main() -> None:
    run = {"pydantic-evals": pydantic_evals, "inspect": inspect, "deepeval": deepeval}[name]()
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    print(json.dumps({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}))


main()
