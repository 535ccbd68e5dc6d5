"""Two agents that answer a customer's question with what the CRM has on the customer.

The model is simulated: it takes 1.1 s to ask for the customer's file and 1.3 s to answer from it.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import RunRequest, govern, parallel, tool

from .crm import invoices, orders, takes, tickets

File = tuple[list[str], list[str], list[str]]
"""What the CRM has on a customer: orders, tickets, invoices."""


async def _think(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    [*_, last] = messages[-1].parts
    if isinstance(last, ToolReturnPart):
        await takes(1.3)
        return ModelResponse([TextPart("Your parcel was shipped on Monday.")])
    await takes(1.1)
    return ModelResponse([ToolCallPart("customer_file", {})])


MODEL = FunctionModel(_think, model_name="simulated")


async def customer_file(ctx: RunContext[str]) -> File:
    """Read what the CRM has on the customer who asks."""
    customer = ctx.deps
    return await orders(customer), await tickets(customer), await invoices(customer)


@dataclass(frozen=True)
class Ahead:
    """A file that is on its way."""

    file: Awaitable[File]


async def customer_file_ahead(ctx: RunContext[Ahead]) -> File:
    """Read what the CRM has on the customer who asks."""
    return await ctx.deps.file


def _customer(request: RunRequest) -> str:
    return request.user


def _look_up(request: RunRequest) -> Ahead:
    """Begins before the model is asked. A run whose model asks for no file has looked it up for nothing."""
    customer = request.user
    return Ahead(asyncio.ensure_future(parallel(orders(customer), tickets(customer), invoices(customer))))


agent = govern(
    Agent(MODEL, deps_type=str, tools=[tool(customer_file, effect="reads")]),
    name="slow-crm",
    deps=_customer,
)
fast = govern(
    Agent(MODEL, deps_type=Ahead, tools=[tool(customer_file_ahead, effect="reads", name="customer_file")]),
    name="fast-crm",
    deps=_look_up,
)
