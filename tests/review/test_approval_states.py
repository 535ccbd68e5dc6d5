"""Whatever people, clocks, processes and crashes do in whatever order, an action happens as often as it may."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Literal, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, select

from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import Op
from handrail.kernel.db.jobs import jobs
from handrail.kernel.errors import HandrailError
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted, StillExecuting
from handrail.review.approvals.model import (
    EXECUTING,
    EXPIRES,
    MOVES,
    AlreadyExecuted,
    Approval,
    Begun,
    Execute,
    Move,
    NotApproved,
    State,
    Unknown,
)
from handrail.review.approvals.store import (
    approvals_of,
    begin,
    complete,
    decide,
    expire,
    fail,
    propose,
    recover,
    renew_executing,
    withdraw,
)
from handrail.testing import VirtualClock
from tests.review.samples import DIGEST, ROLES, approval

PEOPLE = {"role:lead": "ann", "requester": "u-17"}
"""Each approver, and one who may decide for it."""
RUNS = ("run_1", "run_2")
Kinds: TypeAlias = Sequence[tuple[str, bool]]
KINDS = st.lists(st.tuples(st.sampled_from(sorted(PEOPLE)), st.booleans()), min_size=1, max_size=3)
"""Who approves, and whether the tool is idempotent."""
MOSTLY = st.sampled_from([True, True, True, False])
# Weighted, and drawn by one rule: Hypothesis's own choice of rules seldom led from a proposal to an execution.
STEPS = (
    *["approve"] * 4,
    *["begin"] * 4,
    *["complete", "fail", "take_over", "wait"] * 2,
    *["deny", "expire", "renew", "withdraw", "propose", "wait_for_days"],
)


@dataclass
class Model:
    """One approval as it should stand."""

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

    def move(self, move: Move) -> bool:
        """Makes the move where the table allows it from here, and says whether it does."""
        before, after = MOVES[move]
        if self.state != before:
            return False
        self.state = after
        return True


class Approvals(RuleBasedStateMachine):
    """Rounds of approvals in two runs, decided, executed, interrupted; the model says what each step must give."""

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

    @initialize(kinds=KINDS)
    def propose_first(self, kinds: Kinds) -> None:
        self._propose(RUNS[0], kinds)

    @rule(step=st.sampled_from(STEPS), number=st.integers(0, 9), suited=MOSTLY, right=MOSTLY, kinds=KINDS)
    def step(self, step: str, number: int, suited: bool, right: bool, kinds: Kinds) -> None:
        """One step about one approval: where `suited` says so, one that the step suits, if there are any."""
        now = self._clock.now()
        match step:
            case "approve" | "deny":
                self._decide(self._pick(number, suited, "pending"), step, right, now)
            case "begin":
                self._begin(self._pick(number, suited, "approved", "executing"), right, now)
            case "complete" | "fail":
                self._end(self._pick(number, suited, "executing"), step, [None, number, {"paid": right}][number % 3])
            case "renew":
                self._renew(self._pick(number, suited, "executing"), now + 2 * EXECUTING)
            case "expire":
                self._expire(self._pick(number, suited, "pending"), now)
            case "take_over":
                self._take_over(RUNS[number % 2], now)
            case "withdraw":
                self._withdraw(RUNS[1])
            case "propose":
                self._propose(RUNS[number % 2], kinds)
            case "wait":
                self._clock.advance(EXECUTING.total_seconds() / 2)
            case _:
                self._clock.advance(EXPIRES.total_seconds())

    def _propose(self, run_id: str, kinds: Kinds) -> None:
        now, round_, known = self._clock.now(), next(self._rounds), len(self._models)
        made = [
            Model(f"apr_{number:03}", run_id, round_, approver, idempotent, now + EXPIRES)
            for number, (approver, idempotent) in enumerate(kinds, known)
        ]
        self._models += made
        self._write(propose([_proposed(each, now) for each in made]))

    def _decide(self, model: Model, move: Literal["approve", "deny"], allowed: bool, now: datetime) -> None:
        person = PEOPLE[model.approver] if allowed else "eve"
        verdict: Literal["approved", "denied"] = "approved" if move == "approve" else "denied"
        decided = self._said(decide(model.id, verdict, person, ROLES, None, now))
        if not allowed:
            assert decided is NotPermitted
        elif now >= model.expires_at or not model.move(move):
            assert decided is AlreadyDecided
        else:
            assert isinstance(decided, Approval)
            assert (decided.state, decided.decided_by, decided.decided_at) == (verdict, person, now)
            self._settle(model)

    def _expire(self, model: Model, now: datetime) -> None:
        due = now >= model.expires_at and model.move("expire")
        if due:
            self._settle(model)
        assert self._write(expire(model.id, now)) is due

    def _begin(self, model: Model, right: bool, now: datetime) -> None:
        expected = self._begun(model, now) if right else NotApproved(model.state)
        assert self._said(begin(model.id, DIGEST if right else "another", now)) == expected
        model.effects += expected == Execute()

    def _end(self, model: Model, move: Literal["complete", "fail"], result: object) -> None:
        result = result if move == "complete" else f"no {result}"
        ended = model.move(move)
        if ended:
            model.result = result
        op = complete(model.id, result) if move == "complete" else fail(model.id, str(result))
        assert self._write(op) is ended

    def _renew(self, model: Model, until: datetime) -> None:
        under_way = model.state == "executing"
        if under_way:
            model.until = until
        assert self._write(renew_executing(model.id, until)) is under_way

    def _take_over(self, run_id: str, now: datetime) -> None:
        of_run = [each for each in self._models if each.run_id == run_id]
        for model in of_run:
            model.move("return" if model.idempotent else "lose_track")
        found = self._write(recover(run_id, now))
        assert isinstance(found, list)
        assert [(each.approval_id, each.state) for each in found] == [(each.id, each.state) for each in of_run]

    def _withdraw(self, run_id: str) -> None:
        asked = [each for each in self._models if each.run_id == run_id]
        assert self._write(withdraw(run_id)) == sum(each.move("withdraw") for each in asked)

    def _begun(self, model: Model, now: datetime) -> Begun | type[StillExecuting]:
        """What `begin` must say or raise; the model moves on."""
        if model.state == "executing":
            assert model.until is not None
            if now < model.until:
                return StillExecuting
            model.move("begin_again" if model.idempotent else "lose_track")
            model.until = now + EXECUTING
            return Execute() if model.idempotent else Unknown()
        if model.state == "executed":
            return AlreadyExecuted(model.result)
        if model.state == "unknown_after_crash":
            return Unknown()
        before = model.state
        if not model.move("begin"):
            return NotApproved(before)
        model.until = now + EXECUTING
        return Execute()

    def _write(self, op: Op) -> object:
        [result] = self._database.write_now(op)
        return result

    def _said(self, op: Op) -> object:
        """What an op gives, or the type of what it raises."""
        try:
            return self._write(op)
        except HandrailError as error:
            return type(error)

    def _pick(self, number: int, suited: bool, *states: State) -> Model:
        among = (suited and self._in(*states)) or self._models
        return among[number % len(among)]

    def _settle(self, decided: Model) -> None:
        """A decision or an expiry took place: where it was its round's last, the run is to be resumed."""
        if all(each.round != decided.round for each in self._in("pending")):
            self._resumed.add(f"resume:{decided.run_id}:{decided.round}")

    def _in(self, *states: State) -> list[Model]:
        return [each for each in self._models if each.state in states]

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        stored = {each.approval_id: each for each in self._database.read_now(_both_runs)}
        assert {id_: (each.state, each.result) for id_, each in stored.items()} == {
            each.id: (each.state, each.result) for each in self._models
        }
        for model in self._models:
            if model.effects:
                assert stored[model.id].decided_by == PEOPLE[model.approver]

    @invariant()
    def an_action_happens_once_unless_it_is_idempotent(self) -> None:
        assert all(model.effects <= 1 for model in self._models if not model.idempotent)

    @invariant()
    def every_decided_round_resumes_its_run_once(self) -> None:
        keys = Counter(self._database.read_now(lambda conn: conn.execute(select(jobs.c.key)).scalars().all()))
        assert keys == Counter([*self._resumed, *(f"expire:{each.id}" for each in self._models)])


def _both_runs(conn: Connection) -> list[Approval]:
    return [each for run_id in RUNS for each in approvals_of(conn, run_id)]


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
