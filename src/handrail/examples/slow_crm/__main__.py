"""Shows what the slow agent's trace recommends, and how fast an agent is that follows the recommendation.

python -m handrail.examples.slow_crm          # in simulated time
python -m handrail.examples.slow_crm --real   # in real time, 12 seconds
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
from .crm import use_sleep
from .simulation import PARALLEL, SEQUENTIAL, Simulation

QUESTION = "Where is my parcel?"
CUSTOMER = "u-1077"
_PROGRAM = "from handrail.cli import main; main()"


def main() -> None:
    """Runs both agents on a temporary store, and `handrail traces slow` on their traces."""
    run = run_in_real_time if "--real" in sys.argv[1:] else run_simulated
    with tempfile.TemporaryDirectory() as folder:
        duration = run(agent, SEQUENTIAL, Path(folder))
        _print(f"The agent took {duration.total_seconds():.1f} s.\n\n$ handrail traces slow")
        _print(_traces_slow(folder))
        opportunity = json.loads(_traces_slow(folder, "--json"))["opportunities"][0]
        duration = run(fast, PARALLEL, Path(folder))
    _print("The same agent, with its lookups started together with the first model call:")
    _print(f"  predicted {opportunity['trace_then_ns'] / 1e9:.1f} s\n  took      {duration.total_seconds():.1f} s")


def run_simulated(governed: GovernedAgent[Any, str], sleepers: Sequence[int], folder: Path) -> timedelta:
    """Runs an agent in simulated time; its trace is in the store in `folder`.

    Args:
        governed: The agent.
        sleepers: As for `Simulation.run`.
        folder: Where the store is.

    Returns:
        How long the agent took to answer.
    """
    simulation = Simulation()
    with sandbox(folder, clock=simulation.clock), use_sleep(simulation.sleep):
        outcome = asyncio.run(simulation.run(governed.run(QUESTION, user=CUSTOMER), sleepers))
    return outcome.facts.duration


def run_in_real_time(governed: GovernedAgent[Any, str], _sleepers: Sequence[int], folder: Path) -> timedelta:
    """Runs an agent in real time; arguments and result are those of `run_simulated`."""
    runtime = Runtime(Settings(base=folder))
    try:
        with use_runtime(runtime):
            return asyncio.run(governed.run(QUESTION, user=CUSTOMER)).facts.duration
    finally:
        runtime.close()


def _traces_slow(folder: str, *options: str) -> str:
    """What `handrail traces slow` prints in `folder`."""
    command = [sys.executable, "-c", _PROGRAM, "traces", "slow", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
    completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)  # noqa: S603 - our own
    return completed.stdout.decode()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
