"""The agent that does nothing: which cases of a set it passes, by the set's own `observe` and scorers."""

import inspect
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from handrail.evals.eval_set.model import Case, EvalSet
from handrail.kernel.errors import HandrailError
from handrail.kernel.money import ZERO
from handrail.runs.agent import Trials
from handrail.runs.outcome import Answered, Escalated, Facts, Failed, Fault, Outcome
from handrail.runs.request import RunRequest

from .base import Seen
from .score import verdict_of

_FACTS = Facts(run_id="none", trace_id="none", duration=timedelta())


async def passed_by_idling(spec: Trials[Any, Any], loaded: EvalSet) -> dict[str, str]:
    """The ids of the cases that need no work, and the way to pass them: to fail, say nothing, or leave all to people.

    A scorer that cannot be asked about such an outcome does not pass it. Raises what the set's `deps` raise.
    """
    found: dict[str, str] = {}
    for case in loaded.cases:
        for way, outcome in _idle_outcomes():
            if await _passes(spec, case, outcome):
                found.setdefault(case.id, way)
    return found


def _idle_outcomes() -> Iterator[tuple[str, Outcome[Any]]]:
    message = "I am sorry, I cannot help with that."
    fault = Fault(code="idle", detail="an agent that does nothing")
    yield "fails every time", Failed(fault=fault, message=message, facts=_FACTS)
    yield "hands everything to a person", Escalated(reason="idle", message=message, facts=_FACTS)
    yield "answers nothing", Answered(output=None, message="", facts=_FACTS)
    yield "answers with an empty text", Answered(output="", message="", facts=_FACTS)
    yield "declines every time", Answered(output=message, message=message, facts=_FACTS)


async def _passes(spec: Trials[Any, Any], case: Case, outcome: Outcome[Any]) -> bool:
    # An output of another type than the agent's is something that `observe` need not be ready for.
    with suppress(AttributeError, TypeError, KeyError, ValueError):
        observed = spec.observe(outcome)
        seen = Seen(
            case=case, outcome=outcome, observed=observed, deps=await _world(spec, case), duration_ns=0, cost=ZERO
        )
        with suppress(HandrailError):
            return (await verdict_of(spec, seen)).passed
    return False


async def _world(spec: Trials[Any, Any], case: Case) -> Any:
    if spec.deps is None:
        return None
    asked = RunRequest(
        run_id="none", agent="none", input=case.input, user="none", tenant="evals", conversation_id="none"
    )
    made = spec.deps(asked)
    return await made if inspect.isawaitable(made) else made
