"""An eval run killed at any of its commits and gone on with: only what was under way is tried again."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from handrail.evals.eval_set.model import freeze
from handrail.kernel.clock import SystemClock
from tests.cli.terminal import PROGRAM, Folder, environment
from tests.crash import test_end_to_end
from tests.crash.processes import running, said, tell

stores = test_end_to_end.stores

WANTED = sorted(f"{case_id} {trial}" for case_id in ("one", "two", "refund") for trial in (1, 2))
COST = 20_000_000
"""Nano-dollars of one request of the program's agent, which asks once a trial."""

SHOP = """
import asyncio
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from handrail import EvalSpec, govern


async def respond(messages, _info):
    heard = messages[-1].parts[-1].content
    with Path("calls").open("a") as calls:
        calls.write(heard + "\\n")
    if heard == "hush" and not Path("go").exists():
        print("hangs", flush=True)
        await asyncio.Event().wait()
    return ModelResponse([TextPart(heard)])


def observe(outcome):
    return {"said": outcome.output}


trials = EvalSpec(cases=Path(__file__).parent / "cases.yaml", observe=observe)
echo = govern(Agent(FunctionModel(respond)), name="echo", trials=trials)
"""


def killed(first: int, step: int, at_once: int, store: Callable[[], str]) -> int:
    """The number of the first kill that never came; raises AssertionError where a promise was broken before."""
    with running("eval_runs", str(first), str(step), str(at_once)) as program:
        for kill in count(first, step):
            tell(program, store())
            line = said(program)
            assert line, f"kill {kill}: the program ended"
            found = json.loads(line)
            assert not wrong_with(found, at_once), f"kill {kill}: {wrong_with(found, at_once)} in {line}"
            if not found["killed"]:
                return kill
    raise AssertionError


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_killed_at_every_commit(stores: Callable[[], str], at_once: int) -> None:
    """No trial that was told is lost or made again, each is there once in the end, and the books agree."""
    assert killed(0, 1, at_once, stores) > 12


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
def test_killed_before_every_second_commit_of_postgres(stores: Callable[[], str]) -> None:
    """The same on Postgres, where each call is a transaction of its own."""
    assert killed(0, 4, 3, stores) > 12


def test_from_the_terminal(tmp_path: Path) -> None:
    """`handrail eval run` is killed in its second trial; with `--resume` it makes all trials but the first."""
    folder = Folder(tmp_path)
    (tmp_path / "shop.py").write_text(SHOP)
    freeze(tmp_path / "cases.yaml", "first", SystemClock().now().date())
    command = [str(PROGRAM), "eval", "run", "echo", "--trials", "2", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment({}), stdout=subprocess.PIPE, text=True) as process:
        assert said(process) == "hangs"
        process.kill()
    [left] = folder.handrail("eval", "list", "--json").json
    assert (left["trials"], left["eval_run"]["ended_at"]) == (1, None)
    (tmp_path / "go").touch()
    eval_run_id = left["eval_run"]["eval_run_id"]
    went_on = folder.handrail("eval", "run", "echo", "--trials", "2", "--resume", eval_run_id, "--json")
    trials = went_on.json["report"]["trials"]
    assert [(each["case_id"], each["trial"]) for each in trials] == [
        ("hello", 1),
        ("hello", 2),
        ("silence", 1),
        ("silence", 2),
    ]
    assert Counter((tmp_path / "calls").read_text().split()) == {"hello": 2, "hush": 3}


def wrong_with(found: dict[str, Any], at_once: int) -> list[str]:
    """What of the promises was broken, in words; empty where all of them were kept."""
    [made] = found["eval_runs"]
    [left] = found["left"] or [{"trials": [], "ended": None}]
    missing = set(WANTED) - set(map(_without_run, left["trials"]))
    settled = [cost for state, cost in found["holds"] if state == "settled"]
    charged = [cost for state, cost in found["holds"] if state == "charged"]
    calls = len(found["calls"]) + len(found["calls_after"])
    kept = {
        "a trial that was told is gone": set(found["told"]) <= set(left["trials"]),
        "more was lost than was under way": len(found["calls"]) - len(left["trials"]) <= at_once,
        "a trial that was kept is another now": set(left["trials"]) <= set(made["trials"]),
        "not what was missing was tried": Counter(found["calls_after"]) == Counter(each.split()[0] for each in missing),
        "a trial is not there, or twice": sorted(map(_without_run, made["trials"])) == WANTED,
        "it ended too early": left["ended"] is None or not missing,
        "it did not end, or a second time": made["ended"] is not None and left["ended"] in (None, made["ended"]),
        "a trial cost something else": set(made["costs"]) == {COST},
        "a hold is still open": len(settled) + len(charged) == len(found["holds"]),
        "more was held than was under way": len(charged) <= at_once and min(charged, default=COST) >= COST,
        "money is unaccounted for": set(settled) == {COST} and len(found["holds"]) >= calls,
        "the books do not agree": found["books"] == [],
        "people are asked for a trial that is lost": found["pending"] == 0,
    }
    return [what for what, true in kept.items() if not true]


def _without_run(trial: str) -> str:
    return trial.rpartition(" ")[0]
