"""The stores of approvals and feedback, on every engine."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import Job, claim, jobs
from handrail.kernel.errors import NotFound
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted, StillExecuting
from handrail.review.approvals.model import (
    DECISION_PERIOD,
    EXECUTION_LEASE,
    AlreadyExecuted,
    Approval,
    CallDiffers,
    Execute,
    NotApproved,
    UnknownEffect,
    digest,
)
from handrail.review.approvals.queries import list_approvals, load_approval, load_approvals
from handrail.review.approvals.store import (
    begin,
    complete,
    decide,
    decline,
    expire,
    fail,
    propose,
    reconcile_uncertain,
    recover,
    renew_execution,
    settle_uncertain,
    withdraw,
    withdraw_unexecuted,
)
from handrail.review.feedback import Feedback, add_feedback, list_feedback, load_feedback, mark_used_in_case
from tests.review.samples import ARGUMENTS, DIGEST, NOW, ROLES, SCHEMA_HASH, approval

LATE = NOW + DECISION_PERIOD
GONE = "its process died while it was being executed"
MINUTE = timedelta(minutes=1)


def approve(approval_id: str = "apr_1", person: str = "ann") -> Any:
    return decide(approval_id, "approved", person, ROLES, None, NOW + MINUTE)


async def _load(database: Database, approval_id: str = "apr_1") -> Approval:
    return await database.read(load_approval(approval_id, NOW))


async def _ids(database: Database, **overrides: Any) -> list[str]:
    filters = {"now": NOW, "state": None, "tenant": None, "limit": 10, "before": None, **overrides}
    return [listed.approval_id for listed in await database.read(list_approvals(**filters))]


def _resumes(conn: Connection) -> Sequence[str]:
    return conn.execute(select(jobs.c.key).where(jobs.c.kind == "resume_run").order_by(jobs.c.key)).scalars().all()


async def test_an_approval_is_loaded_as_proposed(database: Database) -> None:
    """An approval is loaded as it was proposed, with any text in its arguments, by id or run; a prefix is unique."""
    odd = {"nul": "a\x00b", "half": "\ud83d", "ключ": [None, True, 1.5, {"b": 1, "a": 2}], "large": 2**70}
    proposed = approval(
        arguments=odd, digest=digest("refund", odd, SCHEMA_HASH), idempotent=True, approver="requester", round=3
    )
    await database.write(propose([proposed, approval("apr_2", run_id="run_2")]))
    assert await _load(database) == proposed
    assert await database.read(load_approvals("run_1", NOW)) == [proposed]
    with pytest.raises(NotFound, match=r"several .* begin with 'apr_'; `handrail approvals list`"):
        await _load(database, "apr_")
    with pytest.raises(NotFound, match=r"no approval .* 'apr_3'; `handrail approvals list`"):
        await _load(database, "apr_3")


async def test_a_tenant_gets_its_own_approvals(database: Database) -> None:
    """Another tenant's approval is neither found nor listed."""
    await database.write(propose([approval(), approval("apr_2", tenant="other")]))
    with pytest.raises(NotFound):
        await database.read(load_approval("apr_2", NOW, "acme"))
    assert (await database.read(load_approval("apr", NOW, "other"))).approval_id == "apr_2"
    assert await _ids(database, tenant="acme") == ["apr_1"]
    assert await _ids(database, hidden=["acme"]) == ["apr_2"]


async def test_the_longest_waiting_approval_comes_first(database: Database) -> None:
    """Lists are ordered by the time of the proposal and then by id, in pages, and can be limited to a state."""
    await database.write(
        propose([approval("c"), approval("b", proposed_at=NOW + MINUTE), approval("a", proposed_at=NOW + MINUTE)])
    )
    await database.write(approve("a"))
    assert await _ids(database) == ["c", "a", "b"]
    assert await _ids(database, limit=2, before="c") == ["a", "b"]
    assert await _ids(database, state="pending", limit=1) == ["c"]
    assert await _ids(database, state="pending", before="c") == ["b"]
    with pytest.raises(NotFound):
        await _ids(database, before="x")


async def test_a_proposal_enqueues_its_expiry(database: Database) -> None:
    """Each approval is stored together with a job that is due when it expires."""
    await database.write(propose([approval()]))
    [early] = await database.write(claim(["expire_approval"], "w", LATE - MINUTE, MINUTE))
    [job] = await database.write(claim(["expire_approval"], "w", LATE, MINUTE))
    assert early is None
    assert isinstance(job, Job)
    assert (job.key, job.payload) == ("expire:apr_1", {"approval_id": "apr_1"})


async def test_a_decision_is_stored(database: Database) -> None:
    """A decision returns the approval as stored; characters that cannot be stored are escaped in its note."""
    await database.write(propose([approval()]))
    [decided] = await database.write(decide("apr_1", "denied", "bob", ROLES, "no\x00\ud83d", NOW + MINUTE))
    note = "no\\x00\\ud83d"
    assert decided == replace(approval(), state="denied", decided_by="bob", decided_at=NOW + MINUTE, note=note)
    assert await _load(database) == decided


async def test_only_approvers_may_decide(database: Database) -> None:
    """A decision without the role or for an unknown id is refused, and nothing changes."""
    await database.write(propose([approval()]))
    with pytest.raises(NotPermitted, match=r"eve may not decide it; only members of the role lead .* ann, bob"):
        await database.write(approve(person="eve"))
    with pytest.raises(NotFound, match="no approval apr_2"):
        await database.write(approve("apr_2"))
    assert await _load(database) == approval()
    assert await database.read(_resumes) == []


async def test_a_decision_is_final(database: Database) -> None:
    """A second decision is refused with the first one, and expiring changes nothing."""
    await database.write(propose([approval()]))
    [decided] = await database.write(approve())
    with pytest.raises(AlreadyDecided, match=r"approved by ann at 2026-01-01T00:01:00"):
        await database.write(decide("apr_1", "denied", "bob", ROLES, None, NOW + MINUTE))
    assert await database.write(expire("apr_1", LATE)) == [False]
    assert await _load(database) == decided


async def test_an_expired_approval(database: Database) -> None:
    """From its expiry on a decision is refused; the approval expires once, and not before its time."""
    await database.write(propose([approval()]))
    with pytest.raises(AlreadyDecided, match=r"expired at 2026-01-04T00:00:00.00:00"):
        await database.write(decide("apr_1", "approved", "ann", ROLES, None, LATE))
    assert await database.write(expire("apr_1", LATE - MINUTE), expire("apr_1", LATE)) == [False, True]
    assert await database.write(expire("apr_1", LATE)) == [False]
    assert (await _load(database)).state == "expired"
    assert await database.write(begin("apr_1", DIGEST, LATE)) == [NotApproved("expired")]


async def test_the_last_decision_of_a_round_resumes_the_run(database: Database) -> None:
    """Once all approvals of a round are approved, denied or expired, a job resumes the run."""
    waiting = [approval("b", round=2), approval("c", run_id="run_2")]
    await database.write(propose([approval("a1"), approval("a2"), approval("a3", expires_at=NOW), *waiting]))
    await database.write(decide("a1", "denied", "ann", ROLES, None, NOW), expire("a3", NOW))
    assert await database.read(_resumes) == []
    await database.write(approve("a2"))
    assert await database.read(_resumes) == ["resume:run_1:1"]
    [job] = await database.write(claim(["resume_run"], "w", NOW + MINUTE, MINUTE))
    assert job.payload == {"run_id": "run_1"}
    await database.write(expire("b", LATE))
    assert await database.read(_resumes) == ["resume:run_1:1", "resume:run_1:2"]


async def test_concurrent_last_decisions_resume_the_run(database: Database) -> None:
    """If both approvals of a round are decided in overlapping transactions, the run is resumed."""
    await database.write(propose([approval("a"), approval("b")]))
    decided = threading.Event()

    def hold(conn: Connection) -> None:
        decided.set()
        if conn.dialect.name == "sqlite":
            return
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        # Bounded, so that the test ends and fails if there is no lock.
        for _ in range(200):
            if conn.execute(waiting).scalar_one():
                return
            conn.execute(text("SELECT pg_sleep(0.005)"))

    first = asyncio.ensure_future(database.write(approve("a"), hold))
    await asyncio.to_thread(decided.wait)
    await asyncio.gather(first, database.write(approve("b", "bob")))
    assert await database.read(_resumes) == ["resume:run_1:1"]


async def test_concurrent_decisions(database: Database) -> None:
    """Of ten concurrent decisions of one approval, one succeeds and the others are refused."""
    await database.write(propose([approval()]))
    decisions = [decide("apr_1", "approved" if n % 2 else "denied", "ann", ROLES, str(n), NOW) for n in range(10)]
    results = await asyncio.gather(*(database.write(decision) for decision in decisions), return_exceptions=True)
    succeeded = [result[0] for result in results if not isinstance(result, BaseException)]
    assert succeeded == [await _load(database)]
    assert all(isinstance(result, AlreadyDecided) for result in results if isinstance(result, BaseException))


async def test_concurrent_executions(database: Database) -> None:
    """Of ten concurrent attempts to begin an approved action, one may execute it."""
    await database.write(propose([approval(idempotent=True)]), approve())
    begins = (database.write(begin("apr_1", DIGEST, NOW)) for _ in range(10))
    results = await asyncio.gather(*begins, return_exceptions=True)
    assert [result for result in results if not isinstance(result, StillExecuting)] == [[Execute()]]


async def test_an_executed_action_keeps_its_result(database: Database) -> None:
    """Beginning an executed action again returns its result, and completing it again changes nothing."""
    await database.write(propose([approval(), approval("apr_2")]), approve(), approve("apr_2"))
    for id_, result in (("apr_1", {"paid": [1, None]}), ("apr_2", None)):
        assert await database.write(begin(id_, DIGEST, NOW), complete(id_, result)) == [Execute(), True]
        assert await database.write(complete(id_, "again"), fail(id_, "late")) == [False, False]
        assert await database.write(begin(id_, DIGEST, LATE)) == [AlreadyExecuted(result)]
    assert (await _load(database)).result == {"paid": [1, None]}


async def test_a_failed_action_is_not_executed_again(database: Database) -> None:
    """A failed action keeps its error and is not executed again, since it may have happened."""
    await database.write(propose([approval(idempotent=True)]), approve())
    assert await database.write(begin("apr_1", DIGEST, NOW), fail("apr_1", "timed out")) == [Execute(), True]
    assert await database.write(begin("apr_1", DIGEST, LATE)) == [UnknownEffect("it failed: timed out")]
    assert (await _load(database)).result == "timed out"


async def test_a_changed_call_is_not_the_approved_one(database: Database) -> None:
    """A call with other arguments is not executed, and the approved one still can be."""
    await database.write(propose([approval()]), approve())
    changed = digest("refund", {**ARGUMENTS, "order": 1043}, SCHEMA_HASH)
    assert await database.write(begin("apr_1", changed, NOW)) == [CallDiffers()]
    assert await database.write(begin("apr_1", DIGEST, NOW)) == [Execute()]
    with pytest.raises(NotFound, match="no approval apr_2"):
        await database.write(begin("apr_2", DIGEST, NOW))


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_execution_with_an_expired_lease(database: Database, idempotent: bool) -> None:
    """Once its lease has expired, an execution begins again if the tool is idempotent, and otherwise never."""
    await database.write(propose([approval(idempotent=idempotent)]), approve(), begin("apr_1", DIGEST, NOW))
    until = NOW + EXECUTION_LEASE + MINUTE
    assert await database.write(renew_execution("apr_1", until)) == [True]
    with pytest.raises(StillExecuting):
        await database.write(begin("apr_1", DIGEST, until - MINUTE))
    expected = Execute() if idempotent else UnknownEffect(GONE)
    assert await database.write(begin("apr_1", DIGEST, until)) == [expected]
    if idempotent:
        with pytest.raises(StillExecuting):
            await database.write(begin("apr_1", DIGEST, until))
    else:
        assert await database.write(begin("apr_1", DIGEST, until), renew_execution("apr_1", LATE)) == [
            UnknownEffect(GONE),
            False,
        ]
        assert (await _load(database)).state == "unknown_after_crash"


async def test_recovery_after_a_takeover(database: Database) -> None:
    """Executing actions of the run become approved if idempotent and otherwise unknown; all others are unchanged."""
    ids = ["again", "done", "lost", "open"]
    await database.write(propose([*(approval(id_, idempotent=id_ == "again") for id_ in ids)]))
    await database.write(propose([approval("other", run_id="run_2")]))
    for id_ in ("again", "done", "lost", "other"):
        await database.write(approve(id_), begin(id_, DIGEST, NOW))
    await database.write(complete("done", 1))
    [approvals] = await database.write(recover("run_1", NOW + MINUTE))
    assert {recovered.approval_id: recovered.state for recovered in approvals} == {
        "again": "approved",
        "done": "executed",
        "lost": "unknown_after_crash",
        "open": "pending",
    }
    assert approvals == await database.read(load_approvals("run_1", NOW))
    assert (await _load(database, "other")).state == "executing"
    assert await database.write(begin("again", DIGEST, NOW), begin("lost", DIGEST, NOW)) == [
        Execute(),
        UnknownEffect(GONE),
    ]


async def test_withdrawn_approvals(database: Database) -> None:
    """Withdrawing ends a run's approvals that were not begun, without resuming it; others are unchanged."""
    proposed = [*(approval(id_) for id_ in "abd"), approval("c", run_id="run_2")]
    await database.write(propose(proposed), approve("a"), approve("d"), begin("d", DIGEST, NOW))
    assert await database.write(withdraw("run_1")) == [2]
    with pytest.raises(AlreadyDecided, match="withdrawn"):
        await database.write(approve("b"))
    assert await database.write(expire("b", LATE), begin("a", DIGEST, NOW)) == [False, NotApproved("withdrawn")]
    assert await _ids(database, state="pending") == ["c"]
    assert await _ids(database, state="withdrawn") == ["a", "b"]
    assert await _ids(database, state="executing") == ["d"]
    assert await database.read(_resumes) == []


async def test_an_action_that_is_not_executed_keeps_the_reason(database: Database) -> None:
    """An approved action may be withdrawn before it is begun, or declined by its tool after that, with a reason."""
    await database.write(propose([approval("a"), approval("b")]), approve("a"), approve("b"))
    assert await database.write(decline("b", "no"), withdraw_unexecuted("a", "paid already\x00")) == [False, True]
    assert await database.write(begin("b", DIGEST, NOW), decline("b", "order not found")) == [Execute(), True]
    assert await database.write(withdraw_unexecuted("a", "again"), decline("b", "again")) == [False, False]
    begun = await database.write(begin("a", DIGEST, NOW), begin("b", DIGEST, NOW))
    assert begun == [NotApproved("withdrawn", "paid already\\x00"), NotApproved("withdrawn", "order not found")]


async def _uncertain(database: Database, *ids: str) -> None:
    """Leaves the actions uncertain: the first failed, the process that executed the others is gone."""
    first = ids[0]
    await database.write(propose([approval(id_) for id_ in ids]))
    await database.write(*map(approve, ids), *(begin(id_, DIGEST, NOW) for id_ in ids), fail(first, "timed out"))
    await database.write(recover("run_1", NOW))


@pytest.mark.parametrize("happened", [True, False])
async def test_an_uncertain_action_is_settled(database: Database, happened: bool) -> None:
    """A settled action is executed without a result, or may be executed once more; the last one resumes the run."""
    await _uncertain(database, "a", "b")
    before = await database.read(_resumes)
    [first] = await database.write(settle_uncertain("a", happened, "bob", ROLES, "asked\x00", LATE))
    assert first == await _load(database, "a")
    assert (first.state, first.attempts, first.result) == ("executed" if happened else "approved", 1, None)
    assert (first.settled_by, first.settled_at, first.reason) == ("bob", LATE, "asked\\x00")
    assert (first.decided_by, first.note) == ("ann", None)
    assert await database.read(_resumes) == before
    await database.write(settle_uncertain("b", True, "ann", ROLES, None, LATE))
    assert await database.read(_resumes) == [*before, "resume:run_1:1:b:1"]
    expected = AlreadyExecuted(None, is_known=False) if happened else Execute()
    assert await database.write(begin("a", DIGEST, LATE)) == [expected]


async def test_each_settlement_resumes_the_run(database: Database) -> None:
    """An action that fails again after it was settled can be settled again, which resumes the run again."""
    await _uncertain(database, "a")
    await database.write(settle_uncertain("a", False, "ann", ROLES, None, NOW))
    await database.write(begin("a", DIGEST, NOW), fail("a", "timed out again"))
    [settled] = await database.write(settle_uncertain("a", False, "ann", ROLES, None, NOW))
    assert (settled.attempts, settled.state) == (2, "approved")
    assert await database.read(_resumes) == ["resume:run_1:1", "resume:run_1:1:a:1", "resume:run_1:1:a:2"]


async def test_only_uncertain_actions_are_settled(database: Database) -> None:
    """Settling needs the right to decide, and an action that is uncertain; all else changes nothing."""
    await _uncertain(database, "a")
    uncertain = await _load(database, "a")
    with pytest.raises(NotPermitted, match=r"eve may not settle it; only members of the role lead .* ann, bob"):
        await database.write(settle_uncertain("a", True, "eve", ROLES, None, NOW))
    with pytest.raises(NotFound, match="no approval b"):
        await database.write(settle_uncertain("b", True, "ann", ROLES, None, NOW))
    assert await _load(database, "a") == uncertain
    await database.write(settle_uncertain("a", True, "ann", ROLES, None, NOW))
    with pytest.raises(AlreadyDecided, match="approval a is executed"):
        await database.write(settle_uncertain("a", False, "bob", ROLES, None, NOW))
    await database.write(propose([approval("c")]))
    with pytest.raises(AlreadyDecided, match="approval c is pending"):
        await database.write(settle_uncertain("c", False, "bob", ROLES, None, NOW))


async def test_a_tool_settles_its_uncertain_action(database: Database) -> None:
    """What a tool's reconcile says is stored as its finding; it changes nothing of an action that is not uncertain."""
    await _uncertain(database, "a", "b")
    before = await database.read(_resumes)
    await database.write(reconcile_uncertain("a", True, LATE), reconcile_uncertain("b", False, LATE))
    settled, again = await _load(database, "a"), await _load(database, "b")
    assert (settled.state, settled.settled_by, settled.settled_at) == ("executed", None, LATE)
    assert (again.state, again.reason) == ("approved", "reconcile: it did not happen")
    await database.write(reconcile_uncertain("a", False, LATE))
    assert await _load(database, "a") == settled
    assert await database.read(_resumes) == before


async def test_overdue_approvals_are_listed_as_expired(database: Database) -> None:
    """From its expiry on, a pending approval is read as expired, before any job has changed it."""
    await database.write(propose([approval("a"), approval("b", expires_at=LATE + MINUTE), approval("c")]), approve("c"))
    assert await _ids(database, state="pending", now=LATE - MINUTE) == ["a", "b"]
    assert await _ids(database, state="expired", now=LATE - MINUTE) == []
    assert await _ids(database, state="pending", now=LATE) == ["b"]
    assert await _ids(database, state="expired", now=LATE) == ["a"]
    assert (await database.read(load_approval("a", LATE))).state == "expired"
    assert [read.state for read in await database.read(load_approvals("run_1", LATE))] == [
        "expired",
        "pending",
        "approved",
    ]
    await database.write(expire("a", LATE))
    assert await _ids(database, state="expired", now=LATE) == ["a"]


def feedback(feedback_id: str = "v1", **overrides: Any) -> Feedback:
    fields: dict[str, Any] = {
        "run_id": "run_1",
        "tenant": "acme",
        "right": False,
        "expected": {"category": "delivery", "order": None},
        "note": "wrong \x00 team",
        "by": "ann",
        "at": NOW,
        "case_id": None,
    }
    return Feedback(feedback_id=feedback_id, **{**fields, **overrides})


async def test_the_newest_feedback_comes_first(database: Database) -> None:
    """Feedback is appended and loaded completely, newest first."""
    second = feedback("v0", right=True, expected=None, note=None, at=NOW + MINUTE)
    await database.write(add_feedback(feedback()), add_feedback(second), add_feedback(feedback("v2", run_id="run_2")))
    first = replace(feedback(), note="wrong \\x00 team")
    assert await database.read(load_feedback("run_1")) == [second, first]
    assert await database.read(load_feedback("run_3")) == []


async def test_feedback_is_listed_in_pages(database: Database) -> None:
    """The newest feedback comes first, page by page, of one tenant or of all."""
    await database.write(
        add_feedback(feedback("a")), add_feedback(feedback("b")), add_feedback(feedback("c", tenant="other"))
    )

    async def ids(**overrides: Any) -> list[str]:
        filters = {"tenant": None, "limit": 2, "before": None, **overrides}
        return [listed.feedback_id for listed in await database.read(list_feedback(**filters))]

    assert (await ids(), await ids(before="b"), await ids(tenant="acme")) == (["c", "b"], ["a"], ["b", "a"])
    with pytest.raises(NotFound, match="no feedback x"):
        await ids(before="x")


async def test_feedback_records_the_case_it_became(database: Database) -> None:
    """Feedback records the case it became; unknown feedback raises NotFound."""
    await database.write(add_feedback(feedback(note=None)))
    await database.write(mark_used_in_case("v1", "case-7"))
    assert await database.read(load_feedback("run_1")) == [feedback(note=None, case_id="case-7")]
    with pytest.raises(NotFound, match="no feedback v2"):
        await database.write(mark_used_in_case("v2", "case-7"))
