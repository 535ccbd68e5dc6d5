"""Which cases an agent that does nothing would pass, according to the eval spec's own `observe` and scorers."""

import inspect
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from handrail.evals.eval_set.model import Case, EvalSet
from handrail.evals.scorer import ScorerContext
from handrail.evals.spec import EvalSpec
from handrail.kernel.errors import HandrailError
from handrail.kernel.money import ZERO
from handrail.runs.outcome import Answered, Escalated, Facts, Failed, Fault, Outcome
from handrail.runs.request import RunRequest

from .score import score_trial

_FACTS = Facts(run_id="none", trace_id="none", duration=timedelta())


async def passed_by_noop(spec: EvalSpec[Any, Any], eval_set: EvalSet) -> dict[str, str]:
    """Finds the cases that an agent passes without doing any work.

    A scorer that cannot score such an outcome does not pass it.

    Args:
        spec: How trials are observed and scored.
        eval_set: The eval set.

    Returns:
        How such an agent passes, by case id.

    Raises:
        Exception: Whatever the spec's `deps` raises, except the errors that `observe` may raise.
    """
    passed: dict[str, str] = {}
    for case in eval_set.cases:
        for behaviour, outcome in _noop_outcomes():
            if await _passes(spec, case, outcome):
                passed.setdefault(case.id, behaviour)
    return passed


def _noop_outcomes() -> Iterator[tuple[str, Outcome[Any]]]:
    message = "I am sorry, I cannot help with that."
    fault = Fault(code="noop", detail="an agent that does nothing")
    yield "always fails", Failed(fault=fault, message=message, facts=_FACTS)
    yield "always escalates to a person", Escalated(reason="noop", message=message, facts=_FACTS)
    yield "answers nothing", Answered(output=None, message="", facts=_FACTS)
    yield "answers with an empty text", Answered(output="", message="", facts=_FACTS)
    yield "always declines", Answered(output=message, message=message, facts=_FACTS)


async def _passes(spec: EvalSpec[Any, Any], case: Case, outcome: Outcome[Any]) -> bool:
    # These outputs need not have the agent's output type, so `observe` may well raise on them.
    with suppress(AttributeError, TypeError, KeyError, ValueError):
        observed = spec.observe(outcome)
        context = ScorerContext(
            case=case, outcome=outcome, observed=observed, deps=await _make_deps(spec, case), duration_ns=0, cost=ZERO
        )
        with suppress(HandrailError):
            return (await score_trial(spec, context)).passed
    return False


async def _make_deps(spec: EvalSpec[Any, Any], case: Case) -> Any:
    if spec.deps is None:
        return None
    request = RunRequest(
        run_id="none", agent="none", input=case.input, user="none", tenant="evals", conversation_id="none"
    )
    deps = spec.deps(request)
    return await deps if inspect.isawaitable(deps) else deps
