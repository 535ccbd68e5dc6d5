"""What a run makes of the built-in model's replies, without its weights."""

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models import override_allow_model_requests

from handrail import Failed, govern
from handrail.models.local.catalog import SMALL
from handrail.models.local.engine import Completion
from handrail.models.local.model import BuiltinModel

from .scripts import Count


async def fault_of(reply: Completion) -> tuple[str, int]:
    """The fault of a run whose model always gives this reply, and the number of requests."""

    class Replying(BuiltinModel):
        async def _complete(self, *_: Any) -> Completion:
            return reply

    agent = govern(Agent(Replying(SMALL, None), output_type=Count), name="a")
    with override_allow_model_requests(True):
        outcome = await agent.run("hi", user="u")
    assert isinstance(outcome, Failed)
    return outcome.fault.code, outcome.facts.requests


async def test_a_reply_of_no_offered_format() -> None:
    """A reply that cannot be read is malformed output of the model, retried once, and no failure to reach it."""
    assert await fault_of(Completion("neither a call nor an answer", False, 10, 0, 5)) == ("output_malformed", 2)


async def test_a_reply_that_was_cut_off() -> None:
    """A reply that its limit cut off is a fault of its own, and is not retried."""
    assert await fault_of(Completion('{"final_result": {"co', True, 10, 0, 5)) == ("output_cut", 1)
