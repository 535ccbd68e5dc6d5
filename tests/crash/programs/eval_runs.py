"""Kills an eval run at a commit and resumes it a day later, once for each commit.

eval_runs.py FIRST STEP CONCURRENCY, then one store address per line on standard input, one per crash: the kill at
commit FIRST, then at every STEP-th. An even kill is right before its commit, an odd one right after it. Prints a line
of JSON for each kill, and stops once the eval run ends before the kill; that line has `killed` false.
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

# Imported once before the forks: otherwise each child would load it on its first run.
import genai_prices.data  # noqa: F401
import opentelemetry.sdk.trace  # noqa: F401
from anyio._backends import _asyncio  # noqa: F401
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage
from sqlalchemy import select

from handrail import Answered, Outcome, Runtime, Settings, govern, tool
from handrail.ceilings.ledger import charge_expired
from handrail.ceilings.ledger_queries import find_discrepancies
from handrail.ceilings.tables import holds
from handrail.config.settings import PriceOverride
from handrail.evals import EvalSpec
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import Case
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.review.approvals.queries import list_approvals
from handrail.testing import VirtualClock, kill_at_commit

WORDS = ("one", "two", "refund")
TRIALS, CONCURRENCY = 2, int(sys.argv[3])
START = VirtualClock().now()
MODEL = "echo-model"
USED = RequestUsage(input_tokens=1_000, output_tokens=100)


class Echo:
    """An eval set of three cases, its agent, and logs of the model's requests and of the reported trials."""

    def __init__(self, folder: Path, store: str) -> None:
        prices = {MODEL: PriceOverride(input=Decimal(10), output=Decimal(100))}
        self._settings = Settings(base=folder, store=store, prices=prices)
        self._cases = folder / "cases.yaml"
        self.calls = folder / "calls.log"
        self.reported = folder / "reported.log"

    def freeze(self) -> None:
        rows = [
            f"  - {{id: {word}, input: {word}, expect: {{text: {word}}}, source: here, date: 2026-01-01}}\n"
            for word in WORDS
        ]
        self._cases.write_text("name: echo\ndescription: The input, repeated.\ncases:\n" + "".join(rows))
        freeze(self._cases, "first", START.date())

    def open(self, later: timedelta = timedelta(0)) -> Runtime:
        return Runtime(self._settings, clock=VirtualClock(START + later))

    async def run(self, runtime: Runtime, resume: str | None) -> None:
        agent = Agent(
            FunctionModel(self._respond, model_name=MODEL),
            tools=[tool(_refund, effect="irreversible")],
            model_settings={"max_tokens": 200},
        )
        spec = EvalSpec(agent=govern(agent, name="echo"), cases=self._cases, observe=_observe)
        await run_evals(runtime, spec, trials=TRIALS, concurrency=CONCURRENCY, resume=resume, on_trial=self._report)

    def _respond(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        prompt = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
        _append(self.calls, prompt)
        part = ToolCallPart("_refund", {}) if prompt == "refund" else TextPart(prompt)
        return ModelResponse([part], usage=USED, model_name=MODEL)

    def _report(self, _case: Case, trial: Trial) -> None:
        _append(self.reported, f"{trial.case_id} {trial.trial} {trial.run_id}")


def _refund() -> str:
    raise AssertionError


def _observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"text": outcome.output if isinstance(outcome, Answered) else "refund"}


def _append(log: Path, line: str) -> None:
    """Appends a line to a file and syncs it to the disk."""
    with log.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _until_killed(echo: Echo, kill: int) -> None:
    runtime = echo.open()
    kill_at_commit(runtime, kill)
    asyncio.run(echo.run(runtime, None))


def _resume(echo: Echo, killed: bool) -> None:
    runtime = echo.open(later=timedelta(days=1))
    calls, reported, stored = _lines(echo.calls), _lines(echo.reported), _eval_runs(runtime)
    asyncio.run(echo.run(runtime, stored[0]["id"] if stored else None))
    runtime.database.write_now(charge_expired(runtime.clock.now()))
    rows = runtime.database.read_now(lambda conn: conn.execute(select(holds.c.state, holds.c.settled_cost)).all())
    pending = runtime.database.read_now(
        list_approvals(runtime.clock.now(), state="pending", tenant=None, limit=9, before=None)
    )
    report = {
        "killed": killed,
        "reported": reported,
        "stored": stored,
        "calls": calls,
        "calls_after": _lines(echo.calls)[len(calls) :],
        "eval_runs": _eval_runs(runtime),
        "holds": [[row.state, row.settled_cost] for row in rows],
        "discrepancies": runtime.database.read_now(find_discrepancies()),
        "pending": len(pending),
    }
    print(json.dumps(report), flush=True)  # noqa: T201
    runtime.close()


def _eval_runs(runtime: Runtime) -> list[dict[str, Any]]:
    """All stored eval runs and their trials, each written as in the log of reported trials."""
    eval_runs = runtime.database.read_now(
        lambda conn: [load_eval_run(listed.eval_run_id)(conn) for listed in list_eval_runs(None, 9)(conn)]
    )
    return [
        {
            "id": view.eval_run_id,
            "ended": view.ended_at and view.ended_at.isoformat(),
            "trials": [f"{trial.case_id} {trial.trial} {trial.run_id}" for trial in trials],
            "costs": [trial.cost for trial in trials],
        }
        for view, trials in eval_runs
    ]


def _in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - an exception must not return into the parent's code
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    kill, step = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            echo = Echo(Path(folder), line.strip())
            echo.freeze()
            first_status = _in_child(lambda: _until_killed(echo, kill))  # noqa: B023
            assert first_status in (0, 9), f"kill {kill}: the first process ended with {first_status}"
            status = _in_child(lambda: _resume(echo, killed=first_status != 0))  # noqa: B023
            assert status == 0, f"kill {kill}: the restart ended with {status}"
        if first_status == 0:
            return
        kill += step


main()
