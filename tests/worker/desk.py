"""An agent with a slow approved action, in a folder of its own, for workers in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from handrail import AwaitingApproval, Runtime, load_settings
from handrail.ceilings.tables import holds
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.jobs import JobView, list_jobs
from handrail.kernel.db.schema import upgrade
from handrail.registry import find_agent
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import decide
from handrail.runs.runtime import use_runtime
from handrail.runs.store.queries import load_run
from handrail.worker import run_due_jobs

AGENTS = """
import asyncio, time
from pathlib import Path
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from handrail import govern, tool

LOG = Path(__file__).with_name("log")
SECONDS = {seconds}

def note(word):
    with LOG.open("a") as log:
        log.write(word + "\\n")

async def refund():
    note("begun")
    await asyncio.sleep(SECONDS)
    note("ended")
    return "paid"

def refund_in_thread():
    note("begun")
    time.sleep(SECONDS)
    note("ended")
    return "paid"

async def stubborn_refund():
    note("begun")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            pass
    return "paid"

def blocking_refund():
    note("begun")
    time.sleep(SECONDS)
    return "paid"

async def blocks():
    return blocking_refund()

def governed(name, function):
    def respond(messages, info):
        if any(isinstance(part, ToolReturnPart) for part in messages[-1].parts):
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart(function.__name__, {{}}, tool_call_id="call")])
    return govern(Agent(FunctionModel(respond), tools=[tool(function, effect="irreversible")]), name=name)

coroutine = governed("coroutine", refund)
thread = governed("thread", refund_in_thread)
stubborn = governed("stubborn", stubborn_refund)
blocking = governed("blocking", blocks)
"""


class Desk:
    """A folder with agents, their settings and one run whose action is approved."""

    def __init__(self, folder: Path, *, seconds: float, grace: float, store: str = "handrail.db") -> None:
        self.folder = folder
        self._log = folder / "log"
        (folder / "slow_desk.py").write_text(AGENTS.format(seconds=seconds))
        agents = "".join(f'{name} = "slow_desk:{name}"\n' for name in ("coroutine", "thread", "stubborn", "blocking"))
        (folder / "handrail.toml").write_text(
            f'store = "{store}"\n[agents]\n{agents}[worker]\ngrace_seconds = {grace}\n'
        )
        if store.startswith("postgres"):
            upgrade(store_url(store, folder))
        sys.modules.pop("slow_desk", None)
        self.runtime = Runtime(load_settings(folder))
        self.run_id = ""

    async def approve(self, name: str) -> None:
        """Starts a run of the agent and approves its action."""
        with use_runtime(self.runtime):
            outcome = await find_agent(name, self.runtime.settings).run("hi", user="u")
        assert isinstance(outcome, AwaitingApproval)
        self.run_id = outcome.facts.run_id
        [approval] = outcome.approvals
        decision = decide(approval.approval_id, "approved", "u", {}, None, self.runtime.clock.now())
        await self.runtime.database.write(decision)

    async def work(self) -> int:
        """Runs the due jobs in this process."""
        return await run_due_jobs(self.runtime, lambda name: find_agent(name, self.runtime.settings))

    def words(self) -> list[str]:
        """What the actions noted."""
        return self._log.read_text().split() if self._log.exists() else []

    async def state(self) -> tuple[str, str]:
        """The run's status and its approval's state."""
        now = self.runtime.clock.now()
        [approval] = await self.runtime.database.read(load_approvals(self.run_id, now))
        return (await self.runtime.database.read(load_run(self.run_id, now))).status, approval.state

    async def job(self) -> JobView:
        """The job that resumes the run."""
        now = self.runtime.clock.now()
        jobs = await self.runtime.database.read(list_jobs(now, state=None, limit=9, before=None))
        [job] = [job for job in jobs if job.kind == "resume_run"]
        return job

    async def holds(self) -> list[str]:
        """The states of all holds."""
        query = select(holds.c.state)
        return await self.runtime.database.read(lambda conn: [str(state) for state in conn.execute(query).scalars()])


@contextmanager
def working(desk: Desk, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """A `handrail` process that has begun the approved action."""
    program = [sys.executable, "-c", "from handrail.cli.app import main; main()", *command]
    with subprocess.Popen(program, cwd=desk.folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while "begun" not in desk.words():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline, "the action has not begun"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def stop(process: "subprocess.Popen[str]", *numbers: signal.Signals, within: float) -> int:
    """Sends signals; returns the exit code of the process, which has to end within some seconds."""
    for number in numbers:
        os.kill(process.pid, number)
        time.sleep(0.3)
    return process.wait(within)


COMMANDS = {
    "worker": ("worker",),
    "serve": ("serve", "--port", "0"),
    "once": ("worker", "--once"),
}
"""The commands that run jobs."""
