"""Faults end in the fallback or a typed failure; programming errors and cancellation propagate."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import ModelResponse

from handrail import Answered, Failed, FellBack, Outcome, OutcomeNotStored, RunRequest, Runtime, govern, tool
from handrail.runs.execution import Fallback
from handrail.runs.store.queries import RunView, list_runs, load_outcomes
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Count, Script, calls, counts, says

MALFORMED = counts("many")


async def zero(_request: RunRequest) -> Count:
    return Count(count=0)


async def nothing(_request: RunRequest) -> None:
    return None


def governed(
    script: Script, fallback: Fallback[Count] | None = None, *tools: Callable[..., Any], **options: Any
) -> Any:
    return govern(Agent(script.model, output_type=Count, tools=tools, **options), name="counter", fallback=fallback)


async def only_run(runtime: Runtime) -> RunView:
    """The only run in the store."""
    [run] = await runtime.database.read(list_runs(runtime.clock.now(), tenant=None, agent=None, limit=9, before=None))
    return run


async def test_malformed_once(runtime: Runtime) -> None:
    """A malformed answer is retried once; a valid one then counts as fallback."""
    outcome = await governed(Script(MALFORMED, counts(2))).run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert (outcome.output, outcome.retried, outcome.path) == (Count(count=2), True, "fallback")
    _, spans = await runtime.database.read(load_trace(outcome.facts.trace_id, None))
    first, second = [span for span in spans if span.kind == "model"]
    assert (first.attempt, first.retry_of) == (1, None)
    assert (second.attempt, second.retry_of) == (2, first.span_id)
    assert [span.error_type for span in spans if span.name == "validate output"] == ["malformed"]


@pytest.mark.parametrize("turn", [MALFORMED, says("prose"), says()], ids=["type", "prose", "empty"])
async def test_malformed_twice(runtime: Runtime, turn: ModelResponse) -> None:
    """After a second malformed answer the fallback answers, or the run fails."""
    fell_back = await governed(Script(turn, turn), zero).run("hi", user="u")
    assert isinstance(fell_back, FellBack)
    assert (fell_back.output, fell_back.fault.code, fell_back.path) == (Count(count=0), "output_malformed", "fallback")
    failed = await governed(Script(turn, turn)).run("hi", user="u")
    assert isinstance(failed, Failed)
    assert failed.fault.code == "output_malformed"
    assert "valid" not in failed.message
    stored = await runtime.database.read(load_outcomes(failed.facts.run_id))
    assert [outcome.type for outcome in stored] == ["failed"]


@pytest.mark.parametrize(
    "first", [MALFORMED, says(calls("find_order", number="x"))], ids=["output twice", "arguments, then output"]
)
async def test_one_retry_in_a_run(first: ModelResponse) -> None:
    """However many retries the agent allows, malformed work is retried once in a run."""

    def find_order(number: int) -> int:
        return number

    script = Script(first, MALFORMED, counts(3))
    outcome = await governed(script, zero, find_order, retries=5).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert len(script.requests) == 2


async def test_an_output_validator_rejects() -> None:
    """An answer that the agent's output validator rejected first counts as retried."""
    checked = Agent(Script(counts(0), counts(1)).model, output_type=Count)

    @checked.output_validator
    def more_than_none(output: Count) -> Count:
        if output.count == 0:
            raise ModelRetry("count again")
        return output

    outcome = await govern(checked, name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert (outcome.retried, outcome.path) == (True, "fallback")


async def test_model_retry_is_not_malformed_work() -> None:
    """A tool that raises ModelRetry on purpose leaves the answer on the happy path."""

    def find_order(number: int) -> int:
        if number == 1:
            raise ModelRetry("no such number")
        return number

    script = Script(says(calls("find_order", number=1)), says(calls("find_order", number=2)), counts(1))
    outcome = await governed(script, None, find_order).run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.path == "happy"
    assert outcome.facts.tools == ("find_order",)


async def test_a_fallback_is_validated() -> None:
    """A fallback's output that does not fit the type is not returned, even if it was built without validation."""

    async def unchecked(_request: RunRequest) -> Count:
        wrong: dict[str, Any] = {"count": "many"}
        return Count.model_construct(**wrong)

    outcome = await governed(Script(ModelAPIError("m", "gone")), unchecked).run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "model_unavailable"
    assert "the fallback failed too" in outcome.fault.detail


async def test_a_fallback_returns_none() -> None:
    """If the fallback returns None, the run fails with the original fault."""
    outcome = await governed(Script(ModelHTTPError(429, "m")), nothing).run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "model_rate_limited"


async def test_a_fallback_that_fails() -> None:
    """If the fallback raises, the run fails with both reasons."""

    async def broken(_request: RunRequest) -> Count:
        raise OSError("the desk is closed")

    outcome = await governed(Script(ModelHTTPError(503, "m")), broken).run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "model_unavailable"
    assert "503" in outcome.fault.detail
    assert "the desk is closed" in outcome.fault.detail


async def test_a_fallback_with_a_bug(runtime: Runtime) -> None:
    """A programming error in the fallback propagates and is recorded."""

    async def buggy(_request: RunRequest) -> Count:
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        await governed(Script(ModelHTTPError(503, "m")), buggy).run("hi", user="u")
    run = await only_run(runtime)
    assert (run.status, run.fault) == ("failed", "bug")


async def test_a_fallback_and_an_output_type_of_the_run() -> None:
    """A run with its own output type does not get a fallback's output of the agent's usual type."""
    outcome = await governed(Script(ModelHTTPError(503, "m")), zero).run("hi", user="u", output_type=bool)
    assert not isinstance(outcome, FellBack)


async def test_the_fallback_gets_the_request() -> None:
    """The fallback gets the run's input, names and deps."""
    requests: list[RunRequest] = []

    async def note(request: RunRequest) -> Count:
        requests.append(request)
        return Count(count=request.deps)

    agent = governed(Script(ModelHTTPError(503, "m")), note, deps_type=int)
    outcome = await agent.run("hi", user="u-1", tenant="acme", conversation_id="c-1", deps=8)
    assert outcome.output == Count(count=8)
    [request] = requests
    assert (request.text, request.user, request.tenant, request.conversation_id) == ("hi", "u-1", "acme", "c-1")
    assert (request.run_id, request.agent) == (outcome.facts.run_id, "counter")


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("odd"), KeyError("7"), TimeoutError("slow")])
async def test_a_tool_that_fails(runtime: Runtime, error: Exception) -> None:
    """An exception from a tool's libraries leads to the fallback; the fault and the span name the tool."""

    def find_order() -> int:
        raise error

    script = Script(says(calls("find_order")))
    outcome = await governed(script, zero, find_order).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert outcome.fault.code == "tool_failed"
    assert outcome.fault.detail.startswith(f"find_order: {type(error).__name__}")
    assert outcome.facts.tools == ()
    _, spans = await runtime.database.read(load_trace(outcome.facts.trace_id, None))
    assert [span.error_type for span in spans if span.kind == "tool"] == ["ToolFault"]
    assert next(span.error_type for span in spans if span.kind == "agent") == "tool_failed"


async def test_a_bug_in_a_tool(runtime: Runtime) -> None:
    """A programming error in a tool propagates unchanged; the run is recorded as failed, with its spans."""

    def find_order() -> int:
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        await governed(Script(says(calls("find_order"))), zero, find_order).run("hi", user="u")
    run = await only_run(runtime)
    assert (run.status, run.path, run.fault) == ("failed", "failed", "bug")
    _, spans = await runtime.database.read(load_trace(run.trace_id, None))
    assert {span.kind: span.error_type for span in spans} == {"agent": "TypeError", "model": None, "tool": "TypeError"}


@pytest.mark.parametrize("error", [AttributeError("choices"), IndexError("0"), UserError("x"), AssertionError("y")])
async def test_nonsense_from_a_model(runtime: Runtime, error: Exception) -> None:
    """Whatever a request to a model raises is the model's fault, and the fallback answers."""
    outcome = await governed(Script(error), zero).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert outcome.fault.code == "model_unavailable"
    assert type(error).__name__ in outcome.fault.detail
    assert (await only_run(runtime)).path == "fallback"


async def test_cancellation(runtime: Runtime) -> None:
    """A cancelled run raises CancelledError and is recorded as cancelled, with its usage so far."""
    waiting = asyncio.Event()

    async def find_order() -> None:
        waiting.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(governed(Script(says(calls("find_order"))), zero, find_order).run("hi", user="u"))
    await waiting.wait()
    assert (await only_run(runtime)).status == "running"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    run = await only_run(runtime)
    assert (run.status, run.fault, run.requests) == ("failed", "cancelled", 1)
    assert run.output_tokens > 0


async def test_the_same_call_three_times() -> None:
    """The third call of a tool with the same arguments is not executed, and the run ends as looping."""
    calls_made: list[int] = []

    def find_order(number: int) -> int:
        calls_made.append(number)
        return number

    script = Script(*[says(calls("find_order", number=1)) for _ in range(3)])
    outcome = await governed(script, zero, find_order).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert outcome.fault.code == "looping"
    assert calls_made == [1, 1]


async def test_fifteen_requests() -> None:
    """A run makes at most fifteen model requests."""

    def find_order(number: int) -> int:
        return number

    script = Script(*[says(calls("find_order", number=number)) for number in range(20)])
    outcome = await governed(script, None, find_order).run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "looping"
    assert len(script.requests) == outcome.facts.requests == 15


async def test_no_model_is_available(runtime: Runtime) -> None:
    """If no model is available, the fallback answers."""
    from handrail.models.errors import ModelUnavailable

    outcome: Outcome[Count] = await governed(Script(ModelUnavailable("no weights")), zero).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert outcome.fault.code == "model_unavailable"
    assert (await only_run(runtime)).fault == "model_unavailable"


async def test_a_full_disk_at_the_end(runtime: Runtime) -> None:
    """An outcome that cannot be committed is not returned: OutcomeNotStored holds it."""

    async def fill_the_disk() -> str:
        await runtime.database.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 1").fetchall())
        return "x"

    script = Script(says(calls("fill_the_disk")), ModelAPIError("m", "gone"))
    agent = govern(Agent(script.model, tools=[tool(fill_the_disk, effect="reads")]), name="a", fallback=_long_answer)
    with pytest.raises(OutcomeNotStored, match="fell_back") as caught:
        await agent.run("hi", user="u")
    assert isinstance(caught.value.outcome, FellBack)
    assert (await only_run(runtime)).status == "running"


async def _long_answer(_request: RunRequest) -> str:
    return "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(100_000))


@pytest.mark.parametrize("turn", [says("\ud800"), says(calls("find_order"))], ids=["answer", "tool"])
async def test_a_lone_surrogate(turn: ModelResponse) -> None:
    """A lone surrogate, from the model or from a tool, does not lose a finished run."""

    def find_order() -> str:
        return "\udc00"

    outcome = await govern(Agent(Script(turn, says("ok")).model, tools=[find_order]), name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
