"""Only whole answers leave a run, and malformed output is retried once."""

from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import (
    Answered,
    AwaitingApproval,
    Ended,
    Failed,
    FellBack,
    Governance,
    Retracted,
    RunRequest,
    Runtime,
    govern,
    tool,
)
from handrail.review.approvals.store import decide
from handrail.runs.finish import OutputCut

from .scripts import Count, Script, calls, counts, says


def ended(reason: Any, *parts: Any, **details: Any) -> ModelResponse:
    """A response that ended for `reason`."""
    return ModelResponse(list(parts) or [TextPart("half an ans")], finish_reason=reason, provider_details=details)


CASES = [
    (ended("length"), "output_cut"),
    (ended("length", ToolCallPart("find", '{"number": 1')), "output_cut"),
    (ended("length", ToolCallPart("find", {"number": 1})), "output_cut"),
    (ended("length", ThinkingPart("hm")), "output_cut"),
    (ended("content_filter"), "output_filtered"),
    (ended("content_filter", ThinkingPart("hm")), "output_filtered"),
    (ended("content_filter", finish_reason="refusal"), "output_refused"),
    (ended("content_filter", refusal="no"), "output_refused"),
    (ended("error"), "model_unavailable"),
    (ModelResponse([TextPart("half")], state="incomplete"), "output_cut"),
    (ModelResponse([TextPart("half")], provider_name="openai"), "output_cut"),
    (
        ModelResponse([TextPart("half")], provider_name="openai", provider_details={"finish_reason": "error"}),
        "model_unavailable",
    ),
    (
        ModelResponse([TextPart("half")], provider_name="openai", provider_details={"finish_reason": "banana"}),
        "output_cut",
    ),
    (
        ModelResponse(
            [TextPart("half")], provider_name="openai", finish_reason="stop", provider_details={"timestamp": 1}
        ),
        "output_cut",
    ),
]


@pytest.mark.parametrize(("response", "code"), CASES)
async def test_a_response_that_is_not_whole(response: ModelResponse, code: str) -> None:
    """A cut, filtered, refused or failed response is a fault of its own; nothing of it is used or retried."""
    found = []

    def find(number: int) -> str:
        found.append(number)
        return "it"

    async def answer(_request: RunRequest) -> str | None:
        return "from the handler"

    script = Script(response, says("whole"))
    agent = govern(Agent(script.model, tools=[find]), name="a", fallback=answer)
    outcome = await agent.run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert (outcome.fault.code, outcome.output, outcome.path) == (code, "from the handler", "fallback")
    assert len(script.requests) == 1
    assert found == []


async def test_a_cut_stream_is_retracted() -> None:
    """The text of a stream that was cut off is retracted, and the run fails with the fault."""

    async def cut(_messages: Any, _info: Any) -> Any:
        yield "half an ans"

    class Cutting(FunctionModel):
        """A model whose streams end by the limit."""

        def request_stream(self, *args: Any, **options: Any) -> Any:
            @asynccontextmanager
            async def stream() -> Any:
                async with FunctionModel.request_stream(self, *args, **options) as opened:
                    opened.finish_reason = "length"
                    yield opened

            return stream()

    agent = govern(Agent(Cutting(stream_function=cut)), name="a")
    events = [event async for event in agent.stream("hi", user="u")]
    assert any(isinstance(event, Retracted) for event in events)
    end = events[-1]
    assert isinstance(end, Ended)
    assert isinstance(end.outcome, Failed)
    assert end.outcome.fault.code == "output_cut"


UNKNOWN_TOOL = says(calls("no_such_tool", number=1))
MALFORMED = [
    UNKNOWN_TOOL,
    says(),
    says(ThinkingPart("hm")),
    says(calls("find", number="x")),
    says(calls("no_such_tool", a=1), calls("another", b=2), calls("find", number="x")),
    counts("x"),
]


@pytest.mark.parametrize("retries", [10])
@pytest.mark.parametrize("first", MALFORMED)
@pytest.mark.parametrize("second", [UNKNOWN_TOOL, counts("x")])
async def test_two_malformed_responses(first: ModelResponse, second: ModelResponse, retries: int) -> None:
    """A run makes one retry for malformed output, whatever is wrong and however many retries the agent allows."""
    script = Script(first, second, *[counts(1)] * 12)
    agent = Agent(script.model, output_type=Count, retries=retries)
    agent.tool_plain(find)
    outcome = await govern(agent, name="a").run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"
    assert len(script.requests) == 2


def find(number: int) -> str:
    """Finds something."""
    return f"found {number}"


@pytest.mark.parametrize("first", MALFORMED)
async def test_one_malformed_response(first: ModelResponse) -> None:
    """One malformed response is retried with the stricter instruction, and the run then counts as fallback."""
    script = Script(first, says(calls("find", number=2)), counts(1))
    agent = Agent(script.model, output_type=Count, retries=3)
    agent.tool_plain(find)
    outcome = await govern(agent, name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert (outcome.retried, outcome.path) == (True, "fallback")
    assert [(info.instructions or "").count("only second try") for info in script.infos] == [0, 1, 0]


async def test_a_valid_answer_between_two_mistakes() -> None:
    """A valid tool call between two malformed ones does not give the retry back."""
    script = Script(UNKNOWN_TOOL, says(calls("find", number=1)), UNKNOWN_TOOL, counts(1))
    agent = Agent(script.model, output_type=Count, retries=9)
    agent.tool_plain(find)
    outcome = await govern(agent, name="a").run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"
    assert len(script.requests) == 3


async def test_a_tool_may_ask_again() -> None:
    """A tool that raises ModelRetry in the same response as an unknown tool does not hide the unknown one."""

    def picky(number: int) -> str:
        if number == 1:
            raise ModelRetry("another number")
        return "ok"

    script = Script(says(calls("picky", number=1)), says(calls("picky", number=1), calls("nope")), UNKNOWN_TOOL)
    outcome = await govern(Agent(script.model, tools=[picky], retries=5), name="a").run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"
    assert len(script.requests) == 3


async def test_a_retry_without_room() -> None:
    """A retry that has less room than the rejected answer took is not made."""
    rejected = counts("x")
    rejected.usage = RequestUsage(input_tokens=10, output_tokens=5_000)
    script = Script(rejected, counts(1))
    agent = govern(Agent(script.model, output_type=Count, model_settings={"max_tokens": 6_000}), name="a")
    outcome = await agent.run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"
    assert "no room for a retry" in outcome.fault.detail
    assert len(script.requests) == 1


async def test_several_answers_in_one_response() -> None:
    """A response whose second answer is valid is not retried, also where an earlier response used the retry."""
    several = says(ToolCallPart("final_result", {"count": "x"}), ToolCallPart("final_result", {"count": 1}))
    outcome = await govern(Agent(Script(several).model, output_type=Count), name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert (outcome.output, outcome.retried, outcome.path) == (Count(count=1), False, "happy")
    outcome = await govern(Agent(Script(counts("x"), several).model, output_type=Count, retries=3), name="a").run(
        "hi", user="u"
    )
    assert isinstance(outcome, Answered)
    assert (outcome.output, outcome.retried) == (Count(count=1), True)


async def test_a_blank_answer() -> None:
    """A text of nothing but blanks is no answer."""
    script = Script(says("  \n"), says("  "))
    outcome = await govern(Agent(script.model), name="a").run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"


@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError("slow"), ConnectionError("refused")])
async def test_the_agents_own_code_fails(error: Exception) -> None:
    """What an agent's instructions or validators meet outside is not blamed on the model."""

    def instructions() -> str:
        raise error

    outcome = await govern(Agent(Script(says("hi")).model, instructions=instructions), name="a").run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "agent_failed"


def refund(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


async def approve_all(runtime: Runtime, outcome: Any) -> None:
    for approval in outcome.approvals:
        await runtime.database.write(decide(approval.approval_id, "approved", "u", {}, None, runtime.clock.now()))


async def test_mistakes_beside_an_action_that_waits(runtime: Runtime) -> None:
    """A mistake in a response that stops for people uses the retry, whose instruction the resumed run has."""
    waiting = says(calls("nope"), calls("refund", amount=1))
    script = Script(waiting, says("done"))
    agent = govern(Agent(script.model, tools=[tool(refund, effect="irreversible")], retries=9), name="a")
    paused = await agent.run("hi", user="u")
    assert isinstance(paused, AwaitingApproval)
    await approve_all(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Answered)
    assert (outcome.retried, outcome.path) == (True, "fallback")
    assert "only second try" in (script.infos[1].instructions or "")


async def test_a_second_mistake_beside_an_action_that_waits(runtime: Runtime) -> None:
    """The second response with a mistake does not stop for people again."""
    script = Script(says(calls("nope"), calls("refund", amount=1)), says(calls("nope"), calls("refund", amount=2)))
    agent = govern(Agent(script.model, tools=[tool(refund, effect="irreversible")], retries=9), name="a")
    paused = await agent.run("hi", user="u")
    await approve_all(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"


async def test_going_on_with_a_stream_that_was_left() -> None:
    """An agent that goes on after its reader left a stream early has no answer."""

    async def stream(_messages: Any, _info: Any) -> Any:
        yield "hel"
        yield "lo"

    async def go_on() -> None:
        agent = Agent(FunctionModel(stream_function=stream))
        async with agent.iter("hi", capabilities=[Governance(name="a", user="u")]) as run:
            node: Any = run.next_node
            while not Agent.is_end_node(node):
                if Agent.is_model_request_node(node):
                    stream_node: Any = node
                    async with stream_node.stream(run.ctx) as events:
                        async for _ in events:
                            break
                node = await run.next(node)

    with pytest.raises(OutputCut):
        await go_on()
