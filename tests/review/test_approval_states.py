"""Approvals compared with a model: after any sequence of events, an action is executed no more often than allowed."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, select

from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import jobs
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import HandrailError
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted, StillExecuting
from handrail.review.approvals.model import (
    DECISION_PERIOD,
    EXECUTION_LEASE,
    TRANSITIONS,
    UNCERTAIN,
    AlreadyExecuted,
    Approval,
    BeginResult,
    CallDiffers,
    Execute,
    NotApproved,
    State,
    Transition,
    UnknownEffect,
)
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import (
    begin,
    complete,
    decide,
    expire,
    fail,
    propose,
    recover,
    renew_execution,
    settle_uncertain,
    withdraw,
)
from handrail.testing import VirtualClock
from tests.review.samples import DIGEST, NOW, ROLES, approval

PEOPLE = {"role:lead": "ann", "requester": "u-17"}
"""A person who may decide, for each approver."""
GONE = "its process died while it was being executed"
RUNS = ("run_1", "run_2")
Specs: TypeAlias = Sequence[tuple[str, bool]]
SPECS = st.lists(st.tuples(st.sampled_from(sorted(PEOPLE)), st.booleans()), min_size=1, max_size=3)
"""The approver of each approval, and whether its tool is idempotent."""
MOSTLY = st.sampled_from([True, True, True, False])
# One rule with weighted steps: with a rule for each, Hypothesis rarely gets from a proposal to an execution.
STEPS = (
    *["approve"] * 4,
    *["begin"] * 4,
    *["complete", "fail", "take_over", "wait"] * 2,
    *["happened", "again"],
    *["deny", "expire", "renew", "withdraw", "propose", "wait_for_days"],
)


@dataclass
class Model:
    """The expected state of one approval."""

    id: str
    run_id: str
    round: int
    approver: str
    idempotent: bool
    expires_at: datetime
    state: State = "pending"
    until: datetime | None = None
    result: object = None
    effects: int = 0
    """How many times its execution was begun."""
    settled_unexecuted: int = 0
    """How many times a person said that it did not happen."""

    def move(self, move: Transition) -> bool:
        """Makes the move if the table allows it in this state, and returns whether it does."""
        before, after = TRANSITIONS[move]
        if self.state not in before:
            return False
        self.state = after
        return True


class Approvals(RuleBasedStateMachine):
    """Rounds of approvals in two runs that are decided, executed and interrupted, with the expected results."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._database = Database.open("handrail.db", Path(self._folder.name))
        self._clock = VirtualClock()
        self._rounds = count(1)
        self._models: list[Model] = []
        self._resumed: set[str] = set()

    def teardown(self) -> None:
        self._database.close()
        self._folder.cleanup()

    @initialize(specs=SPECS)
    def propose_first(self, specs: Specs) -> None:
        self._propose(RUNS[0], specs)

    @rule(step=st.sampled_from(STEPS), number=st.integers(0, 9), suited=MOSTLY, right=MOSTLY, specs=SPECS)
    def step(self, step: str, number: int, suited: bool, right: bool, specs: Specs) -> None:
        """One step for one approval; with `suited`, for one in a suitable state if there is any."""
        now = self._clock.now()
        match step:
            case "approve" | "deny":
                self._decide(self._pick(number, suited, "pending"), step, right, now)
            case "begin":
                self._begin(self._pick(number, suited, "approved", "executing"), right, now)
            case "complete" | "fail":
                self._end(self._pick(number, suited, "executing"), step, [None, number, {"paid": right}][number % 3])
            case "happened" | "again":
                self._settle_uncertain(self._pick(number, suited, *UNCERTAIN), step == "happened", right, now)
            case "renew":
                self._renew(self._pick(number, suited, "executing"), now + 2 * EXECUTION_LEASE)
            case "expire":
                self._expire(self._pick(number, suited, "pending"), now)
            case "take_over":
                self._take_over(RUNS[number % 2], now)
            case "withdraw":
                self._withdraw(RUNS[1])
            case "propose":
                self._propose(RUNS[number % 2], specs)
            case "wait":
                self._clock.advance(EXECUTION_LEASE.total_seconds() / 2)
            case _:
                self._clock.advance(DECISION_PERIOD.total_seconds())

    def _propose(self, run_id: str, specs: Specs) -> None:
        now, round_, known = self._clock.now(), next(self._rounds), len(self._models)
        models = [
            Model(f"apr_{number:03}", run_id, round_, approver, idempotent, now + DECISION_PERIOD)
            for number, (approver, idempotent) in enumerate(specs, known)
        ]
        self._models += models
        self._write(propose([_proposed(model, now) for model in models]))

    def _decide(self, model: Model, move: Literal["approve", "deny"], allowed: bool, now: datetime) -> None:
        person = PEOPLE[model.approver] if allowed else "eve"
        decision: Literal["approved", "denied"] = "approved" if move == "approve" else "denied"
        decided = self._result_or_error(decide(model.id, decision, person, ROLES, None, now))
        if not allowed:
            assert decided is NotPermitted
        elif now >= model.expires_at or not model.move(move):
            assert decided is AlreadyDecided
        else:
            assert isinstance(decided, Approval)
            assert (decided.state, decided.decided_by, decided.decided_at) == (decision, person, now)
            self._settle(model)

    def _expire(self, model: Model, now: datetime) -> None:
        due = now >= model.expires_at and model.move("expire")
        if due:
            self._settle(model)
        assert self._write(expire(model.id, now)) is due

    def _begin(self, model: Model, right: bool, now: datetime) -> None:
        expected = self._begun(model, now) if right else self._begun_differently(model, now)
        assert self._result_or_error(begin(model.id, DIGEST if right else "another", now)) == expected
        model.effects += expected == Execute()

    def _end(self, model: Model, move: Literal["complete", "fail"], result: object) -> None:
        result = result if move == "complete" else f"no {result}"
        ended = model.move(move)
        if ended:
            model.result = result
        op = complete(model.id, result) if move == "complete" else fail(model.id, str(result))
        assert self._write(op) is ended

    def _settle_uncertain(self, model: Model, happened: bool, allowed: bool, now: datetime) -> None:
        person = PEOPLE[model.approver] if allowed else "eve"
        settled = self._result_or_error(settle_uncertain(model.id, happened, person, ROLES, None, now))
        if not allowed:
            assert settled is NotPermitted
        elif not model.move("confirm" if happened else "retry"):
            assert settled is AlreadyDecided
        else:
            assert isinstance(settled, Approval)
            assert (settled.state, settled.settled_by, settled.settled_at) == (model.state, person, now)
            model.until, model.result = None, None
            model.settled_unexecuted += not happened
            if all(other.round != model.round for other in self._in(*UNCERTAIN)):
                self._resumed.add(f"resume:{model.run_id}:{model.round}:{model.id}:{model.effects}")

    def _renew(self, model: Model, until: datetime) -> None:
        executing = model.state == "executing"
        if executing:
            model.until = until
        assert self._write(renew_execution(model.id, until)) is executing

    def _take_over(self, run_id: str, now: datetime) -> None:
        of_run = [model for model in self._models if model.run_id == run_id]
        for model in of_run:
            if model.state == "executing":
                model.move("return" if model.idempotent else "lose_track")
                model.until = now
        recovered = self._write(recover(run_id, now))
        assert isinstance(recovered, list)
        assert [(entry.approval_id, entry.state) for entry in recovered] == [
            (model.id, model.state) for model in of_run
        ]

    def _withdraw(self, run_id: str) -> None:
        of_run = [model for model in self._models if model.run_id == run_id]
        assert self._write(withdraw(run_id)) == sum(model.move("withdraw") for model in of_run)

    def _begun(self, model: Model, now: datetime) -> BeginResult | type[StillExecuting]:
        """The expected result or error of `begin`; also updates the model."""
        if model.state == "executing":
            assert model.until is not None
            if now < model.until:
                return StillExecuting
            model.move("begin_again" if model.idempotent else "lose_track")
            model.until = now + EXECUTION_LEASE
            return Execute() if model.idempotent else UnknownEffect(GONE)
        if model.state == "approved":
            model.move("begin")
            model.until = now + EXECUTION_LEASE
            return Execute()
        return self._ended(model)

    def _begun_differently(self, model: Model, now: datetime) -> BeginResult | type[StillExecuting]:
        """The same for a call with other arguments."""
        if model.state == "executing":
            assert model.until is not None
            if now < model.until:
                return StillExecuting
            model.move("lose_track")
            return UnknownEffect(GONE)
        if model.state == "approved" and model.until is not None:
            model.move("lose_track")
            return UnknownEffect(f"{GONE}, and the call has changed since")
        return CallDiffers() if model.state in ("approved", "withdrawn") else self._ended(model)

    def _ended(self, model: Model) -> BeginResult:
        match model.state:
            case "executed":
                return AlreadyExecuted(model.result, is_known=model.until is not None)
            case "unknown_after_crash":
                return UnknownEffect(GONE)
            case "failed":
                return UnknownEffect(f"it failed: {model.result}")
            case other:
                return NotApproved(other)

    def _write(self, op: Operation[Any]) -> object:
        [result] = self._database.write_now(op)
        return result

    def _result_or_error(self, op: Operation[Any]) -> object:
        """The result of an operation, or the type of the error that it raises."""
        try:
            return self._write(op)
        except HandrailError as error:
            return type(error)

    def _pick(self, number: int, suited: bool, *states: State) -> Model:
        candidates = (suited and self._in(*states)) or self._models
        return candidates[number % len(candidates)]

    def _settle(self, decided: Model) -> None:
        """After a decision or an expiry: if it was the last of its round, the run is to be resumed."""
        if all(model.round != decided.round for model in self._in("pending")):
            self._resumed.add(f"resume:{decided.run_id}:{decided.round}")

    def _in(self, *states: State) -> list[Model]:
        return [model for model in self._models if model.state in states]

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        stored = {entry.approval_id: entry for entry in self._database.read_now(_both_runs)}
        assert {id_: (entry.state, entry.result) for id_, entry in stored.items()} == {
            model.id: (model.state, model.result) for model in self._models
        }
        for model in self._models:
            if model.effects:
                assert stored[model.id].decided_by == PEOPLE[model.approver]

    @invariant()
    def only_an_idempotent_action_may_be_repeated(self) -> None:
        assert all(model.effects <= 1 + model.settled_unexecuted for model in self._models if not model.idempotent)

    @invariant()
    def every_decided_round_resumes_its_run_once(self) -> None:
        keys = Counter(self._database.read_now(lambda conn: conn.execute(select(jobs.c.key)).scalars().all()))
        assert keys == Counter([*self._resumed, *(f"expire:{model.id}" for model in self._models)])


def _both_runs(conn: Connection) -> list[Approval]:
    return [stored for run_id in RUNS for stored in load_approvals(run_id, NOW)(conn)]


def _proposed(model: Model, now: datetime) -> Approval:
    return approval(
        model.id,
        run_id=model.run_id,
        round=model.round,
        approver=model.approver,
        idempotent=model.idempotent,
        proposed_at=now,
        expires_at=model.expires_at,
    )


TestApprovals = Approvals.TestCase
TestApprovals.settings = settings(max_examples=40, stateful_step_count=40)
