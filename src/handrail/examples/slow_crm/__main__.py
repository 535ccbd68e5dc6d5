"""The lesson in one go: what the slow agent's trace says, and what the agent that was made of it takes.

python -m handrail.examples.slow_crm          # in simulated time
python -m handrail.examples.slow_crm --real   # really waiting, 12 seconds
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from handrail import GovernedAgent, Runtime, Settings, use_runtime
from handrail.testing import sandbox

from .agent import agent, fast
from .crm import sleeping_by
from .simulation import IN_A_ROW, SIDE_BY_SIDE, Simulation

QUESTION = "Where is my parcel?"
CUSTOMER = "u-1077"
_PROGRAM = "from handrail.cli import main; main()"


def main() -> None:
    """Runs both agents on a store of their own and lets `handrail traces slow` say where the time goes."""
    run = really if "--real" in sys.argv[1:] else simulated
    with tempfile.TemporaryDirectory() as folder:
        took = run(agent, IN_A_ROW, Path(folder))
        _say(f"The agent took {took.total_seconds():.1f} s.\n\n$ handrail traces slow")
        _say(_traces_slow(folder))
        finding = json.loads(_traces_slow(folder, "--json"))["findings"][0]
        took = run(fast, SIDE_BY_SIDE, Path(folder))
    _say("The same agent, its look-ups begun beside the first model call:")
    _say(f"  predicted {finding['trace_then_ns'] / 1e9:.1f} s\n  took      {took.total_seconds():.1f} s")


def simulated(governed: GovernedAgent[Any, str], at_once: Sequence[int], folder: Path) -> timedelta:
    """How long the agent takes to answer, in time that does not pass; its trace is in the folder's store."""
    simulation = Simulation()
    with sandbox(folder, clock=simulation.clock), sleeping_by(simulation.sleep):
        outcome = asyncio.run(simulation.run(governed.run(QUESTION, user=CUSTOMER), at_once))
    return outcome.facts.duration


def really(governed: GovernedAgent[Any, str], _at_once: Sequence[int], folder: Path) -> timedelta:
    """The same, waiting for it."""
    runtime = Runtime(Settings(base=folder))
    try:
        with use_runtime(runtime):
            return asyncio.run(governed.run(QUESTION, user=CUSTOMER)).facts.duration
    finally:
        runtime.close()


def _traces_slow(folder: str, *options: str) -> str:
    """What the program prints, in that folder."""
    command = [sys.executable, "-c", _PROGRAM, "traces", "slow", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)  # noqa: S603 - our own
    return done.stdout.decode()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
