"""The types that decorators and helpers preserve in an agent's own code."""

from typing import assert_type

from pydantic_ai import Agent, RunContext

from handrail import NanoUsd, format_usd, idempotency_key, parallel, step, tool
from tests.typing.support import Desk


def find_order(number: int) -> str:
    return str(number)


def find_customer(context: RunContext[Desk], name: str) -> str:
    return context.deps.tenant + name


def declare() -> None:
    """A tool declares one of three effects, and fits into the agent's own tools."""
    Agent(
        "test",
        deps_type=Desk,
        tools=[
            tool(find_order, effect="reads"),
            tool(find_customer, effect="irreversible", approver="role:support-lead", idempotent=True, name="find"),
        ],
    )
    tool(find_order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tool(find_order, effect="deletes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tool("find_order", effect="reads")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tool(find_order, effect="irreversible", approver=["mia"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@step("read the order")
async def read_order(number: int, *, strict: bool = False) -> str:
    return str(number) if strict else ""


@step("add up")
def add_up(first: int, second: int) -> int:
    return first + second


async def decorate() -> None:
    """A step keeps the signature of the function that it decorates, and is a context manager of both kinds."""
    assert_type(await read_order(17, strict=True), str)
    assert_type(add_up(1, 2), int)
    with step("by hand"):
        pass
    async with step("by hand"):
        pass
    await read_order("17")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add_up(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    step(17)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def run_in_parallel() -> None:
    """The results of `parallel` keep their own types and order."""
    assert_type(await parallel(read_order(1)), tuple[str])
    assert_type(await parallel(read_order(1), length("a")), tuple[str, int])
    assert_type(await parallel(length("a"), read_order(1), length("b"), names=["a", "b", "c"]), tuple[int, str, int])
    assert_type(await parallel(*[length(word) for word in "abcde"]), tuple[int, ...])
    await parallel(1, 2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    parallel(length("a"), names="a")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def length(text: str) -> int:
    return len(text)


def helpers() -> None:
    """Money has its own type, and a plain integer is an error."""
    assert_type(idempotency_key(), str)
    assert_type(format_usd(NanoUsd(5)), str)
    format_usd(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
