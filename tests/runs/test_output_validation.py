"""A fallback's output reaches the caller as it is, or not at all; a StructuredDict satisfies its schema."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pydantic import (
    SecretStr,
)
from pydantic_ai import (
    Agent,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    RunContext,
    StructuredDict,
    ToolOutput,
)
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.test import TestModel
from pydantic_ai.output import OutputContext, OutputObjectDefinition
from referencing.exceptions import Unresolvable

from handrail import Answered, Calibration, Confidence, Failed, FellBack, Outcome, RunRequest, govern
from handrail.runs.output import output_check
from handrail.runs.output_check import structured_dict_violation
from tests.runs.output_types import (
    Approve,
    Holder,
    Item,
    Parcel,
    Person,
    Reject,
    Row,
    Serialized,
    made,
    native,
    pair_of,
    person_of,
)
from tests.runs.scripts import Script, says


def unavailable() -> Script:
    return Script(ModelHTTPError(503, "m"))


async def fall_back(agent: Agent[Any, Any], output: Any, route: Any = None, **options: Any) -> Outcome[Any]:
    async def fallback(_request: RunRequest) -> Any:
        return output

    return await govern(agent, name="a", fallback=fallback, route=route).run("hi", user="u", **options)


def out_of_scope(_request: RunRequest) -> Confidence:
    """A route that sends every request to the fallback."""
    calibration = Calibration(method="isotonic", cases=200, error=0.03, date=date(2026, 11, 1))
    return Confidence(value=1.0, calibration=calibration, in_scope=False)


@pytest.mark.parametrize(
    ("spec", "output"),
    [
        ([Approve, Reject], Reject(note="no")),
        (Serialized, Serialized(secret=SecretStr("x"), hidden=1, price=Decimal(2))),
    ],
    ids=["alike", "serialized"],
)
async def test_a_fallback_answers_with_its_own_object(spec: Any, output: Any) -> None:
    """What the fallback returns is the very object that the caller gets."""
    outcome = await fall_back(Agent(unavailable().model, output_type=spec), output)
    assert isinstance(outcome, FellBack)
    assert outcome.output is output


async def test_a_fallback_and_an_output_type_of_the_run() -> None:
    """The output type of a run is what its fallback's output is checked against."""
    agent: Agent[Any, Any] = Agent(unavailable().model, output_type=Approve)
    outcome = await fall_back(agent, Approve(note="yes"), output_type=[Reject, str])
    assert isinstance(outcome, Failed)
    assert outcome.fault.detail.endswith("the fallback failed too: expected Reject or str, got Approve")


async def test_a_fallback_that_fails_to_build_its_answer() -> None:
    """A validation error that the fallback raises is reported without the values that it quotes."""

    async def fallback(_request: RunRequest) -> Item:
        return Item.model_validate({"count": "s3cret"})

    outcome = await govern(Agent(unavailable().model, output_type=Item), name="a", fallback=fallback).run(
        "hi", user="u"
    )
    assert isinstance(outcome, Failed)
    assert "Item.count: Input should be a valid integer" in outcome.fault.detail
    assert "s3cret" not in outcome.fault.detail


async def test_a_model_answers_with_its_own_object() -> None:
    """What an agent's output function returns is the very object that the caller gets."""
    answer = Serialized(secret=SecretStr("x"), hidden=1, price=Decimal(2))

    def make(count: int) -> Serialized:
        del count
        return answer

    agent = Agent(Script(says(ToolCallPart("final_result", {"count": 1}))).model, output_type=make)
    outcome = await govern(agent, name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.output is answer


def sync_validator(output: Item) -> Item:
    return Item(count=output.count + 1)


async def async_validator(output: Item) -> Item:
    return sync_validator(output)


def sync_validator_with_context(ctx: RunContext[int], output: Item) -> Item:
    return Item(count=output.count + ctx.deps)


async def async_validator_with_context(ctx: RunContext[int], output: Item) -> Item:
    return sync_validator_with_context(ctx, output)


@pytest.mark.parametrize(
    "validator", [sync_validator, async_validator, sync_validator_with_context, async_validator_with_context]
)
async def test_output_validators_of_a_fallback(validator: Callable[..., Any]) -> None:
    """The agent's output validators run on a fallback's output, and what they return is the answer."""
    agent = Agent(unavailable().model, output_type=Item, deps_type=int)
    agent.output_validator(validator)
    outcome = await fall_back(agent, Item(count=1), deps=1)
    assert isinstance(outcome, FellBack)
    assert outcome.output == Item(count=2)


async def test_several_output_validators() -> None:
    """Output validators run in the order in which they were added."""
    agent = Agent(unavailable().model, output_type=str)
    agent.output_validator(lambda output: output + "1")
    agent.output_validator(lambda output: output + "2")
    outcome = await fall_back(agent, "0")
    assert isinstance(outcome, FellBack)
    assert outcome.output == "012"


async def test_an_output_validator_rejects_a_fallback() -> None:
    """A fallback's output that an output validator rejects is no answer."""
    agent = Agent(unavailable().model, output_type=Item)

    @agent.output_validator
    def reject(output: Item) -> Item:
        raise ModelRetry(f"{output.count} is too few")

    outcome = await fall_back(agent, Item(count=1))
    assert isinstance(outcome, Failed)
    assert outcome.fault.detail.endswith("the fallback failed too: 1 is too few")


async def test_output_validators_do_not_see_an_invalid_fallback() -> None:
    """Output validators get only what fits the output type."""
    agent = Agent(unavailable().model, output_type=Item)
    received: list[Item] = []

    @agent.output_validator
    def note(output: Item) -> Item:
        received.append(output)
        return output

    assert isinstance(await fall_back(agent, made(Item, count="x")), Failed)
    assert received == []


@pytest.mark.parametrize("model", [TestModel(), "openai:gpt-4o", None], ids=["a model", "a name", "none"])
async def test_the_context_of_output_validators(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output validator of a routed run gets the run's deps, prompt, id and agent, and a model that is usable."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    contexts: list[RunContext[Any]] = []
    agent: Agent[Any, str] = Agent(model, defer_model_check=True)

    @agent.output_validator
    def note(ctx: RunContext[Any], output: str) -> str:
        contexts.append(ctx)
        return output

    outcome = await fall_back(agent, "no", route=out_of_scope, deps="deps", conversation_id="c-1")
    assert isinstance(outcome, FellBack)
    [ctx] = contexts
    assert (ctx.deps, ctx.prompt, ctx.run_id, ctx.conversation_id) == ("deps", "hi", outcome.facts.run_id, "c-1")
    assert (ctx.agent, ctx.usage.requests) == (agent, 0)
    assert ctx.model is (model if isinstance(model, TestModel) else None)


async def test_output_validators_and_an_output_type_of_the_run() -> None:
    """Output validators, which are for the agent's own output type, do not run on another."""
    agent = Agent(Script().model, output_type=Item)
    agent.output_validator(sync_validator)
    outcome = await fall_back(agent, "no", output_type=str, route=out_of_scope)
    assert isinstance(outcome, FellBack)
    assert outcome.output == "no"


def answer(data: Any, tool: str = "final_result") -> ModelResponse:
    return says(ToolCallPart(tool, data))


GOOD, BAD = {"name": "ann"}, {"name": 7}


@pytest.mark.parametrize(
    ("spec", "bad", "good", "output"),
    [
        pytest.param(Person, answer(BAD), answer(GOOD), GOOD, id="tool output"),
        pytest.param(ToolOutput(Person), answer({}), answer(GOOD), GOOD, id="a missing key"),
        pytest.param(NativeOutput(Person), says('{"name": 7}'), says('{"name": "ann"}'), GOOD, id="native output"),
        pytest.param(PromptedOutput(Person), says('{"name": 7}'), says('{"name": "ann"}'), GOOD, id="prompted output"),
        pytest.param(
            [ToolOutput(Person, name="person"), ToolOutput(Parcel, name="parcel")],
            answer({"kg": 1}, "person"),
            answer({"kg": 1}, "parcel"),
            {"kg": 1},
            id="the one chosen of several",
        ),
        pytest.param(
            NativeOutput([Person, Parcel]),
            says('{"result": {"kind": "Parcel", "data": {"kg": "1"}}}'),
            says('{"result": {"kind": "Parcel", "data": {"kg": 1}}}'),
            {"kg": 1},
            id="native output of several",
        ),
        pytest.param(
            list[Person],  # type: ignore[valid-type]
            answer({"response": [GOOD, BAD]}),
            answer({"response": [GOOD]}),
            [GOOD],
            id="in a list",
        ),
        pytest.param(
            Holder,
            answer({"person": GOOD, "parcels": [{"kg": "1"}]}),
            answer({"person": GOOD, "parcels": [{"kg": 1}]}),
            Holder(person=GOOD, parcels=[{"kg": 1}]),
            id="in a model",
        ),
        pytest.param(person_of, answer(BAD), answer(GOOD), "ann", id="the argument of an output function"),
    ],
)
async def test_a_structured_dict_is_checked(spec: Any, bad: ModelResponse, good: ModelResponse, output: Any) -> None:
    """A StructuredDict that violates its JSON schema uses the run's one retry; a second one is a fault."""
    retried = await govern(Agent(native(Script(bad, good)), output_type=spec), name="a").run("hi", user="u")
    assert isinstance(retried, Answered)
    assert (retried.output, retried.retried) == (output, True)
    failed = await govern(Agent(native(Script(bad, bad)), output_type=spec), name="a").run("hi", user="u")
    assert isinstance(failed, Failed)
    assert failed.fault.code == "output_malformed"


@pytest.mark.parametrize(
    ("spec", "good", "output"),
    [
        pytest.param(pair_of, {"person": GOOD, "kg": 2}, ("ann", 2), id="one of several arguments"),
        pytest.param(dict[str, int], {"response": {"name": 7}}, {"name": 7}, id="an ordinary dict"),
        pytest.param(Row, {"count": "1", "item": {"count": 2}}, Row(count=1, item=Item(count=2)), id="a typed dict"),
    ],
)
async def test_other_dicts(spec: Any, good: Any, output: Any) -> None:
    """Dicts other than StructuredDicts are left to Pydantic AI."""
    outcome = await govern(Agent(Script(answer(good)).model, output_type=spec), name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert (outcome.output, outcome.retried) == (output, False)


def test_a_native_union_with_other_types() -> None:
    """In native output of several types, a dict may be the value of any of them."""
    schema = {"properties": {"result": {"anyOf": [member({"type": "string"}), member({"type": "object"})]}}}
    context = context_of(schema)
    assert structured_dict_violation(context, {"a": 1}) is None
    assert structured_dict_violation(context, "text") is None
    only = context_of(
        {"properties": {"result": {"anyOf": [member({"$ref": "#/$defs/Kg"})]}}, "$defs": {"Kg": {"required": ["kg"]}}}
    )
    assert structured_dict_violation(only, {"a": 1}) == "$: 'kg' is a required property"


def member(data: dict[str, Any]) -> dict[str, Any]:
    return {"properties": {"data": data}}


def context_of(schema: dict[str, Any]) -> OutputContext:
    return OutputContext(mode="native", output_type=None, object_def=OutputObjectDefinition(schema), has_function=False)


def test_no_document_is_fetched() -> None:
    """A JSON schema that refers to another document is an error; nothing is downloaded."""
    remote = StructuredDict({"type": "object", "properties": {"a": {"$ref": "https://example.com/schema.json"}}})
    with pytest.raises(Unresolvable):
        output_check(remote).check({"a": 1})
