"""The route before the model, and the stricter retry after it."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent

from handrail import Answered, BadInput, Calibration, Confidence, Escalated, FellBack, RunRequest, Runtime, govern
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Count, Script, counts

pytestmark = pytest.mark.usefixtures("runtime")
RECORD = Calibration(method="isotonic", cases=200, error=0.03, date=dt.date(2026, 11, 1))


def confidence(value: float, in_scope: bool = True) -> Confidence:
    return Confidence(value=value, calibration=RECORD, in_scope=in_scope)


async def _zero(_request: RunRequest) -> Count:
    return Count(count=0)


async def _none(_request: RunRequest) -> None:
    return None


def governed(script: Script, route: Callable[[RunRequest], Any], **options: Any) -> Any:
    agent = Agent(script.model, output_type=Count, instructions="Count.")
    return govern(agent, name="a", route=route, **options)


async def test_confident() -> None:
    """At the threshold and above, a run goes to the model, whose answer counts as happy."""
    outcome = await governed(Script(counts(1)), lambda _request: confidence(0.7)).run("hi", user="u")
    assert (type(outcome), outcome.path) == (Answered, "happy")


async def test_not_confident(runtime: Runtime) -> None:
    """Below the threshold the handler answers without the model, and the trace has the decision and its reason."""
    script = Script()
    outcome = await governed(script, lambda _request: confidence(0.69), fallback=_zero).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert (outcome.output, outcome.fault.code, outcome.facts.requests) == (Count(count=0), "low_confidence", 0)
    _, spans = await runtime.database.read(load_trace(outcome.facts.trace_id, None))
    [route] = [span for span in spans if span.name == "route"]
    assert route.attributes["handrail.route.to"] == "handler"
    assert route.attributes["handrail.route.confidence"] == 0.69


@pytest.mark.parametrize("fallback", [None, _none])
async def test_escalated_without_a_handler(fallback: Any) -> None:
    """If no handler has an answer, a run that was routed past the model is escalated."""

    async def route(_request: RunRequest) -> Confidence:
        return confidence(0.99, in_scope=False)

    outcome = await governed(Script(), route, fallback=fallback).run("hi", user="u")
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, outcome.path) == ("out_of_scope", "human")


async def test_another_threshold() -> None:
    """An agent can set its own threshold, which is part of its fingerprint."""
    lenient = governed(Script(counts(1)), lambda _request: confidence(0.5), threshold=0.5)
    assert isinstance(await lenient.run("hi", user="u"), Answered)
    strict = governed(Script(counts(1)), lambda _request: confidence(0.5), threshold=0.6)
    assert lenient._definition != strict._definition
    with pytest.raises(BadInput, match=r"threshold 1.5 is not a probability"):
        governed(Script(), lambda _request: confidence(1), threshold=1.5)


async def test_a_route_that_fails() -> None:
    """A route that raises is a fault: the handler answers without the model."""

    def route(_request: RunRequest) -> Confidence:
        raise OSError("no weights")

    outcome = await governed(Script(), route, fallback=_zero).run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert "route: OSError: no weights" in outcome.fault.detail


async def test_a_route_without_calibration() -> None:
    """A route that returns a bare number instead of a Confidence is a programming error."""
    with pytest.raises(AttributeError):
        await governed(Script(), lambda _request: 0.9).run("hi", user="u")


async def test_the_retry_is_stricter(runtime: Runtime) -> None:
    """The retry has one stricter instruction in addition to the agent's own, for that request only."""
    script = Script(counts("many"), counts(1))
    outcome = await governed(script, lambda _request: confidence(1)).run("hi", user="u")
    assert (type(outcome), outcome.path) == (Answered, "fallback")
    first, second = (info.instructions or "" for info in script.infos)
    assert "only second try" not in first
    assert second.startswith("Count.")
    assert "rejected (validate output: int_parsing)" in second
    assert "many" not in second
    _, spans = await runtime.database.read(load_trace(outcome.facts.trace_id, None))
    chats = [span for span in spans if span.kind == "model"]
    assert [(span.attempt, span.retry_of) for span in chats] == [(1, None), (2, chats[0].span_id)]
