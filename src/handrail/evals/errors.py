"""What can stop an eval run or the gate. Each error is named for what its caller does next."""

from typing import ClassVar

from handrail.kernel.errors import HandrailError
from handrail.runs.outcome import Refused


class ScorerFailed(HandrailError):
    """A scorer raised an exception or returned an invalid score: correct it. This says nothing about the agent."""

    code: ClassVar[str] = "scorer_failed"


class JudgeFailed(HandrailError):
    """The judge's model gave no usable answer: inspect its run, then resume the eval run."""

    code: ClassVar[str] = "judge_failed"


class UntrustedJudge(HandrailError):
    """Only a judge that is not trusted would pass this change: calibrate the judge, or add another scorer."""

    code: ClassVar[str] = "judge_distrusted"


class NoBaseline(HandrailError):
    """There is no baseline for the eval set and the scorers as they are now: create one."""

    code: ClassVar[str] = "no_baseline"


class TooManyErrors(HandrailError):
    """The infrastructure failed too many trials to tell how good the agent is: fix it, then try again."""

    code: ClassVar[str] = "too_many_errors"


class NotRecorded(HandrailError):
    """No response is recorded for this request: record the responses again with the real model."""

    code: ClassVar[str] = "not_recorded"


class SpendingLimit(HandrailError):
    """The eval run has reached its spending limit. Its trials are kept: raise the limit and resume it."""

    code: ClassVar[str] = "spending_limit"

    def __init__(self, eval_run_id: str, refused: Refused) -> None:
        super().__init__(
            f"eval run {eval_run_id} has reached its spending limit ({refused.refusal}); its trials are kept: raise "
            f"--max-cost and continue with --resume {eval_run_id}"
        )
