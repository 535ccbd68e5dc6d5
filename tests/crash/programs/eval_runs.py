"""Makes an eval run once for every commit of it, is killed at that commit, and goes on with it a day later.

eval_runs.py FIRST STEP AT_ONCE, then a store's address a line on standard input, one per crash: kill FIRST is done,
then every STEP-th. An even kill is right before its commit, an odd one right after it. Prints a line of JSON for each,
and stops after the first kill that never came, which it says.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

# Once, before all forks, what each of them would else load again when it first runs an agent.
import genai_prices.data  # noqa: F401
import opentelemetry.sdk.trace  # noqa: F401
from anyio._backends import _asyncio  # noqa: F401
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage
from sqlalchemy import select

from handrail import Answered, Outcome, Runtime, Settings, govern, tool
from handrail.ceilings.ledger import charge_expired, holds
from handrail.ceilings.ledger_queries import audit
from handrail.config.settings import Price
from handrail.evals import EvalSpec
from handrail.evals.eval_set.model import Case, freeze
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.review.approvals.store import list_approvals
from handrail.testing import VirtualClock, killed_at_commit

WORDS = ("one", "two", "refund")
TRIALS, AT_ONCE = 2, int(sys.argv[3])
START = VirtualClock().now()
MODEL = "echo-model"
USED = RequestUsage(input_tokens=1_000, output_tokens=100)


class Echo:
    """A set of three cases in a folder, its agent, and logs of the model's calls and of the trials it was told of."""

    def __init__(self, folder: Path, store: str) -> None:
        prices = {MODEL: Price(input=Decimal(10), output=Decimal(100))}
        self._settings = Settings(base=folder, store=store, prices=prices)
        self._cases = folder / "cases.yaml"
        self.calls = folder / "calls.log"
        self.told = folder / "told.log"

    def freeze(self) -> None:
        rows = [f"  - {{id: {w}, input: {w}, expect: {{said: {w}}}, source: here, date: 2026-01-01}}\n" for w in WORDS]
        self._cases.write_text("name: echo\ndescription: What comes back.\ncases:\n" + "".join(rows))
        freeze(self._cases, "first", START.date())

    def open(self, later: timedelta = timedelta(0)) -> Runtime:
        return Runtime(self._settings, clock=VirtualClock(START + later))

    async def go(self, runtime: Runtime, resume: str | None) -> None:
        trials = EvalSpec[None, str](cases=self._cases, observe=_observe)
        agent = Agent(
            FunctionModel(self._respond, model_name=MODEL),
            tools=[tool(_refund, effect="irreversible")],
            model_settings={"max_tokens": 200},
        )
        echo = govern(agent, name="echo", trials=trials)
        await run_evals(runtime, echo, trials=TRIALS, at_once=AT_ONCE, resume=resume, on_trial=self._tell)

    def _respond(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        asked = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
        _append(self.calls, asked)
        part = ToolCallPart("_refund", {}) if asked == "refund" else TextPart(asked)
        return ModelResponse([part], usage=USED, model_name=MODEL)

    def _tell(self, _case: Case, trial: Trial) -> None:
        _append(self.told, f"{trial.case_id} {trial.trial} {trial.run_id}")


def _refund() -> str:
    raise AssertionError


def _observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"said": outcome.output if isinstance(outcome, Answered) else "refund"}


def _append(log: Path, line: str) -> None:
    """Adds a line to a file, on disk when it returns."""
    with log.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _until_killed(echo: Echo, kill: int) -> None:
    runtime = echo.open()
    killed_at_commit(runtime.database, kill)
    asyncio.run(echo.go(runtime, None))


def _go_on(echo: Echo, killed: bool) -> None:
    runtime = echo.open(later=timedelta(days=1))
    calls, told, left = _lines(echo.calls), _lines(echo.told), _eval_runs(runtime)
    asyncio.run(echo.go(runtime, left[0]["id"] if left else None))
    runtime.database.write_now(charge_expired(runtime.clock.now()))
    rows = runtime.database.read_now(lambda conn: conn.execute(select(holds.c.state, holds.c.settled_cost)).all())
    pending = runtime.database.read_now(
        lambda conn: list_approvals(conn, state="pending", tenant=None, limit=9, before=None)
    )
    found = {
        "killed": killed,
        "told": told,
        "left": left,
        "calls": calls,
        "calls_after": _lines(echo.calls)[len(calls) :],
        "eval_runs": _eval_runs(runtime),
        "holds": [[row.state, row.settled_cost] for row in rows],
        "books": runtime.database.read_now(audit),
        "pending": len(pending),
    }
    print(json.dumps(found), flush=True)  # noqa: T201
    runtime.close()


def _eval_runs(runtime: Runtime) -> list[dict[str, Any]]:
    """What the store says of every eval run and its trials, each as it was told."""
    found = runtime.database.read_now(
        lambda conn: [load_eval_run(conn, each.eval_run_id) for each in list_eval_runs(conn, None, 9)]
    )
    return [
        {
            "id": view.eval_run_id,
            "ended": view.ended_at and view.ended_at.isoformat(),
            "trials": [f"{each.case_id} {each.trial} {each.run_id}" for each in trials],
            "costs": [each.cost for each in trials],
        }
        for view, trials in found
    ]


def _in_a_process(work: Callable[[], None]) -> int:
    """Runs `work` in a process of its own and gives its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - nothing may come back out of the child
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    kill, step = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as made:
            echo = Echo(Path(made), line.strip())
            echo.freeze()
            first = _in_a_process(lambda: _until_killed(echo, kill))  # noqa: B023
            assert first in (0, 9), f"kill {kill}: the first process ended with {first}"
            again = _in_a_process(lambda: _go_on(echo, killed=first != 0))  # noqa: B023
            assert again == 0, f"kill {kill}: the new start ended with {again}"
        if first == 0:
            return
        kill += step


main()
