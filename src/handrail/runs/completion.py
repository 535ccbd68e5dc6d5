"""Ends a run: outcome, cost, spans and conversation in one commit, before anybody hears of it."""

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)

from handrail.kernel.db.group_writer import Op
from handrail.kernel.errors import StoreError

from .outcome import Failed, Fault, FellBack, Outcome
from .record import Record
from .store import runs


class OutcomeNotStored(StoreError):
    """The run ended, but its outcome could not be committed; `outcome` holds it. Mend the store before going on."""

    def __init__(self, outcome: Outcome[Any], error: StoreError) -> None:
        super().__init__(f"run {outcome.facts.run_id} ended ({outcome.type}) but was not stored: {error}")
        self.outcome = outcome


async def end_run(record: Record, outcome: Outcome[Any], said: Sequence[ModelMessage] | None, *ops: Op) -> None:
    """Commits how the run ended, what it adds to its conversation and `ops`, together. Raises OutcomeNotStored.

    `said` are the agent's own messages; None lets the user's input and the outcome's message stand for them.
    """
    request, now = record.request, record.runtime.clock.now()
    if said is None:
        prompt = [UserPromptPart(request.input)] if request.input is not None else []
        said = [ModelRequest(prompt), ModelResponse([TextPart(outcome.message)])]
    fault = outcome.fault.code if isinstance(outcome, FellBack | Failed) else None
    try:
        await record.commit(
            runs.append_outcome(
                record.claim, outcome.type, outcome.path, fault, now, _fields(outcome), record.standing()
            ),
            runs.keep_messages(
                request.run_id,
                request.tenant,
                request.conversation_id,
                now,
                said,
            ),
            *ops,
        )
    except StoreError as error:
        raise OutcomeNotStored(outcome, error) from error


async def end_by_exception(record: Record, error: BaseException) -> None:
    """Books a run that was cancelled or met a programming error. The exception is the caller's to raise."""
    fault = Fault(code=_code(error), detail=f"{type(error).__name__}: {error}"[:2_000])
    outcome = Failed(fault=fault, message="", facts=record.facts())
    # A store that fails now is what ended the run, or is one more trouble: the first error is the one to show.
    with suppress(StoreError):
        await asyncio.shield(end_run(record, outcome, said=()))


def _code(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "store" if isinstance(error, StoreError) else "bug"


def _fields(outcome: Outcome[Any]) -> dict[str, Any]:
    return {each.name: getattr(outcome, each.name) for each in dataclasses.fields(outcome)}
