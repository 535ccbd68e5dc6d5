"""An eval run is killed at any of its commits and resumed: only the trials in flight are repeated."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from handrail.evals.eval_set.lock import freeze
from handrail.kernel.clock import SystemClock
from tests.cli.terminal import PROGRAM, Folder, environment
from tests.crash.processes import read_line, running, write_line

EXPECTED = sorted(f"{case_id} {trial}" for case_id in ("one", "two", "refund") for trial in (1, 2))
COST = 20_000_000
"""The cost in nano-dollars of one request; each trial makes one."""

SHOP = """
import asyncio
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from handrail import govern
from handrail.evals import EvalSpec


async def respond(messages, _info):
    prompt = messages[-1].parts[-1].content
    with Path("calls").open("a") as calls:
        calls.write(prompt + "\\n")
    if prompt == "hush" and not Path("go").exists():
        print("blocks", flush=True)
        await asyncio.Event().wait()
    return ModelResponse([TextPart(prompt)])


def observe(outcome):
    return {"reply": outcome.output}


echo = govern(Agent(FunctionModel(respond)), name="echo")
evals = EvalSpec(agent=echo, cases=Path(__file__).parent / "cases.yaml", observe=observe)
"""


def kill_at_commits(first: int, step: int, concurrency: int, store: Callable[[], str]) -> int:
    """Fails if a guarantee was broken after a kill; returns the number of the first kill that was not reached."""
    with running("eval_runs", str(first), str(step), str(concurrency)) as program:
        for kill in count(first, step):
            write_line(program, store())
            line = read_line(program)
            assert line, f"kill {kill}: the program ended"
            report = json.loads(line)
            violations = broken_guarantees(report, concurrency)
            assert not violations, f"kill {kill}: {violations} in {line}"
            if not report["killed"]:
                return kill
    raise AssertionError


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_killed_at_some_commits(stores: Callable[[], str]) -> None:
    """No reported trial is lost or repeated, each is stored once in the end, and the ledger is consistent."""
    assert kill_at_commits(1, 4, 3, stores) > 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stores", "step", "concurrency"), [("sqlite", 1, 1), ("sqlite", 1, 3), ("postgres", 2, 3)], indirect=["stores"]
)
def test_killed_at_every_commit(stores: Callable[[], str], step: int, concurrency: int) -> None:
    """The same for every commit. On Postgres, each call has its own transaction."""
    assert kill_at_commits(0, step, concurrency, stores) > 12


def test_resume_after_kill(tmp_path: Path) -> None:
    """After a kill in its second trial, `handrail eval run --resume` makes all trials but the first."""
    folder = Folder(tmp_path)
    (tmp_path / "shop.py").write_text(SHOP)
    freeze(tmp_path / "cases.yaml", "first", SystemClock().now().date())
    command = [str(PROGRAM), "eval", "run", "echo", "--trials", "2", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment({}), stdout=subprocess.PIPE, text=True) as process:
        assert read_line(process) == "blocks"
        process.kill()
    [listed] = folder.handrail("eval", "list", "--json").json
    assert (listed["trials"], listed["eval_run"]["ended_at"]) == (1, None)
    (tmp_path / "go").touch()
    eval_run_id = listed["eval_run"]["eval_run_id"]
    resumed = folder.handrail("eval", "run", "echo", "--trials", "2", "--resume", eval_run_id, "--json")
    trials = resumed.json["report"]["trials"]
    assert [(trial["case_id"], trial["trial"]) for trial in trials] == [
        ("hello", 1),
        ("hello", 2),
        ("silence", 1),
        ("silence", 2),
    ]
    assert Counter((tmp_path / "calls").read_text().split()) == {"hello": 2, "hush": 3}


def broken_guarantees(report: dict[str, Any], concurrency: int) -> list[str]:
    """Describes the guarantees that were broken; empty if all hold."""
    [final] = report["eval_runs"]
    [stored] = report["stored"] or [{"trials": [], "ended": None}]
    missing = set(EXPECTED) - set(map(_without_run, stored["trials"]))
    settled = [cost for state, cost in report["holds"] if state == "settled"]
    charged = [cost for state, cost in report["holds"] if state == "charged"]
    calls = len(report["calls"]) + len(report["calls_after"])
    guarantees = {
        "a reported trial is lost": set(report["reported"]) <= set(stored["trials"]),
        "more trials were lost than were in flight": len(report["calls"]) - len(stored["trials"]) <= concurrency,
        "a stored trial was replaced": set(stored["trials"]) <= set(final["trials"]),
        "other trials than the missing ones were made": Counter(report["calls_after"])
        == Counter(trial.split()[0] for trial in missing),
        "a trial is missing or duplicated": sorted(map(_without_run, final["trials"])) == EXPECTED,
        "the eval run ended too early": stored["ended"] is None or not missing,
        "the eval run did not end, or ended twice": final["ended"] is not None
        and stored["ended"] in (None, final["ended"]),
        "a trial has a wrong cost": set(final["costs"]) == {COST},
        "a hold is still open": len(settled) + len(charged) == len(report["holds"]),
        "more was charged than was in flight": len(charged) <= concurrency and min(charged, default=COST) >= COST,
        "money is unaccounted for": set(settled) == {COST} and len(report["holds"]) >= calls,
        "the ledger is inconsistent": report["discrepancies"] == [],
        "a lost trial left a pending approval": report["pending"] == 0,
    }
    return [violation for violation, holds in guarantees.items() if not holds]


def _without_run(trial: str) -> str:
    return trial.rpartition(" ")[0]
