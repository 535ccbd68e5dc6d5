"""A conversation is kept with its runs and goes on where it stopped, for its tenant alone."""

from typing import Any

import pytest
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelRequest, ModelResponse, UserPromptPart

from handrail import AwaitingApproval, Failed, govern, tool
from tests.runs.scripts import Script, calls, says, texts

pytestmark = pytest.mark.usefixtures("runtime")


def said(script: Script) -> list[str]:
    """What the model had said, by the last request's messages."""
    return texts([message for message in script.asked[-1] if isinstance(message, ModelResponse)])


async def test_it_goes_on() -> None:
    """A second run of a conversation is sent what both sides said in the first."""
    script = Script(says("one"), says("two"), says("three"))
    agent = govern(Agent(script.model), name="a")
    for question in ("first", "second", "third"):
        await agent.run(question, user="u", conversation_id="c-1")
    assert script.prompts() == ["first", "second", "third"]
    assert said(script) == ["one", "two"]


async def test_it_is_the_tenants() -> None:
    """The same conversation id under another tenant is another conversation."""
    script = Script(says("one"), says("two"))
    agent = govern(Agent(script.model), name="a")
    await agent.run("a secret", user="u", tenant="acme", conversation_id="c-1")
    await agent.run("hello", user="u", tenant="other", conversation_id="c-1")
    assert script.prompts() == ["hello"]


async def test_without_an_id() -> None:
    """A run without a conversation id begins a conversation named after itself, and remembers nothing."""
    script = Script(says("one"), says("two"), says("three"))
    agent = govern(Agent(script.model), name="a")
    first = await agent.run("first", user="u")
    await agent.run("second", user="u")
    assert script.prompts() == ["second"]
    await agent.run("third", user="u", conversation_id=first.facts.run_id)
    assert script.prompts() == ["first", "third"]


async def test_a_given_history_goes_first() -> None:
    """Where a history is given, the stored one is left out, also where the given one is empty."""
    script = Script(says("one"), says("two"), says("three"))
    agent = govern(Agent(script.model), name="a")
    await agent.run("first", user="u", conversation_id="c-1")
    history = [ModelRequest([UserPromptPart("other")])]
    await agent.run("second", user="u", conversation_id="c-1", message_history=history)
    assert script.prompts() == ["other", "second"]
    await agent.run("third", user="u", conversation_id="c-1", message_history=[])
    assert script.prompts() == ["third"]


async def test_a_run_without_an_answer() -> None:
    """A failed run leaves the question and what the user was told in the conversation."""
    script = Script(ModelAPIError("m", "gone"), says("two"))
    agent = govern(Agent(script.model), name="a")
    failed = await agent.run("first", user="u", conversation_id="c-1")
    assert isinstance(failed, Failed)
    await agent.run("second", user="u", conversation_id="c-1")
    assert script.prompts() == ["first", "second"]
    assert said(script) == [failed.message]


async def test_after_a_proposal() -> None:
    """A run that waits for a person leaves no call without a result behind: the conversation can go on."""

    def refund() -> None:
        raise AssertionError

    script = Script(says(calls("refund")), says("two"))
    agent = govern(Agent(script.model, tools=[tool(refund, effect="irreversible")]), name="a")
    waiting = await agent.run("first", user="u", conversation_id="c-1")
    assert isinstance(waiting, AwaitingApproval)
    await agent.run("second", user="u", conversation_id="c-1")
    assert said(script) == [waiting.message]


async def test_a_fresh_process(tmp_path: Any) -> None:
    """The conversation is in the store, pictures too, and not in the agent."""
    from handrail.testing import sandbox

    picture = ImageUrl("https://example.com/a.png")
    with sandbox(tmp_path, store="shared.db"):
        await govern(Agent(Script(says("one")).model), name="a").run(["Look", picture], user="u", conversation_id="c")
    script = Script(says("two"))
    with sandbox(tmp_path, store="shared.db"):
        await govern(Agent(script.model), name="a").run("again", user="u", conversation_id="c")
    first, second = script.prompts()
    assert (list(first), second) == (["Look", picture], "again")
