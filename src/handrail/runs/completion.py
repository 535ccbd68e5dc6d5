"""Ends a run: its outcome, cost, spans and conversation are committed together, before the outcome is returned."""

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart

from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import StoreError
from handrail.kernel.interruptions import run_to_end

from .errors import OutcomeNotStored
from .outcome import Failed, Fault, FellBack, Outcome
from .record import RunRecord
from .store import runs

_MAX_DETAIL = 2_000

_logger = logging.getLogger(__name__)


async def commit_outcome(
    record: RunRecord, outcome: Outcome[Any], messages: Sequence[ModelMessage] | None, *ops: Operation[Any]
) -> None:
    """Commits the outcome, what the run adds to its conversation, and `ops`, in one transaction.

    Args:
        record: The run's record.
        outcome: How the run ended.
        messages: What the run adds to its conversation; with None, the user's input and the outcome's message.
        *ops: What has to be committed if and only if the outcome is, such as the approvals that the run waits for.

    Raises:
        OutcomeNotStored: Nothing was written; the error holds the outcome.
    """
    request, now = record.request, record.runtime.clock.now()
    if messages is None:
        prompt = [UserPromptPart(request.input)] if request.input is not None else []
        messages = [ModelRequest(prompt), ModelResponse([TextPart(outcome.message)])]
    fault = outcome.fault.code if isinstance(outcome, FellBack | Failed) else None
    try:
        await record.commit(
            runs.append_outcome(
                record.claim, outcome.type, outcome.path, fault, now, _outcome_fields(outcome), record.row_values()
            ),
            runs.store_messages(request.run_id, request.tenant, request.conversation_id, now, messages),
            *ops,
        )
    except StoreError as error:
        extra = {**record.log_fields, "outcome": outcome.type, "error_code": error.code}
        _logger.error("outcome could not be stored", extra=extra)
        raise OutcomeNotStored(outcome, error) from error
    if fault is not None:
        event = "run fell back" if isinstance(outcome, FellBack) else "run failed"
        _logger.info(event, extra={**record.log_fields, "fault": fault})


async def commit_exception(record: RunRecord, error: BaseException) -> None:
    """Commits a run that was cancelled or met a programming error as `Failed`. The caller re-raises `error`."""
    fault = Fault(code=_fault_code(error), detail=f"{type(error).__name__}: {error}"[:_MAX_DETAIL])
    outcome = Failed(fault=fault, message="", facts=record.facts())
    # To the end, because a cancelled task may be cancelled again (by a timeout inside a task group). Without an outcome
    # the run would look alive until its lease expires, and the cost of its last request would stay a hold.
    # A StoreError is suppressed: either it is `error` itself, or `error` came first and is the one to raise.
    with suppress(StoreError):
        await run_to_end(commit_outcome(record, outcome, messages=()))


async def release(record: RunRecord) -> None:
    """Commits what a resumed run has spent, without an outcome, and ends its lease: any process may resume it now.

    The actions that it was executing stay as they are, and the next process to resume it deals with them as with those
    of a process that died.
    """
    values = {**record.row_values(), "lease_until": record.runtime.clock.now()}
    # To the end, and suppressed, as in `commit_exception`. If nothing is written, the lease ends by itself.
    with suppress(StoreError):
        await run_to_end(record.commit(runs.update_run(record.claim, values)))
    _logger.info("run left to be resumed", extra=record.log_fields)


def _fault_code(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "store" if isinstance(error, StoreError) else "bug"


def _outcome_fields(outcome: Outcome[Any]) -> dict[str, Any]:
    return {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
