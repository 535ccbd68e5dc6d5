"""A conversation is stored with its runs and continues where it stopped, for its tenant only."""

from typing import Any

import pytest
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelRequest, ModelResponse, UserPromptPart

from handrail import AwaitingApproval, Failed, govern, tool
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
