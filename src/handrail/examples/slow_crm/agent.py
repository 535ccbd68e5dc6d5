"""Two agents that answer a customer's question from the customer's file in the CRM.

The model is simulated: it takes 1.1 s to call the tool that reads the file, and 1.3 s to answer from it.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import RunRequest, govern, parallel, tool

from .crm import invoices, orders, tickets, wait

CustomerFile = tuple[list[str], list[str], list[str]]
"""A customer's orders, tickets and invoices."""


async def _respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    [*_, last] = messages[-1].parts
    if isinstance(last, ToolReturnPart):
        await wait(1.3)
        return ModelResponse([TextPart("Your parcel was shipped on Monday.")])
    await wait(1.1)
    return ModelResponse([ToolCallPart("customer_file", {})])


MODEL = FunctionModel(_respond, model_name="simulated")


async def customer_file(ctx: RunContext[str]) -> CustomerFile:
    """Read what the CRM has on the customer who asks."""
    customer = ctx.deps
    return await orders(customer), await tickets(customer), await invoices(customer)


@dataclass(frozen=True)
class PrefetchedFile:
    """A file that is being read while the model is called."""

    file: Awaitable[CustomerFile]


async def prefetched_customer_file(ctx: RunContext[PrefetchedFile]) -> CustomerFile:
    """Read what the CRM has on the customer who asks."""
    return await ctx.deps.file


def _customer(request: RunRequest) -> str:
    return request.user


def _prefetch(request: RunRequest) -> PrefetchedFile:
    """Starts the lookups before the model is called; wasted if the model does not call the tool."""
    customer = request.user
    return PrefetchedFile(asyncio.ensure_future(parallel(orders(customer), tickets(customer), invoices(customer))))


agent = govern(
    Agent(MODEL, deps_type=str, tools=[tool(customer_file, effect="reads")]),
    name="slow-crm",
    deps=_customer,
)
fast = govern(
    Agent(
        MODEL, deps_type=PrefetchedFile, tools=[tool(prefetched_customer_file, effect="reads", name="customer_file")]
    ),
    name="fast-crm",
    deps=_prefetch,
)
