"""One eval run: trials of all cases of a set, each committed as it ends, so that a stopped eval run can be resumed."""

import asyncio
import copy
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handrail.evals.errors import JudgeFailed
from handrail.evals.eval_set.lock import check_frozen, lock_path
from handrail.evals.eval_set.model import Case, EvalSet, load_eval_set
from handrail.evals.scorer import ScorerContext
from handrail.evals.scorers.fingerprint import changed_scorers, scorer_hashes
from handrail.evals.scorers.score import Score, TrialScore, mean_score, score_trial
from handrail.evals.spec import EVALS_TENANT, EvalSpec
from handrail.evals.store import eval_runs
from handrail.evals.store.eval_runs import EvalRunView, Trial
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.kernel.money import NanoUsd
from handrail.review.approvals.queries import list_approvals
from handrail.review.approvals.store import withdraw
from handrail.runs.runtime import Runtime, use_runtime

from .concurrency import Throttle
from .response_cache import ResponseCache
from .task import Task, TaskResult, make_task

OnTrial = Callable[[Case, Trial], None]
"""Called with each trial once it is committed."""
MAX_ATTEMPTS = 3
"""How often a case is executed for one trial while the infrastructure fails it."""
TIMED_OUT = "timed_out"
"""The outcome of a trial that was stopped because its time was up."""
_FIRST_RETRY_SECONDS = 1.0
_logger = logging.getLogger(__name__)
_MAX_PENDING_APPROVALS = 10_000


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """The result of an eval run so far.

    Args:
        eval_run_id: The eval run.
        agent: The agent's name.
        set_hash: SHA-256 of the eval set (64 hex digits).
        score: The mean over the cases of their trials' mean; None if no trial could be scored.
        trials: All trials so far, in the order of the eval set, then by number.
        errors: The trials that the infrastructure failed; the score leaves them out.
    """

    eval_run_id: str
    agent: str
    set_hash: str
    score: Score | None
    trials: tuple[Trial, ...]
    errors: tuple[Trial, ...] = ()


class EvalRun:
    """An open eval run, which executes the trials that it does not have yet."""

    def __init__(
        self,
        runtime: Runtime,
        spec: EvalSpec[Any, Any],
        task: Task,
        eval_set: EvalSet,
        eval_run_id: str,
        trials: Sequence[Trial],
        throttle: Throttle,
        on_trial: OnTrial,
        complete: bool,
    ) -> None:
        self.eval_run_id = eval_run_id
        self.eval_set = eval_set
        self._runtime = runtime
        self._spec = spec
        self._task = task
        self._trials = {(trial.case_id, trial.trial): trial for trial in trials}
        self._throttle = throttle
        self._on_trial = on_trial
        self._complete = complete

    async def run_trials(self, trials: int) -> Sequence[Trial]:
        """Completes the trials 1 to `trials` of every case and returns them in the order of the eval set.

        Trials that the eval run has already are not executed again. The first error stops the others; the trials that
        were committed before it are kept.

        Raises:
            SpendingLimit: The eval run may spend no more.
            BadInput: The eval run was complete before, and has fewer trials.
        """
        wanted = [(case, number) for number in range(1, trials + 1) for case in self.eval_set.cases]
        missing = [(case, number) for case, number in wanted if (case.id, number) not in self._trials]
        if missing and self._complete:
            # A baseline may refer to it, and what changes were compared with must not change afterwards.
            raise BadInput(f"eval run {self.eval_run_id} is complete; start a new one for {trials} trials of each case")
        try:
            async with asyncio.TaskGroup() as group:
                for case, number in missing:
                    group.create_task(self.run_trial(case, number))
        except BaseExceptionGroup as errors:
            # The group has cancelled the other trials; the first error is enough, since its stored run has the details.
            raise errors.exceptions[0] from None
        return self._first_trials(trials)

    def report(self) -> EvalReport:
        """The result so far."""
        trials = self._first_trials(max((number for _, number in self._trials), default=0))
        return EvalReport(
            eval_run_id=self.eval_run_id,
            agent=self._spec.name,
            set_hash=self.eval_set.content_hash,
            score=overall_score(trials),
            trials=tuple(trials),
            errors=tuple(trial for trial in trials if trial.error is not None),
        )

    def _first_trials(self, trials: int) -> list[Trial]:
        keys = [(case.id, number) for case in self.eval_set.cases for number in range(1, trials + 1)]
        return [self._trials[key] for key in keys if key in self._trials]

    async def run_trial(self, case: Case, number: int) -> Trial:
        """Executes, scores and commits trial `number` of a case, unless the eval run has it already."""
        if (case.id, number) in self._trials:
            return self._trials[case.id, number]
        result, duration_ns = await self._execute_with_retries(case, number)
        score, error = await self._score(case, result, duration_ns)
        trial = Trial(
            case_id=case.id,
            trial=number,
            run_id=result.run_id,
            outcome=result.outcome,
            path=result.path,
            score=score,
            error=error,
            observed=result.observed,
            duration_ns=duration_ns,
            cost=result.cost,
            model=result.model,
            agent_hash=result.agent_hash,
        )
        # Nobody should be asked to decide about an action that only a trial proposed.
        withdrawals = [withdraw(result.run_id)] if result.outcome == "awaiting_approval" else []
        await self._runtime.database.write(eval_runs.add_trial(self.eval_run_id, trial), *withdrawals)
        self._trials[case.id, number] = trial
        self._on_trial(case, trial)
        return trial

    async def _execute_with_retries(self, case: Case, number: int) -> tuple[TaskResult, int]:
        """The result of the last attempt and its duration in nanoseconds.

        An attempt that the infrastructure failed is repeated, after 1 and 4 seconds. The waiting happens outside the
        throttle, so that other trials use the slot meanwhile.
        """
        clock = self._runtime.clock
        for attempt in range(1, MAX_ATTEMPTS + 1):
            async with self._throttle:
                started = clock.monotonic_ns()
                result = await self._execute_in_time(case, number)
                duration_ns = clock.monotonic_ns() - started
            if result.error is None:
                self._throttle.record_success()
                break
            if result.error == "model_rate_limited":
                self._throttle.back_off()
            identity = {"run_id": result.run_id, "tenant": EVALS_TENANT, "eval_run_id": self.eval_run_id}
            _logger.info("attempt %d of a trial failed: %s", attempt, result.error, extra=identity)
            if attempt < MAX_ATTEMPTS:
                await clock.sleep(_FIRST_RETRY_SECONDS * 4 ** (attempt - 1))
        return result, duration_ns

    async def _execute_in_time(self, case: Case, number: int) -> TaskResult:
        """One attempt, within the spec's time limit.

        Running out of time is the agent's failure: a model that is too slow runs into a shorter timeout of its own,
        which is an infrastructure fault.
        """
        try:
            async with asyncio.timeout(self._spec.seconds) as limit:
                return await self._task.execute(self._runtime, case, number, self.eval_run_id)
        except TimeoutError as error:
            if not limit.expired():
                raise
            return TaskResult(outcome=TIMED_OUT, path="failed", observed={}, result=error)

    async def _score(self, case: Case, result: TaskResult, duration_ns: int) -> tuple[TrialScore, str | None]:
        """The trial's score, and the infrastructure fault that ended the trial or its scoring, if one did."""
        if result.outcome == TIMED_OUT:
            return TrialScore({"in_time": False}, notes={"in_time": f"did not end in {self._spec.seconds:g} s"}), None
        context = ScorerContext(
            case=case,
            outcome=result.result,
            observed=result.observed,
            deps=result.deps,
            duration_ns=duration_ns,
            cost=result.cost,
        )
        try:
            # A judge is a scorer that runs an agent of its own, under the same ceilings.
            with use_runtime(self._runtime):
                return await score_trial(self._spec, context), result.error
        except JudgeFailed as error:
            return TrialScore({"judge": False}, notes={"judge": str(error)}), result.error or "judge_unavailable"


@asynccontextmanager
async def open_eval_run(
    runtime: Runtime,
    spec: EvalSpec[Any, Any],
    *,
    concurrency: int = 1,
    responses: ResponseCache | None = None,
    resume: str | None = None,
    max_cost: NanoUsd | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> AsyncIterator[EvalRun]:
    """Opens an eval run, which is marked complete when the block ends without an error.

    Resuming is safe because a trial's row is the only record of it: a trial is committed in one write as it ends, and a
    trial without a row is executed again. The cases, the agent's name and the scorers have to be those that the eval
    run began with, or its trials could not be compared with each other. The agent itself is not compared: its
    fingerprint may differ from trial to trial, and every trial records its own.

    Args:
        runtime: Where runs, trials and costs are stored.
        spec: What is evaluated.
        concurrency: How many trials run side by side, at most.
        responses: Recorded responses, used in place of the model where they have the request.
        resume: The id of an eval run that was stopped, to continue it.
        max_cost: A hard limit on what the whole eval run may spend, in billionths of a dollar.
        on_trial: Called with each trial once it is committed.

    Raises:
        BadInput: The set is not frozen, `concurrency` is below 1, or the eval run to resume is another agent's, of
            another version of the set, or was scored by other scorers.
        NotFound: There is no eval run to resume by that id.
    """
    if concurrency < 1:
        raise BadInput(f"concurrency: {concurrency}; at least one trial must run at a time")
    eval_set = load_frozen_set(spec)
    if max_cost is not None:
        runtime = _with_spending_limit(runtime, max_cost)
    with use_runtime(runtime):
        scorers = scorer_hashes(spec)
    eval_run_id, trials, complete = await _start_or_load(runtime, spec, eval_set, scorers, resume)
    task, throttle = make_task(spec, responses), Throttle(concurrency)
    yield EvalRun(runtime, spec, task, eval_set, eval_run_id, trials, throttle, on_trial, complete)
    await runtime.database.write(eval_runs.end_eval_run(eval_run_id, runtime.clock.now()))


async def run_evals(
    runtime: Runtime,
    spec: EvalSpec[Any, Any],
    *,
    trials: int = 1,
    concurrency: int = 1,
    responses: ResponseCache | None = None,
    resume: str | None = None,
    max_cost: NanoUsd | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> EvalReport:
    """Runs an agent on every case of its frozen eval set and reports how it did.

    Every trial is a governed run of its own, in the tenant `evals`, and is committed as it ends: an eval run that was
    stopped or that reached its spending limit keeps its trials and can be resumed.

    Args:
        runtime: Where runs, trials and costs are stored.
        spec: What is evaluated.
        trials: How often each case is tried.
        concurrency: How many trials run side by side, at most; fewer while the provider limits the rate.
        responses: Responses that are used in place of the model: a `ResponseCache`, to which new ones are added, or
            `RecordedResponses`, with which no model is called.
        resume: The id of an eval run that was stopped, to continue it.
        max_cost: A hard limit on what the whole eval run may spend, in billionths of a dollar.
        on_trial: Called with each trial once it is committed.

    Returns:
        The score and every trial.

    Raises:
        BadInput: The set is not frozen, `trials` or `concurrency` is below 1, or the eval run to resume is another
            agent's, of another version of the set, or was scored by other scorers.
        NotFound: There is no eval run to resume by that id.
        NotRecorded: `responses` are `RecordedResponses`, and lack the response to a request.
        SpendingLimit: The eval run has reached `max_cost` or its user's daily ceiling.
        ScorerFailed: A scorer raised an exception or returned an invalid score.
    """
    if trials < 1:
        raise BadInput(f"trials: {trials}; a case is tried at least once")
    options: dict[str, Any] = {"responses": responses, "resume": resume, "max_cost": max_cost, "on_trial": on_trial}
    async with open_eval_run(runtime, spec, concurrency=concurrency, **options) as eval_run:
        await eval_run.run_trials(trials)
    return eval_run.report()


def load_frozen_set(spec: EvalSpec[Any, Any]) -> EvalSet:
    """The spec's eval set, checked against its lock. Raises BadInput where it cannot be read or is not frozen."""
    eval_set = load_eval_set(spec.cases)
    check_frozen(eval_set, lock_path(spec.cases))
    return eval_set


def overall_score(trials: Sequence[Trial]) -> Score | None:
    """The mean over the cases of their trials' mean; None where the infrastructure failed every trial."""
    values: dict[str, list[float]] = {}
    for trial in trials:
        if trial.error is None:
            values.setdefault(trial.case_id, []).append(trial.value)
    return mean_score([sum(case_values) / len(case_values) for case_values in values.values()]) if values else None


async def _start_or_load(
    runtime: Runtime, spec: EvalSpec[Any, Any], eval_set: EvalSet, scorers: Mapping[str, str], resume: str | None
) -> tuple[str, Sequence[Trial], bool]:
    """The id of a new eval run or the one to resume, the trials that it has, and whether it was complete before."""
    database, now = runtime.database, runtime.clock.now()
    if resume is None:
        eval_run_id, cases = new_id("eval", now), len(eval_set.cases)
        await database.write(
            eval_runs.start_eval_run(eval_run_id, spec.name, eval_set.content_hash, cases, now, scorers)
        )
        return eval_run_id, (), False
    view, trials = await database.read(eval_runs.load_eval_run(resume))
    _check_resumable(view, spec.name, eval_set, scorers)
    await _withdraw_orphaned_approvals(database, view.eval_run_id, now)
    return view.eval_run_id, trials, view.ended_at is not None


async def _withdraw_orphaned_approvals(database: Database, eval_run_id: str, now: datetime) -> None:
    """Withdraws the pending approvals of trials that a crash ended before they were committed."""
    pending = await database.read(
        list_approvals(now, state="pending", tenant=EVALS_TENANT, limit=_MAX_PENDING_APPROVALS, before=None)
    )
    run_ids = sorted({approval.run_id for approval in pending if approval.user == eval_run_id})
    if run_ids:
        await database.write(*map(withdraw, run_ids))


def _with_spending_limit(runtime: Runtime, max_cost: NanoUsd) -> Runtime:
    """The same runtime with a lower daily ceiling per user; every eval run is a user of its own."""
    limited = copy.copy(runtime)
    budget = runtime.limits.user_day
    limited.limits = dataclasses.replace(runtime.limits, user_day=max_cost if budget is None else min(budget, max_cost))
    return limited


def _check_resumable(view: EvalRunView, agent: str, eval_set: EvalSet, scorers: Mapping[str, str]) -> None:
    if view.agent != agent:
        raise BadInput(f"eval run {view.eval_run_id} is of agent {view.agent}, not of {agent}")
    if view.set_hash != eval_set.content_hash:
        raise BadInput(f"eval run {view.eval_run_id}: the set has changed since it began; start a new one")
    # An eval run without recorded scorers can be resumed, but cannot become a baseline.
    if view.scored_by is not None and (changed := changed_scorers(view.scored_by, scorers)):
        raise BadInput(
            f"eval run {view.eval_run_id}: its trials so far were scored by other scorers (changed since it began: "
            f"{', '.join(changed)}); start a new one"
        )
