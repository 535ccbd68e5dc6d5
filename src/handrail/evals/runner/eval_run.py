"""An eval run under way: trials of all cases, each committed as it ends, gone on with after a crash."""

import asyncio
import copy
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from handrail.evals.eval_set.model import Case, EvalSet, check_frozen, load_set, lock_path
from handrail.evals.scorers.base import Seen
from handrail.evals.scorers.fingerprint import scored_by, scorers_changed
from handrail.evals.scorers.llm_judge import NoVerdict
from handrail.evals.scorers.score import Score, Verdict, score, verdict_of
from handrail.evals.store import eval_runs
from handrail.evals.store.eval_runs import EvalRunView, Trial
from handrail.evals.tenant import TENANT
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.kernel.money import NanoUsd
from handrail.review.approvals.store import list_approvals, withdraw
from handrail.runs.agent import GovernedAgent, Trials
from handrail.runs.runtime import Runtime, use_runtime

from .concurrency import Throttle
from .response_cache import Responses
from .task import Task, Tried, task_of

OnTrial = Callable[[Case, Trial], None]
TRIES = 3
"""How often a trial is tried where the infrastructure, and not the agent, fails it."""
TIMED_OUT = "timed_out"
"""The outcome of a trial that was stopped because its time was up."""
_FIRST_WAIT_SECONDS = 1.0
_MOST_WAITING = 10_000


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """An eval run as it stands. `trials` are in the set's order, then by number.

    `score` is over the cases, of their trials' mean; None where no trial could be judged. `errors` are trials that the
    infrastructure failed: they count neither for nor against the agent.
    """

    eval_run_id: str
    agent: str
    set_hash: str
    score: Score | None
    trials: tuple[Trial, ...]
    errors: tuple[Trial, ...] = ()


class Running:
    """One eval run. `up_to(k)` makes the trials 1 to k of every case that are not there yet."""

    def __init__(
        self,
        runtime: Runtime,
        task: Task,
        loaded: EvalSet,
        eval_run_id: str,
        done: Sequence[Trial],
        throttle: Throttle,
        on_trial: OnTrial,
        complete: bool,
    ) -> None:
        self.eval_run_id = eval_run_id
        self.loaded = loaded
        self._runtime = runtime
        self._task = task
        self._done = {(each.case_id, each.trial): each for each in done}
        self._throttle = throttle
        self._on_trial = on_trial
        self._complete = complete

    async def up_to(self, trials: int) -> Sequence[Trial]:
        """The trials 1 to `trials` of all cases, those that were there already kept; in the set's order.

        Raises SpendingLimit, BadInput where the eval run was complete before, and what a trial raises that is no
        outcome; what was committed before is kept.
        """
        wanted = [(case, number) for number in range(1, trials + 1) for case in self.loaded.cases]
        missing = [(case, number) for case, number in wanted if (case.id, number) not in self._done]
        if missing and self._complete:
            # A baseline may point at it, and what a change was compared with does not change afterwards.
            raise BadInput(f"eval run {self.eval_run_id} is complete; start a new one for {trials} trials of each case")
        try:
            async with asyncio.TaskGroup() as group:
                for case, number in missing:
                    group.create_task(self.one(case, number))
        except BaseExceptionGroup as errors:
            # The first one stopped the others; which case it was stands in its run.
            raise errors.exceptions[0] from None
        return self._trials(trials)

    def report(self) -> EvalReport:
        """What there is so far."""
        trials = self._trials(max((number for _, number in self._done), default=0))
        return EvalReport(
            eval_run_id=self.eval_run_id,
            agent=self._task.name,
            set_hash=self.loaded.content_hash,
            score=score_of(trials),
            trials=tuple(trials),
            errors=tuple(each for each in trials if each.error is not None),
        )

    def _trials(self, trials: int) -> list[Trial]:
        keys = [(case.id, number) for case in self.loaded.cases for number in range(1, trials + 1)]
        return [self._done[key] for key in keys if key in self._done]

    async def one(self, case: Case, number: int) -> Trial:
        """The `number`-th trial of one case of the set, made and committed unless it is there."""
        if (case.id, number) in self._done:
            return self._done[case.id, number]
        tried, duration_ns = await self._tried(case, number)
        spec = self._task.trials
        assert spec is not None
        verdict, error = await self._judged(spec, case, tried, duration_ns)
        trial = Trial(
            case_id=case.id,
            trial=number,
            run_id=tried.run_id,
            outcome=tried.outcome,
            path=tried.path,
            verdict=verdict,
            error=error,
            observed=tried.observed,
            duration_ns=duration_ns,
            cost=tried.cost,
            model=tried.model,
            agent_hash=tried.agent_hash,
        )
        # What a trial asked people for is nobody's to decide.
        left = [withdraw(tried.run_id)] if tried.outcome == "awaiting_approval" else []
        await self._runtime.database.write(eval_runs.add_trial(self.eval_run_id, trial), *left)
        self._done[case.id, number] = trial
        self._on_trial(case, trial)
        return trial

    async def _tried(self, case: Case, number: int) -> tuple[Tried, int]:
        """What came of the case, and its time in nanoseconds; tried again where the infrastructure failed it."""
        clock = self._runtime.clock
        for attempt in range(1, TRIES + 1):
            async with self._throttle:
                began = clock.monotonic_ns()
                tried = await self._in_time(case, number)
                took = clock.monotonic_ns() - began
            if tried.error is None:
                self._throttle.went_well()
                break
            if tried.error == "model_rate_limited":
                self._throttle.too_many()
            if attempt < TRIES:
                await clock.sleep(_FIRST_WAIT_SECONDS * 4 ** (attempt - 1))
        return tried, took

    async def _in_time(self, case: Case, number: int) -> Tried:
        """A model that is not heard of in its own time is the infrastructure's fault; other waiting is the agent's."""
        spec = self._task.trials
        assert spec is not None
        try:
            async with asyncio.timeout(spec.seconds) as limit:
                return await self._task.attempt(self._runtime, case, number, self.eval_run_id)
        except TimeoutError as late:
            if not limit.expired():
                raise
            return Tried(outcome=TIMED_OUT, path="failed", observed={}, result=late)

    async def _judged(
        self, spec: Trials[Any, Any], case: Case, tried: Tried, duration_ns: int
    ) -> tuple[Verdict, str | None]:
        """The verdict, and what of the infrastructure failed the trial or its judging."""
        if tried.outcome == TIMED_OUT:
            return Verdict({"in_time": False}, notes={"in_time": f"did not end in {spec.seconds:g} s"}), None
        seen = Seen(
            case=case,
            outcome=tried.result,
            observed=tried.observed,
            deps=tried.world,
            duration_ns=duration_ns,
            cost=tried.cost,
        )
        try:
            # A judge is a scorer that runs an agent of its own, under the same ceilings.
            with use_runtime(self._runtime):
                return await verdict_of(spec, seen), tried.error
        except NoVerdict as silent:
            return Verdict({"judge": False}, notes={"judge": str(silent)}), tried.error or "judge_unavailable"


@asynccontextmanager
async def evaluating(
    runtime: Runtime,
    subject: GovernedAgent[Any, Any] | Task,
    *,
    at_once: int = 1,
    responses: Responses | None = None,
    resume: str | None = None,
    max_cost: NanoUsd | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> AsyncIterator[Running]:
    """An eval run of the subject's frozen set, complete when the block ends without an error.

    At most `at_once` trials run side by side. `resume` goes on with an eval run that was stopped, `max_cost` is a hard
    ceiling on what the whole eval run may spend, `responses` answer for the model where they know the request.
    Raises BadInput where the subject has no frozen set, `at_once` is below 1, or the eval run to resume is another's,
    of another state of the set, or scored by other means.
    """
    if at_once < 1:
        raise BadInput(f"at_once: {at_once}; at least one trial has to run at a time")
    task = task_of(subject, responses)
    loaded, spec = frozen_set(task)
    if max_cost is not None:
        runtime = _limited(runtime, max_cost)
    with use_runtime(runtime):
        scorers = scored_by(spec)
    database, now = runtime.database, runtime.clock.now()
    done: Sequence[Trial] = ()
    complete = False
    if resume is None:
        eval_run_id = new_id("eval", now)
        begun = eval_runs.start(eval_run_id, task.name, loaded.content_hash, len(loaded.cases), now, scorers)
        await database.write(begun)
    else:
        view, done = await database.read(lambda conn: eval_runs.load_eval_run(conn, resume))
        _check_resumable(view, task.name, loaded, scorers)
        eval_run_id, complete = view.eval_run_id, view.ended_at is not None
        await _withdraw_lost(database, eval_run_id)
    yield Running(runtime, task, loaded, eval_run_id, done, Throttle(at_once), on_trial, complete)
    await database.write(eval_runs.end(eval_run_id, runtime.clock.now()))


async def run_evals(
    runtime: Runtime,
    subject: GovernedAgent[Any, Any] | Task,
    *,
    trials: int = 1,
    at_once: int = 1,
    responses: Responses | None = None,
    resume: str | None = None,
    max_cost: NanoUsd | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> EvalReport:
    """`trials` trials of each case of the subject's frozen set; `evaluating` says what the options mean.

    Raises what `evaluating` raises, BadInput for fewer trials than one, and SpendingLimit; what was committed is kept.
    """
    if trials < 1:
        raise BadInput(f"trials: {trials}; a case is tried at least once")
    options: dict[str, Any] = {"responses": responses, "resume": resume, "max_cost": max_cost, "on_trial": on_trial}
    async with evaluating(runtime, subject, at_once=at_once, **options) as running:
        await running.up_to(trials)
    return running.report()


def frozen_set(subject: GovernedAgent[Any, Any] | Task) -> tuple[EvalSet, Trials[Any, Any]]:
    """The subject's eval set, checked against its lock. Raises BadInput where it has none or it is not frozen."""
    if subject.trials is None:
        raise BadInput(
            f"agent {subject.name} has no eval set; pass `trials=Trials(cases=..., observe=...)` to govern()"
        )
    loaded = load_set(subject.trials.cases)
    check_frozen(loaded, lock_path(subject.trials.cases))
    return loaded, subject.trials


def score_of(trials: Sequence[Trial]) -> Score | None:
    """The score over the cases, of their trials' mean, infrastructure errors left out; None where nothing is left."""
    values: dict[str, list[float]] = {}
    for each in trials:
        if each.error is None:
            values.setdefault(each.case_id, []).append(each.value)
    return score([sum(found) / len(found) for found in values.values()]) if values else None


async def _withdraw_lost(database: Database, eval_run_id: str) -> None:
    """What the trials that a crash lost have asked people for is nobody's to decide either."""
    waiting = await database.read(
        lambda conn: list_approvals(conn, state="pending", tenant=TENANT, limit=_MOST_WAITING, before=None)
    )
    lost = sorted({each.run_id for each in waiting if each.user == eval_run_id})
    if lost:
        await database.write(*map(withdraw, lost))


def _limited(runtime: Runtime, max_cost: NanoUsd) -> Runtime:
    """The same runtime, in which a user may spend no more than that in a day: an eval run is a user of its own."""
    limited = copy.copy(runtime)
    budget = runtime.limits.user_day
    limited.limits = dataclasses.replace(runtime.limits, user_day=max_cost if budget is None else min(budget, max_cost))
    return limited


def _check_resumable(view: EvalRunView, agent: str, loaded: EvalSet, scorers: Mapping[str, str]) -> None:
    if view.agent != agent:
        raise BadInput(f"eval run {view.eval_run_id} is of agent {view.agent}, not of {agent}")
    if view.set_hash != loaded.content_hash:
        raise BadInput(f"eval run {view.eval_run_id}: the set has changed since it began; start a new one")
    # Of an eval run from before scorers were kept nobody can tell; it goes on, and becomes no baseline.
    if view.scored_by is not None and (changed := scorers_changed(view.scored_by, scorers)):
        raise BadInput(
            f"eval run {view.eval_run_id}: its trials so far were scored by other means (changed since it began: "
            f"{', '.join(changed)}); start a new one"
        )
