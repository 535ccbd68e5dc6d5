"""Background jobs, on every engine."""

import asyncio
from datetime import timedelta

import pytest

from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import (
    JobState,
    claim,
    enqueue,
    finish,
    give_back,
    give_up,
    list_jobs,
    renew_job,
    requeue,
    retry_later,
)
from handrail.kernel.errors import BadInput, NotFound
from handrail.testing import VirtualClock

NOW = VirtualClock().now()
LEASE = timedelta(seconds=30)


async def test_a_key_is_unique(database: Database) -> None:
    """Enqueuing a key again, also after the job is done, adds nothing."""
    first = await database.write(enqueue("mail", "k", {"n": 1}, NOW))
    second = await database.write(enqueue("mail", "k", {"n": 2}, NOW))
    assert (first, second) == ([True], [False])
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert job.payload == {"n": 1}
    assert await database.write(finish(job)) == [True]
    assert await database.write(enqueue("mail", "k", {}, NOW)) == [False]
    assert await database.write(claim(["mail"], "w", NOW, LEASE)) == [None]


async def test_a_job_is_not_claimed_before_it_is_due(database: Database) -> None:
    """A job waits for its time, and for a worker of its kind."""
    await database.write(enqueue("mail", "k", {}, NOW + LEASE))
    assert await database.write(claim(["mail"], "w", NOW, LEASE)) == [None]
    assert await database.write(claim(["other"], "w", NOW + LEASE, LEASE)) == [None]
    [job] = await database.write(claim(["mail"], "w", NOW + LEASE, LEASE))
    assert job.key == "k"


async def test_the_longest_due_job_comes_first(database: Database) -> None:
    """Jobs are claimed in the order of their due times, then of their keys."""
    for key, minutes in (("b", 2), ("a", 2), ("c", 1)):
        await database.write(enqueue("mail", key, {}, NOW + timedelta(minutes=minutes)))
    late = NOW + timedelta(hours=1)
    order = [(await database.write(claim(["mail"], "w", late, LEASE)))[0].key for _ in range(3)]
    assert order == ["c", "a", "b"]


async def test_concurrent_claims(database: Database) -> None:
    """Of ten jobs, twenty concurrent claims get each exactly once."""
    await database.write(*(enqueue("mail", f"{n:02}", {}, NOW) for n in range(10)))
    claims = [database.write(claim(["mail"], f"w{n}", NOW, LEASE)) for n in range(20)]
    jobs = [job for [job] in await asyncio.gather(*claims) if job is not None]
    # On Postgres a claim may skip a job that another transaction is holding, and return none.
    while (job := (await database.write(claim(["mail"], "late", NOW, LEASE)))[0]) is not None:
        jobs.append(job)
    assert sorted(job.key for job in jobs) == [f"{n:02}" for n in range(10)]


async def test_a_job_with_an_expired_lease(database: Database) -> None:
    """Once its lease has expired a job can be claimed again, and the first worker can no longer finish it."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [lost] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert await database.write(claim(["mail"], "w", NOW + LEASE / 2, LEASE)) == [None]
    [held] = await database.write(claim(["mail"], "w", NOW + LEASE, LEASE))
    assert (held.key, held.attempts, held.lost_worker) == ("k", 2, "w")
    assert await database.write(finish(lost)) == [False]
    assert await database.write(finish(held)) == [True]


async def test_a_retried_job_is_due_later(database: Database) -> None:
    """A job that is retried keeps its count of attempts and waits for its new time."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert await database.write(retry_later(job, NOW + LEASE, "no answer")) == [True]
    assert await database.write(claim(["mail"], "w", NOW, LEASE)) == [None]
    [again] = await database.write(claim(["mail"], "w", NOW + LEASE, LEASE))
    assert (again.attempts, again.lost_worker) == (2, None)


async def test_a_dead_job_is_never_claimed_again(database: Database) -> None:
    """A job that was given up is never claimed again."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    await database.write(give_up(job, "no such address"))
    assert await database.write(claim(["mail"], "w", NOW + 10 * LEASE, LEASE)) == [None]


async def test_a_renewed_lease(database: Database) -> None:
    """A worker that renews its lease keeps the job; one that has lost the job renews nothing."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert await database.write(renew_job(job, NOW + 2 * LEASE)) == [True]
    assert await database.write(claim(["mail"], "v", NOW + LEASE, LEASE)) == [None]
    [other] = await database.write(claim(["mail"], "v", NOW + 2 * LEASE, LEASE))
    assert await database.write(renew_job(job, NOW + 9 * LEASE)) == [False]
    assert await database.write(finish(other)) == [True]


async def test_a_job_that_is_given_back(database: Database) -> None:
    """A job that is given back can be claimed from then on, and its attempt does not count."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert await database.write(give_back(job, NOW, "stopped")) == [True]
    [again] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert (again.claims, again.attempts, again.lost_worker) == (2, 1, None)
    assert await database.write(finish(job)) == [False]


async def test_a_dead_job_is_requeued(database: Database) -> None:
    """A requeued job waits again with all its attempts, and a claim from before cannot end it."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    await database.write(give_up(job, "no such address"))
    later = NOW + 9 * LEASE
    [requeued] = await database.write(requeue("k", later))
    assert (requeued.state, requeued.attempts, requeued.due_at) == ("waiting", 0, later)
    assert (requeued.first_due_at, requeued.error) == (later, "no such address")
    [again] = await database.write(claim(["mail"], "w", later, LEASE))
    assert again.attempts == 1
    assert await database.write(finish(job)) == [False]
    assert await database.write(finish(again)) == [True]


async def test_only_a_dead_job_is_requeued(database: Database) -> None:
    """Requeuing a job that waits, or that does not exist, is an error and changes nothing."""
    await database.write(enqueue("mail", "k", {}, NOW))
    with pytest.raises(BadInput, match="job k is waiting"):
        await database.write(requeue("k", NOW + LEASE))
    with pytest.raises(NotFound, match="no job x"):
        await database.write(requeue("x", NOW))
    [job] = await database.read(list_jobs(NOW, state=None, limit=9, before=None))
    assert job.due_at == NOW


async def test_jobs_are_listed_by_state(database: Database) -> None:
    """A job is running while its lease lasts, and the list of each state has exactly the jobs in it."""
    for key in ("waits", "runs", "lost", "died", "ended"):
        await database.write(enqueue(key, key, {}, NOW))
    for key in ("runs", "lost", "died", "ended"):
        [job] = await database.write(claim([key], "w", NOW, LEASE / 2 if key == "lost" else LEASE))
        if key == "died":
            await database.write(give_up(job, "why"))
        if key == "ended":
            await database.write(finish(job))
    now = NOW + LEASE / 2
    listed = await database.read(list_jobs(now, state=None, limit=9, before=None))
    expected = {"waits": "waiting", "runs": "running", "lost": "waiting", "died": "dead", "ended": "done"}
    assert {job.key: job.state for job in listed} == expected
    states: tuple[JobState, ...] = ("waiting", "running", "done", "dead")
    for state in states:
        found = await database.read(list_jobs(now, state=state, limit=9, before=None))
        assert {job.key for job in found} == {key for key, its_state in expected.items() if its_state == state}
    assert [job.error for job in listed if job.state == "dead"] == ["why"]


async def test_pages_of_jobs(database: Database) -> None:
    """Pages contain each job once: of those that wait the next one comes first, of all jobs the last one."""
    for key, minutes in (("b", 2), ("a", 2), ("c", 1), ("d", 3)):
        await database.write(enqueue("mail", key, {}, NOW + timedelta(minutes=minutes)))
    orders: dict[JobState | None, list[str]] = {"waiting": ["c", "a", "b", "d"], None: ["d", "b", "a", "c"]}
    for state, order in orders.items():
        keys: list[str] = []
        for _ in range(4):
            before = keys[-1] if keys else None
            keys += [job.key for job in await database.read(list_jobs(NOW, state=state, limit=1, before=before))]
        assert keys == order
    with pytest.raises(NotFound):
        await database.read(list_jobs(NOW, state=None, limit=1, before="x"))
