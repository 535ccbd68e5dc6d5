"""An eval spec has its agent's types: the output in `observe`, the dependencies in `deps`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

from handrail import Answered, Outcome, RunRequest
from handrail.evals import EvalSpec, ScorerContext, exact

from .support import Desk, Triage, open_desk, support

CASES = Path("cases.yaml")


def observe(outcome: Outcome[Triage]) -> Mapping[str, Any]:
    return outcome.output.model_dump() if isinstance(outcome, Answered) else {}


def observe_text(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"text": outcome.output} if isinstance(outcome, Answered) else {}


def open_shop(request: RunRequest) -> str:
    return request.tenant


def answer(text: str) -> Mapping[str, Any]:
    return {"text": text}


async def answer_later(text: str) -> Mapping[str, Any]:
    return {"text": text}


def polite(context: ScorerContext) -> bool:
    return "please" in context.case.input


def count(_text: str) -> int:
    return 0


assert_type(EvalSpec(agent=support, cases=CASES, observe=observe, deps=open_desk), EvalSpec[Desk, Triage])
assert_type(
    EvalSpec(
        agent=support,
        cases=CASES,
        observe=lambda outcome: {"category": outcome.output.category} if isinstance(outcome, Answered) else {},
        scorers=(exact(), polite),
    ),
    EvalSpec[Desk, Triage],
)
assert_type(EvalSpec(agent=answer, name="answer", cases=CASES), EvalSpec[Any, Any])
assert_type(EvalSpec(agent=answer_later, name="answer", cases=CASES, scorers=[polite]), EvalSpec[Any, Any])

# An `observe` of another output, dependencies of another type, and a function that returns no fields are errors.
EvalSpec(agent=support, cases=CASES, observe=observe_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
EvalSpec(agent=support, cases=CASES, observe=observe, deps=open_shop)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
EvalSpec(agent=count, name="count", cases=CASES)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
