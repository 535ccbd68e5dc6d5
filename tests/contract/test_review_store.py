"""What the store of approvals and verdicts promises, whatever the engine."""

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
    EXECUTING,
    EXPIRES,
    AlreadyExecuted,
    Approval,
    Execute,
    NotApproved,
    Unknown,
    digest,
)
from handrail.review.approvals.store import (
    approvals_of,
    begin,
    complete,
    decide,
    expire,
    fail,
    list_approvals,
    load_approval,
    propose,
    recover,
    renew_executing,
    withdraw,
)
from handrail.review.feedback import Verdict, give_verdict, list_verdicts, used_in_case, verdicts_of
from tests.review.samples import ARGUMENTS, DIGEST, NOW, ROLES, approval

LATE = NOW + EXPIRES
MINUTE = timedelta(minutes=1)


def approve(approval_id: str = "apr_1", person: str = "ann") -> Any:
    return decide(approval_id, "approved", person, ROLES, None, NOW + MINUTE)


async def _load(database: Database, approval_id: str = "apr_1") -> Approval:
    return await database.read(lambda conn: load_approval(conn, approval_id))


async def _ids(database: Database, **which: Any) -> list[str]:
    asked = {"state": None, "tenant": None, "limit": 10, "before": None, **which}
    return [each.approval_id for each in await database.read(lambda conn: list_approvals(conn, **asked))]


def _resumes(conn: Connection) -> Sequence[str]:
    return conn.execute(select(jobs.c.key).where(jobs.c.kind == "resume_run").order_by(jobs.c.key)).scalars().all()


async def test_an_approval_comes_back_as_it_was_proposed(database: Database) -> None:
    """Every field comes back, arguments included whatever their text, by id, by the id's beginning and by run."""
    odd = {"nul": "a\x00b", "half": "\ud83d", "ключ": [None, True, 1.5, {"b": 1, "a": 2}], "large": 2**70}
    proposed = approval(arguments=odd, digest=digest("refund", odd), idempotent=True, approver="requester", round=3)
    await database.write(propose([proposed, approval("apr_2", run_id="run_2")]))
    assert await _load(database) == proposed
    assert await database.read(lambda conn: approvals_of(conn, "run_1")) == [proposed]
    with pytest.raises(NotFound, match=r"several .* begin with 'apr_'; `handrail approvals list`"):
        await _load(database, "apr_")
    with pytest.raises(NotFound, match=r"no approval .* 'apr_3'; `handrail approvals list`"):
        await _load(database, "apr_3")


async def test_a_tenant_sees_its_own_approvals(database: Database) -> None:
    """With a tenant, another's approval is not found and not listed."""
    await database.write(propose([approval(), approval("apr_2", tenant="other")]))
    with pytest.raises(NotFound):
        await database.read(lambda conn: load_approval(conn, "apr_2", "acme"))
    assert (await database.read(lambda conn: load_approval(conn, "apr", "other"))).approval_id == "apr_2"
    assert await _ids(database, tenant="acme") == ["apr_1"]
    assert await _ids(database, hidden=["acme"]) == ["apr_2"]


async def test_the_approval_that_waits_longest_comes_first(database: Database) -> None:
    """Lists go by the time of the proposal, then by id, in pages, and can be had for one state."""
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


async def test_a_proposal_brings_the_job_that_ends_it(database: Database) -> None:
    """For each approval a job is due when it expires, written with it or not at all."""
    await database.write(propose([approval()]))
    [early] = await database.write(claim(["expire_approval"], "w", LATE - MINUTE, MINUTE))
    [job] = await database.write(claim(["expire_approval"], "w", LATE, MINUTE))
    assert early is None
    assert isinstance(job, Job)
    assert (job.key, job.payload) == ("expire:apr_1", {"approval_id": "apr_1"})


async def test_a_decision_is_kept_with_who_when_and_why(database: Database) -> None:
    """A decision gives the approval as decided, and so it is stored; a note may hold what no text column takes."""
    await database.write(propose([approval()]))
    [decided] = await database.write(decide("apr_1", "denied", "bob", ROLES, "no\x00\ud83d", NOW + MINUTE))
    note = "no\\x00\\ud83d"
    assert decided == replace(approval(), state="denied", decided_by="bob", decided_at=NOW + MINUTE, note=note)
    assert await _load(database) == decided


async def test_only_who_may_decide_decides(database: Database) -> None:
    """A person without the role is told who may, and nothing changes; neither does it for an id that is none."""
    await database.write(propose([approval()]))
    with pytest.raises(NotPermitted, match=r"eve may not decide it; only who has the role lead .* ann, bob"):
        await database.write(approve(person="eve"))
    with pytest.raises(NotFound, match="no approval apr_2"):
        await database.write(approve("apr_2"))
    assert await _load(database) == approval()
    assert await database.read(_resumes) == []


async def test_a_decision_stands(database: Database) -> None:
    """Who decides second is told by whom, when and how it was decided, and who withdraws or lets expire changes
    nothing."""
    await database.write(propose([approval()]))
    [decided] = await database.write(approve())
    with pytest.raises(AlreadyDecided, match=r"approved by ann at 2026-01-01T00:01:00"):
        await database.write(decide("apr_1", "denied", "bob", ROLES, None, NOW + MINUTE))
    assert await database.write(expire("apr_1", LATE), withdraw("run_1")) == [False, 0]
    assert await _load(database) == decided


async def test_after_its_time_nobody_decides(database: Database) -> None:
    """From its expiry on a decision is refused; the row expires by the job, not before its time, and once."""
    await database.write(propose([approval()]))
    with pytest.raises(AlreadyDecided, match=r"open until 2026-01-04T00:00:00.00:00, and expired then"):
        await database.write(decide("apr_1", "approved", "ann", ROLES, None, LATE))
    assert await database.write(expire("apr_1", LATE - MINUTE), expire("apr_1", LATE)) == [False, True]
    assert await database.write(expire("apr_1", LATE)) == [False]
    assert (await _load(database)).state == "expired"
    assert await database.write(begin("apr_1", DIGEST, LATE)) == [NotApproved("expired")]


async def test_the_last_decision_of_a_round_resumes_the_run(database: Database) -> None:
    """Denied, expired and approved all count; the job is due at once, and other rounds and runs do not matter."""
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


async def test_two_last_decisions_at_once_resume_the_run(database: Database) -> None:
    """Where two people decide the two approvals of a round in transactions that overlap, the run is resumed."""
    await database.write(propose([approval("a"), approval("b")]))
    decided = threading.Event()

    def hold(conn: Connection) -> None:
        decided.set()
        if conn.dialect.name == "sqlite":
            return
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        # Bounded, so that without a lock this ends, and the second decision has missed the first.
        for _ in range(200):
            if conn.execute(waiting).scalar_one():
                return
            conn.execute(text("SELECT pg_sleep(0.005)"))

    first = asyncio.ensure_future(database.write(approve("a"), hold))
    await asyncio.to_thread(decided.wait)
    await asyncio.gather(first, database.write(approve("b", "bob")))
    assert await database.read(_resumes) == ["resume:run_1:1"]


async def test_of_many_who_decide_at_once_one_does(database: Database) -> None:
    """Ten people who decide the same approval at the same moment: one does, the others are told."""
    await database.write(propose([approval()]))
    verdicts = [decide("apr_1", "approved" if n % 2 else "denied", "ann", ROLES, str(n), NOW) for n in range(10)]
    results = await asyncio.gather(*(database.write(each) for each in verdicts), return_exceptions=True)
    won = [result[0] for result in results if not isinstance(result, BaseException)]
    assert won == [await _load(database)]
    assert all(isinstance(result, AlreadyDecided) for result in results if isinstance(result, BaseException))


async def test_of_many_who_begin_at_once_one_executes(database: Database) -> None:
    """Ten who begin an approved action at the same moment: one may execute it, the others have to come later."""
    await database.write(propose([approval(idempotent=True)]), approve())
    begins = (database.write(begin("apr_1", DIGEST, NOW)) for _ in range(10))
    results = await asyncio.gather(*begins, return_exceptions=True)
    assert [result for result in results if not isinstance(result, StillExecuting)] == [[Execute()]]


async def test_an_executed_action_gives_its_result_ever_after(database: Database) -> None:
    """Whoever begins again gets what the tool returned then; a second ending changes nothing."""
    await database.write(propose([approval(), approval("apr_2")]), approve(), approve("apr_2"))
    for id_, result in (("apr_1", {"paid": [1, None]}), ("apr_2", None)):
        assert await database.write(begin(id_, DIGEST, NOW), complete(id_, result)) == [Execute(), True]
        assert await database.write(complete(id_, "again"), fail(id_, "late")) == [False, False]
        assert await database.write(begin(id_, DIGEST, LATE)) == [AlreadyExecuted(result)]
    assert (await _load(database)).result == {"paid": [1, None]}


async def test_a_failed_action_is_not_tried_again(database: Database) -> None:
    """What the tool raised is kept, and nobody executes the action again, since it may have happened."""
    await database.write(propose([approval(idempotent=True)]), approve())
    assert await database.write(begin("apr_1", DIGEST, NOW), fail("apr_1", "timed out")) == [Execute(), True]
    assert await database.write(begin("apr_1", DIGEST, LATE)) == [NotApproved("failed")]
    assert (await _load(database)).result == "timed out"


async def test_a_changed_call_is_not_the_approved_one(database: Database) -> None:
    """A call with other arguments is not executed, and the approved one still may be."""
    await database.write(propose([approval()]), approve())
    changed = digest("refund", {**ARGUMENTS, "order": 1043})
    assert await database.write(begin("apr_1", changed, NOW)) == [NotApproved("approved")]
    assert await database.write(begin("apr_1", DIGEST, NOW)) == [Execute()]
    with pytest.raises(NotFound, match="no approval apr_2"):
        await database.write(begin("apr_2", DIGEST, NOW))


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_execution_nobody_renews_is_over(database: Database, idempotent: bool) -> None:
    """Renewed, an execution is another's; once its time is over it may begin again, or, where the tool is not
    idempotent, never again."""
    await database.write(propose([approval(idempotent=idempotent)]), approve(), begin("apr_1", DIGEST, NOW))
    until = NOW + EXECUTING + MINUTE
    assert await database.write(renew_executing("apr_1", until)) == [True]
    with pytest.raises(StillExecuting):
        await database.write(begin("apr_1", DIGEST, until - MINUTE))
    expected = Execute() if idempotent else Unknown()
    assert await database.write(begin("apr_1", DIGEST, until)) == [expected]
    if idempotent:
        with pytest.raises(StillExecuting):
            await database.write(begin("apr_1", DIGEST, until))
    else:
        assert await database.write(begin("apr_1", DIGEST, until), renew_executing("apr_1", LATE)) == [Unknown(), False]
        assert (await _load(database)).state == "unknown_after_crash"


async def test_a_run_taken_over_has_nothing_executing(database: Database) -> None:
    """What was executing is approved again where the tool is idempotent and unknown elsewhere; other states and other
    runs stay, and the run's approvals are given as they stand."""
    ids = ["again", "done", "lost", "open"]
    await database.write(propose([*(approval(id_, idempotent=id_ == "again") for id_ in ids)]))
    await database.write(propose([approval("other", run_id="run_2")]))
    for id_ in ("again", "done", "lost", "other"):
        await database.write(approve(id_), begin(id_, DIGEST, NOW))
    await database.write(complete("done", 1))
    [found] = await database.write(recover("run_1", NOW + MINUTE))
    assert {each.approval_id: each.state for each in found} == {
        "again": "approved",
        "done": "executed",
        "lost": "unknown_after_crash",
        "open": "pending",
    }
    assert found == await database.read(lambda conn: approvals_of(conn, "run_1"))
    assert (await _load(database, "other")).state == "executing"
    assert await database.write(begin("again", DIGEST, NOW), begin("lost", DIGEST, NOW)) == [Execute(), Unknown()]


async def test_a_withdrawn_approval_asks_nobody(database: Database) -> None:
    """What a run's people need not decide any more is closed, without resuming the run; what is decided stays."""
    await database.write(propose([approval("a"), approval("b"), approval("c", run_id="run_2")]), approve("a"))
    assert await database.write(withdraw("run_1")) == [1]
    with pytest.raises(AlreadyDecided, match="withdrawn"):
        await database.write(approve("b"))
    assert await database.write(expire("b", LATE)) == [False]
    assert await _ids(database, state="pending") == ["c"]
    assert await _ids(database, state="withdrawn") == ["b"]
    assert await database.read(_resumes) == []


def verdict(verdict_id: str = "v1", **changed: Any) -> Verdict:
    fields: dict[str, Any] = {
        "run_id": "run_1",
        "tenant": "acme",
        "right": False,
        "should": {"category": "delivery", "order": None},
        "note": "wrong \x00 team",
        "by": "ann",
        "at": NOW,
        "case_id": None,
    }
    return Verdict(verdict_id=verdict_id, **{**fields, **changed})


async def test_a_persons_newest_verdict_comes_first(database: Database) -> None:
    """Verdicts are appended and come back newest first, with all they said."""
    second = verdict("v0", right=True, should=None, note=None, at=NOW + MINUTE)
    await database.write(give_verdict(verdict()), give_verdict(second), give_verdict(verdict("v2", run_id="run_2")))
    first = replace(verdict(), note="wrong \\x00 team")
    assert await database.read(lambda conn: verdicts_of(conn, "run_1")) == [second, first]
    assert await database.read(lambda conn: verdicts_of(conn, "run_3")) == []


async def test_verdicts_are_listed_in_pages(database: Database) -> None:
    """The newest verdicts come first, page by page, of one tenant or of all."""
    await database.write(
        give_verdict(verdict("a")), give_verdict(verdict("b")), give_verdict(verdict("c", tenant="other"))
    )

    async def ids(**asked: Any) -> list[str]:
        which = {"tenant": None, "limit": 2, "before": None, **asked}
        return [each.verdict_id for each in await database.read(lambda conn: list_verdicts(conn, **which))]

    assert (await ids(), await ids(before="b"), await ids(tenant="acme")) == (["c", "b"], ["a"], ["b", "a"])
    with pytest.raises(NotFound, match="no verdict x"):
        await ids(before="x")


async def test_a_verdict_notes_the_case_it_became(database: Database) -> None:
    """The case that a verdict went into is kept with it; a verdict that is not there gives NotFound."""
    await database.write(give_verdict(verdict(note=None)))
    await database.write(used_in_case("v1", "case-7"))
    assert await database.read(lambda conn: verdicts_of(conn, "run_1")) == [verdict(note=None, case_id="case-7")]
    with pytest.raises(NotFound, match="no verdict v2"):
        await database.write(used_in_case("v2", "case-7"))
