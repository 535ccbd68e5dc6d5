"""A bank that approved calls pay with, and the ways in which a tool asks for approval."""

import threading
from collections.abc import Callable
from typing import Any

from pydantic_ai import Agent, FunctionToolset, RunContext, Tool
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ToolReturnPart

from handrail import (
    AwaitingApproval,
    Runtime,
    govern,
    idempotency_key,
    tool,
)
from handrail.review.approvals.model import Approval
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import decide
from handrail.runs.errors import OutcomeNotStored
from handrail.runs.resume import take_over
from handrail.runs.store.runs import LEASE, TakenOver
from handrail.testing import VirtualClock
from tests.runs.scripts import Count, Script
from tests.runs.test_approvals import ROLES, approvals, decide_all, irreversible, run_until_approval

TAKEN_OVER = 2 * LEASE.total_seconds()
"""Seconds until the run that another process took over is interrupted in turn."""
LOST = (TakenOver, OutcomeNotStored)


class Bank:
    """Records what was paid; with `killed`, its process dies right after each payment."""

    def __init__(self, runtime: Runtime, clock: VirtualClock) -> None:
        self.paid: list[Any] = []
        self.keys: list[str] = []
        self.killed = False
        self._runtime = runtime
        self._clock = clock

    async def pay(self, what: Any) -> str:
        self.paid.append(what)
        self.keys.append(idempotency_key())
        if self.killed:
            # Another process takes the run over, after which nothing that this one writes counts.
            [approval] = {one.run_id for one in await self._of_key()}
            await self._runtime.database.write(take_over(approval, self._clock.now() + LEASE))
        return f"paid {what}"

    async def _of_key(self) -> list[Approval]:
        def find(conn: Any) -> str:
            row = conn.exec_driver_sql(f"SELECT run_id FROM approvals WHERE approval_id = '{self.keys[-1]}'")
            return str(row.scalar_one())

        run_id = await self._runtime.database.read(find)
        return await self._runtime.database.read(load_approvals(run_id, self._clock.now()))


def governed(script: Script, *tools: Any, **options: Any) -> Any:
    return govern(Agent(script.model, output_type=Count, tools=tools, **options), name="a")


async def paused_run(runtime: Runtime, agent: Any, **options: Any) -> AwaitingApproval:
    """A run whose approvals are granted."""
    paused = await run_until_approval(agent, **options)
    await decide_all(runtime, paused)
    return paused


async def states(runtime: Runtime, run_id: str) -> list[str]:
    return [approval.state for approval in await approvals(runtime, run_id)]


def returned(script: Script) -> list[Any]:
    """What the last request says that tools returned."""
    last = script.requests[-1][-1]
    return [part.content for part in last.parts if isinstance(part, ToolReturnPart)]


Declare = Callable[[Bank], Any]


def conditional(effect: Any) -> Declare:
    def declare(bank: Bank) -> Tool[Any]:
        async def pay(ctx: RunContext[Any], order: str) -> str:
            if not ctx.tool_call_approved:
                raise ApprovalRequired(metadata={"approver": "role:lead", "why": threading.Lock()})
            return await bank.pay(order)

        return Tool(pay) if effect is None else tool(pay, effect=effect)

    return declare


def requires_approval(bank: Bank) -> Tool[Any]:
    async def pay(order: str) -> str:
        return await bank.pay(order)

    return Tool(pay, requires_approval=True)


def declared(bank: Bank) -> Tool[Any]:
    async def pay(order: str) -> str:
        return await bank.pay(order)

    return irreversible(pay)


WAYS = {
    "declared": declared,
    "requires_approval": requires_approval,
    "conditional": conditional(None),
    "conditional reads": conditional("reads"),
    "conditional writes": conditional("writes"),
    "conditional irreversible": conditional("irreversible"),
}


def agent_with(way: str, script: Script, bank: Bank) -> Any:
    if way != "toolset":
        return governed(script, WAYS[way](bank))

    async def pay(order: str) -> str:
        return await bank.pay(order)

    return governed(script, toolsets=[FunctionToolset([pay]).approval_required()])


async def decide_by_approver(runtime: Runtime, paused: AwaitingApproval) -> None:
    for approval in paused.approvals:
        person = "mia" if approval.approver == "role:lead" else "u"
        await runtime.database.write(decide(approval.approval_id, "approved", person, ROLES, None, runtime.clock.now()))
