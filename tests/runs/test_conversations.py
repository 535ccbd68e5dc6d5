"""A conversation is stored with its runs and continues where it stopped, for its tenant only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelRequest, ModelResponse, UserPromptPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import Answered, AwaitingApproval, Ceilings, Failed, Refused, Runtime, Settings, govern, tool, use_runtime
from handrail.ceilings.decision import LongConversation
from handrail.testing import VirtualClock
from tests.runs.scripts import Script, calls, says, texts

pytestmark = pytest.mark.usefixtures("runtime")


def answers(script: Script) -> list[str]:
    """The model's answers among the last request's messages."""
    return texts([message for message in script.requests[-1] if isinstance(message, ModelResponse)])


async def test_a_second_run() -> None:
    """The second run of a conversation is sent the messages of the first."""
    script = Script(says("one"), says("two"), says("three"))
    agent = govern(Agent(script.model), name="a")
    for message in ("first", "second", "third"):
        await agent.run(message, user="u", conversation_id="c-1")
    assert script.prompts() == ["first", "second", "third"]
    assert answers(script) == ["one", "two"]


async def test_another_tenant() -> None:
    """The same conversation id under another tenant is another conversation."""
    script = Script(says("one"), says("two"))
    agent = govern(Agent(script.model), name="a")
    await agent.run("a secret", user="u", tenant="acme", conversation_id="c-1")
    await agent.run("hello", user="u", tenant="other", conversation_id="c-1")
    assert script.prompts() == ["hello"]


async def test_without_an_id() -> None:
    """A run without a conversation id starts a conversation with the run's id and no history."""
    script = Script(says("one"), says("two"), says("three"))
    agent = govern(Agent(script.model), name="a")
    first = await agent.run("first", user="u")
    await agent.run("second", user="u")
    assert script.prompts() == ["second"]
    await agent.run("third", user="u", conversation_id=first.facts.run_id)
    assert script.prompts() == ["first", "third"]


async def test_a_message_history_replaces_the_stored_one() -> None:
    """A message history replaces the stored one, even if it is empty."""
    script = Script(says("one"), says("two"), says("three"))
    agent = govern(Agent(script.model), name="a")
    await agent.run("first", user="u", conversation_id="c-1")
    history = [ModelRequest([UserPromptPart("other")])]
    await agent.run("second", user="u", conversation_id="c-1", message_history=history)
    assert script.prompts() == ["other", "second"]
    await agent.run("third", user="u", conversation_id="c-1", message_history=[])
    assert script.prompts() == ["third"]


async def test_a_run_without_an_answer() -> None:
    """A failed run adds the input and the user's message to the conversation."""
    script = Script(ModelAPIError("m", "gone"), says("two"))
    agent = govern(Agent(script.model), name="a")
    failed = await agent.run("first", user="u", conversation_id="c-1")
    assert isinstance(failed, Failed)
    await agent.run("second", user="u", conversation_id="c-1")
    assert script.prompts() == ["first", "second"]
    assert answers(script) == [failed.message]


async def test_after_a_proposal() -> None:
    """A waiting run leaves no tool call without a result in the conversation, which can continue."""

    def refund() -> None:
        raise AssertionError

    script = Script(says(calls("refund")), says("two"))
    agent = govern(Agent(script.model, tools=[tool(refund, effect="irreversible")]), name="a")
    waiting = await agent.run("first", user="u", conversation_id="c-1")
    assert isinstance(waiting, AwaitingApproval)
    await agent.run("second", user="u", conversation_id="c-1")
    assert answers(script) == [waiting.message]


async def test_a_fresh_process(tmp_path: Any) -> None:
    """A conversation, with its pictures, is loaded from the store and not from the agent."""
    from handrail.testing import sandbox

    picture = ImageUrl("https://example.com/a.png")
    with sandbox(tmp_path, store="shared.db"):
        await govern(Agent(Script(says("one")).model), name="a").run(["See", picture], user="u", conversation_id="c")
    script = Script(says("two"))
    with sandbox(tmp_path, store="shared.db"):
        await govern(Agent(script.model), name="a").run("again", user="u", conversation_id="c")
    first, second = script.prompts()
    assert (list(first), second) == (["See", picture], "again")


@pytest.fixture
def small_runs(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    """A runtime whose runs have 4,000 input tokens; a request without any text has some 1,600 of them."""
    settings = Settings(base=tmp_path, store="small.db", ceilings=Ceilings(run_input_tokens=4_000))
    runtime = Runtime(settings, clock=clock)
    with use_runtime(runtime):
        yield runtime
    runtime.close()


@pytest.mark.usefixtures("small_runs")
async def test_a_conversation_that_outgrows_the_input_limit() -> None:
    """The refusal says which conversation it is, how large it is, and what to do; a new conversation is answered."""
    agent = govern(Agent(Script(*[says("x" * 700)] * 3, says("last")).model), name="a")
    for _ in range(2):
        assert isinstance(await agent.run("y" * 700, user="u", conversation_id="c-1"), Answered)
    refused = await agent.run("short", user="u", conversation_id="c-1")
    assert isinstance(refused, Refused)
    long = refused.refusal.conversation
    assert (refused.scope, refused.refusal.unit, refused.resets_at) == ("conversation", "input_tokens", None)
    assert long is not None
    assert (long.conversation_id, long.messages) == ("c-1", 4)
    assert 2_800 <= long.input_tokens < refused.refusal.requested  # type: ignore[operator]
    assert str(refused.refusal).endswith(
        f"the 4 earlier messages of conversation c-1 are {long.input_tokens:,} of these tokens, and the request would "
        "fit without them: start a new conversation with another conversation_id, or raise run_input_tokens under "
        "[ceilings]"
    )
    assert refused.message == "This conversation has become too long to continue. Please start a new one."
    assert isinstance(await agent.run("short", user="u", conversation_id="c-2"), Answered)


@pytest.mark.usefixtures("small_runs")
async def test_an_input_that_does_not_fit_by_itself() -> None:
    """An input that is too long without the conversation is refused for itself, and so is a history of the caller."""
    agent = govern(Agent(Script(says("x" * 500)).model), name="a")
    await agent.run("y" * 500, user="u", conversation_id="c-1")
    for options in (
        {"input": "z" * 4_000, "conversation_id": "c-1"},
        {"input": "z", "message_history": [ModelRequest([UserPromptPart("z" * 4_000)])]},
    ):
        refused = await agent.run(user="u", **options)
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.refusal.conversation) == ("run", None)
        assert "too large to handle at once" in refused.message


async def test_a_conversation_that_its_model_counts(tmp_path: Path, clock: VirtualClock) -> None:
    """Where the model can count tokens, its counts decide whether the input would fit by itself."""

    class Counting(FunctionModel):
        async def count_tokens(self, messages: list[Any], *_arguments: Any) -> RequestUsage:
            return RequestUsage(input_tokens=1_000 * len(messages))

    agent = govern(Agent(Counting(lambda _messages, _info: says("x" * 3_000))), name="a")
    settings = Settings(base=tmp_path, store="counted.db", ceilings=Ceilings(run_input_tokens=4_000))
    runtime = Runtime(settings, clock=clock)
    with use_runtime(runtime):
        for _ in range(2):
            await agent.run("y" * 3_000, user="u", conversation_id="c-1")
        refused = await agent.run("z" * 3_000, user="u", conversation_id="c-1")
    runtime.close()
    assert isinstance(refused, Refused)
    assert refused.refusal.conversation == LongConversation("c-1", messages=4, input_tokens=4_080)
