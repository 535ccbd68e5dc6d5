"""The hashes of an agent: what changes them and what does not."""

import functools
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext, Tool
from pydantic_ai.messages import InstructionPart
from pydantic_ai.models.function import FunctionModel

from handrail import Fingerprint, RunRequest, Runtime, govern, tool
from handrail.runs.fingerprint import sha256, source_of
from handrail.runs.store.queries import load_prompt, load_run
from tests.runs.scripts import Count, Script, counts


class Tally(BaseModel):
    """Another output type."""

    count: int
    sure: bool = True


def find(number: int) -> int:
    """Finds an order."""
    return number


async def zero(_request: RunRequest) -> Count:
    return Count(count=0)


async def one(_request: RunRequest) -> Count:
    return Count(count=1)


class Rules:
    """A fallback that is an object."""

    async def __call__(self, _request: RunRequest) -> Count:
        return Count(count=2)


async def fingerprint_of(runtime: Runtime, agent: Any, **options: Any) -> Fingerprint:
    outcome = await agent.run(**{"input": "hi", "user": "u", **options})
    run = await runtime.database.read(load_run(outcome.facts.run_id, runtime.clock.now()))
    assert run.fingerprint is not None
    return run.fingerprint


def governed(fallback: Any = zero, script: Script | None = None, **options: Any) -> Any:
    defaults: dict[str, Any] = {"output_type": Count, "instructions": "Count.", "tools": [tool(find, effect="reads")]}
    return govern(Agent((script or Script(counts(1))).model, **{**defaults, **options}), name="a", fallback=fallback)


def _named(name: str) -> FunctionModel:
    return FunctionModel(lambda _messages, _info: counts(1), model_name=name)


CHANGES: dict[str, dict[str, Any]] = {
    "prompt": {"instructions": "Count well."},
    "prompt part": {"instructions": InstructionPart(content="Count well.")},
    "prompt function": {"instructions": lambda: "Count well."},
    "system prompt": {"system_prompt": "You count."},
    "settings": {"model_settings": {"temperature": 0.5}},
    "tool description": {"tools": [tool(find, effect="reads", description="Searches.")]},
    "tool effect": {"tools": [tool(find, effect="writes")]},
    "undeclared tool": {"tools": [Tool(find)]},
    "no tool": {"tools": []},
    "output schema": {"output_type": Tally},
    "fallback": {"fallback": one},
    "fallback object": {"fallback": Rules()},
    "no fallback": {"fallback": None},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_changes_of_the_agent(runtime: Runtime, change: dict[str, Any]) -> None:
    """Changing anything that can change an answer changes the agent's hash."""
    before, after = await fingerprint_of(runtime, governed()), await fingerprint_of(runtime, governed(**change))
    assert after.agent != before.agent


async def test_another_model(runtime: Runtime) -> None:
    """Another model means another agent hash, with the same prompt hashes."""
    agent = governed()
    before = await fingerprint_of(runtime, agent, model=_named("small"))
    after = await fingerprint_of(runtime, agent, model=_named("large"))
    assert (after.agent != before.agent, after.template) == (True, before.template)


SAME: dict[str, dict[str, Any]] = {
    "input": {"input": "something else"},
    "user": {"user": "u-2", "tenant": "other"},
    "timeout": {"model_settings": {"timeout": 7, "max_retries": 4, "extra_headers": {"x": "y"}}},
    "conversation": {"conversation_id": "c-1", "metadata": {"a": 1}},
}


@pytest.mark.parametrize("options", SAME.values(), ids=SAME.keys())
async def test_changes_between_runs(runtime: Runtime, options: dict[str, Any]) -> None:
    """What differs from run to run does not change any of the three hashes."""
    assert await fingerprint_of(runtime, governed(), **options) == await fingerprint_of(runtime, governed())


async def test_the_order_of_tools(runtime: Runtime) -> None:
    """The order of tools does not change the agent's hash."""

    def other() -> None:
        """Does nothing."""

    tools = [tool(find, effect="reads"), tool(other, effect="reads")]
    assert await fingerprint_of(runtime, governed(tools=tools)) == await fingerprint_of(
        runtime, governed(tools=tools[::-1])
    )


async def test_template_and_rendered(runtime: Runtime) -> None:
    """Dynamic instructions have one template hash and one agent hash, and a rendered hash for each text."""

    def instructions_for(ctx: RunContext[str]) -> str:
        return f"You serve {ctx.deps}."

    agent = governed(script=Script(counts(1), counts(1)), deps_type=str, instructions=instructions_for)
    acme, other = await fingerprint_of(runtime, agent, deps="acme"), await fingerprint_of(runtime, agent, deps="other")
    assert (acme.template, acme.agent) == (other.template, other.agent)
    assert acme.rendered != other.rendered


async def test_prompts_by_hash(runtime: Runtime) -> None:
    """The prompts behind a run's hashes can be loaded, the template and the rendered one."""

    def instructions_for(ctx: RunContext[str]) -> str:
        return f"You serve {ctx.deps}."

    fingerprint = await fingerprint_of(runtime, governed(deps_type=str, instructions=instructions_for), deps="acme")
    template = await runtime.database.read(load_prompt(fingerprint.template))
    rendered = await runtime.database.read(load_prompt(fingerprint.rendered))
    assert rendered == "You serve acme."
    assert template is not None
    assert "return f" in template
    assert sha256(template) == fingerprint.template
    assert await runtime.database.read(load_prompt("0" * 64)) is None


async def test_any_text_is_stored(runtime: Runtime) -> None:
    """A prompt with characters that a database cannot store is stored with those characters escaped."""
    fingerprint = await fingerprint_of(runtime, governed(instructions="a\0b"))
    text = await runtime.database.read(load_prompt(fingerprint.rendered))
    assert text == r"a\x00b"


async def test_the_same_in_another_process(tmp_path: Any) -> None:
    """The same agent in a second process has the same hashes."""
    from handrail.testing import sandbox

    fingerprints: list[Fingerprint] = []
    for _ in range(2):
        with sandbox(tmp_path, store="shared.db") as runtime:
            fingerprints.append(await fingerprint_of(runtime, governed()))
    assert fingerprints[0] == fingerprints[1]


def test_sources() -> None:
    """The source of a function is its own, of an object its class's, of a partial its function's and its arguments."""
    assert "return number" in source_of(find)
    assert "class Rules" in source_of(Rules())
    assert "return number" in source_of(functools.partial(find, 7))
    assert source_of(functools.partial(find, 7)) != source_of(functools.partial(find, 8))
    assert source_of(functools.partial(find, number=7)) != source_of(functools.partial(find, number=8))
    assert source_of(len) == "builtins.len"


async def test_a_run_without_a_request(runtime: Runtime) -> None:
    """A run that ended before its first model request has no fingerprint."""

    def broken(_request: RunRequest) -> None:
        raise OSError("the desk is closed")

    script = Script()
    agent: Any = govern(Agent(script.model), name="a", deps=broken)
    outcome = await agent.run("hi", user="u")
    run = await runtime.database.read(load_run(outcome.facts.run_id, runtime.clock.now()))
    assert (run.fingerprint, run.model, run.requests) == (None, None, 0)
    assert script.requests == []
