"""The inbox's pages and the API of approvals: what needs a person, and what is done about it."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from handrail import Runtime
from handrail.access.login import new_user
from handrail.kernel.db.jobs import JobState, claim, give_up, list_jobs
from handrail.review.approvals.model import DECISION_PERIOD, Approval
from handrail.review.approvals.queries import load_approval
from handrail.review.approvals.store import begin, decide, fail
from handrail.runs.unresumable import escalate_unresumable
from handrail.testing import VirtualClock
from handrail.worker import run_due_jobs
from tests.server.conftest import make_key
from tests.server.live_server import LiveServer
from tests.server.page_reader import logged_in, send, text_of, token_in
from tests.server.shop import Shop
from tests.server.test_api import assert_problem

PASSWORD = "correct horse battery staple"
RUNS = "/v1/agents/shop/runs"
NOT_CONFIRMED = "If the action did happen, it will happen twice."


@pytest.fixture
def client(local: LiveServer) -> Iterator[httpx2.Client]:
    """The operator's browser, on 127.0.0.1."""
    with local.client() as browser:
        yield browser


def propose_refund(client: httpx2.Client, tenant: str = "acme") -> str:
    """Starts a run that waits for an approval; returns the approval's id."""
    run = client.post(RUNS, json={"input": "refund me", "user": "u-1", "tenant": tenant}).json()
    return str(run["approvals"][0]["approval_id"])


def load(runtime: Runtime, approval_id: str) -> Approval:
    return runtime.database.read_now(load_approval(approval_id, runtime.clock.now()))


def lose_track(runtime: Runtime, shop: Shop, approval_id: str) -> None:
    """Approves an action whose tool then raises, so that it may have happened, and lets its run be escalated."""
    now = runtime.clock.now()
    runtime.database.write_now(decide(approval_id, "approved", "mia", runtime.settings.roles, "paid twice", now))
    runtime.database.write_now(begin(approval_id, load(runtime, approval_id).digest, now))
    runtime.database.write_now(fail(approval_id, "TimeoutError: no answer from <bank>"))
    asyncio.run(run_due_jobs(runtime, shop.find))


def states_of_jobs(runtime: Runtime) -> dict[str, JobState]:
    listed = runtime.database.read_now(list_jobs(runtime.clock.now(), state=None, limit=100, before=None))
    return {job.key: job.state for job in listed if job.kind == "resume_run"}


def listed(client: httpx2.Client, **query: str) -> list[str]:
    """The ids that the API lists."""
    return [approval["approval_id"] for approval in client.get("/v1/approvals", params=query).json()["approvals"]]


def test_an_overdue_approval_is_expired_everywhere(
    client: httpx2.Client, runtime: Runtime, clock: VirtualClock
) -> None:
    """From the moment its time is over, before any worker looks at it, an approval is expired wherever it is shown."""
    approval_id = propose_refund(client)
    run_id = load(runtime, approval_id).run_id
    clock.advance(DECISION_PERIOD.total_seconds() - 1)
    assert listed(client) == listed(client, state="pending") == [approval_id]
    assert "1 approval needs a person" in client.get("/").text
    clock.advance(1)
    assert listed(client) == listed(client, state="pending") == []
    assert listed(client, state="expired") == [approval_id]
    [approval] = client.get(f"/v1/runs/{run_id}").json()["approvals"]
    assert approval["state"] == "expired"
    assert "Nothing needs a person" in client.get("/inbox").text
    for path in ("/inbox?state=expired", "/inbox?state=all", f"/inbox/{approval_id}", f"/runs/{run_id}"):
        assert 'state-expired">expired<' in client.get(path).text, path
    assert "needs a person" not in client.get("/").text
    assert "Approve</button>" not in client.get(f"/inbox/{approval_id}").text
    late = client.post(f"/v1/approvals/{approval_id}/approve", json={"by": "mia"})
    assert "expired" in assert_problem(late, 409, "already_decided")["detail"]


def test_uncertain_actions_come_first(client: httpx2.Client, runtime: Runtime, shop: Shop, clock: VirtualClock) -> None:
    """What needs a person is listed by default: uncertain actions first, however new, then those that are pending."""
    pending = propose_refund(client)
    clock.advance(60)
    decided = propose_refund(client)
    uncertain = propose_refund(client)
    lose_track(runtime, shop, uncertain)
    runtime.database.write_now(decide(decided, "denied", "mia", runtime.settings.roles, None, runtime.clock.now()))
    assert listed(client) == [uncertain, pending]
    assert listed(client, state="uncertain") == listed(client, state="failed") == [uncertain]
    assert listed(client, state="pending") == [pending]
    following = client.get("/v1/approvals", params={"limit": 1}).json()["next"]
    assert listed(client, limit="1", before=following) == [pending]
    page = client.get("/inbox").text
    assert page.index(uncertain) < page.index(pending)
    assert "needs a person</span>" in page
    assert "1 may have happened" in text_of(client.get("/"))


@pytest.mark.parametrize(("answer", "state", "paid"), [("happened", "executed", []), ("again", "executed", [1042])])
def test_settled_on_the_page(
    client: httpx2.Client, runtime: Runtime, shop: Shop, answer: str, state: str, paid: list[int]
) -> None:
    """A person looks, answers, confirms, and is named; the run goes on, and the action is executed if they say so."""
    approval_id = propose_refund(client)
    lose_track(runtime, shop, approval_id)
    page = client.get(f"/inbox/{approval_id}")
    assert "no answer from <bank>" in text_of(page)
    assert "<bank>" not in page.text
    confirmation = client.get(f"/inbox/{approval_id}/settlement", params={"answer": answer})
    assert (NOT_CONFIRMED in confirmation.text) == (answer == "again")
    assert load(runtime, approval_id).state == "failed"
    fields = {"form_token": token_in(confirmation), "answer": answer, "by": "ann", "note": "asked the bank"}
    settled = client.post(f"/inbox/{approval_id}/settlement", data=fields)
    assert settled.status_code == 303
    asyncio.run(run_due_jobs(runtime, shop.find))
    approval = load(runtime, approval_id)
    assert (approval.state, approval.settled_by, approval.reason) == (state, "ann", "asked the bank")
    assert shop.paid == paid
    shown = " ".join(text_of(client.get(settled.headers["location"])).split())
    for text in ("Approved by mia", "paid twice", "Settled by ann", "it happened" if not paid else "run it again"):
        assert text in shown, text
    run = client.get(f"/v1/runs/{approval.run_id}").json()
    assert run["status"] == "answered"
    assert "Settled" in text_of(client.get(f"/runs/{approval.run_id}"))


def test_settlements_that_are_refused(client: httpx2.Client, runtime: Runtime, shop: Shop) -> None:
    """Without the role, without an answer, or if nothing is uncertain, nothing changes and the page says why."""
    approval_id = propose_refund(client)
    address, page = f"/inbox/{approval_id}/settlement", f"/inbox/{approval_id}"
    early = client.get(address, params={"answer": "again"})
    assert (early.status_code, "not in doubt" in early.text) == (409, True)
    lose_track(runtime, shop, approval_id)
    before = load(runtime, approval_id)
    assert client.get(address).status_code == 422
    assert client.get(address, params={"answer": "perhaps"}).status_code == 422
    confirm = f"{address}?answer=again"
    eve = send(client, confirm, address, answer="again", by="eve")
    assert (eve.status_code, "only members of the role lead" in eve.text) == (403, True)
    assert send(client, confirm, address, answer="perhaps", by="mia").status_code == 400
    assert send(client, confirm, address, by="mia").status_code == 400
    assert client.post(address, data={"answer": "happened", "by": "mia"}).status_code == 403
    assert load(runtime, approval_id) == before
    token = token_in(client.get(confirm))
    assert send(client, confirm, address, answer="happened", by="mia").status_code == 303
    again = client.post(address, data={"form_token": token, "answer": "again", "by": "mia"})
    assert (again.status_code, 'role="alert"' in again.text) == (409, True)
    assert "It happened</button>" not in client.get(page).text


def test_settled_by_a_dashboard_user(public: LiveServer, runtime: Runtime, shop: Shop) -> None:
    """A logged-in user settles in their own name, whatever the form says, and only if they have the role."""
    with public.client(make_key(runtime, "acme", "run")) as program:
        run = program.post(RUNS, json={"input": "refund me", "user": "u-1"}).json()
    approval_id = run["approvals"][0]["approval_id"]
    lose_track(runtime, shop, approval_id)
    for name in ("ann", "eve"):
        runtime.database.write_now(new_user(name, PASSWORD, "acme", runtime.clock.now()))
    address = f"/inbox/{approval_id}/settlement"
    with logged_in(public, "eve", PASSWORD) as client:
        page = client.get(f"/inbox/{approval_id}")
        assert ("You cannot settle this" in page.text, "It happened</button>" in page.text) == (True, False)
        assert client.get(address, params={"answer": "again"}).status_code == 403
        assert send(client, "/runs/" + run["run_id"], address, answer="again", by="ann").status_code == 403
    with logged_in(public, "ann", PASSWORD) as client:
        assert send(client, f"{address}?answer=happened", address, answer="happened", by="mia").status_code == 303
    assert load(runtime, approval_id).settled_by == "ann"


def test_settled_by_the_api(public: LiveServer, runtime: Runtime, shop: Shop) -> None:
    """A settlement has the rules of a decision: stable codes, a person with the role, and the key's tenant only."""
    with public.client(make_key(runtime, "acme", "run", "read", "decide")) as client:
        run = client.post(RUNS, json={"input": "refund me", "user": "u-1"}).json()
        approval_id = run["approvals"][0]["approval_id"]
        address = f"/v1/approvals/{approval_id}/settlement"
        body: dict[str, Any] = {"happened": False, "by": "mia", "note": "no such payment"}
        assert_problem(client.post(address, json=body), 409, "already_decided")
        lose_track(runtime, shop, approval_id)
        assert_problem(client.post(address, json={**body, "by": "eve"}), 403, "not_permitted")
        assert_problem(client.post("/v1/approvals/apr_0/settlement", json=body), 404, "not_found")
        for invalid in ({"by": "mia"}, {**body, "happened": "no"}, {**body, "happened": 0}, {"happened": True}):
            assert_problem(client.post(address, json=invalid), 422, "invalid")
        with public.client(make_key(runtime, "globex", "decide")) as other:
            assert_problem(other.post(address, json=body), 404, "not_found")
        with public.client(make_key(runtime, "acme", "run", "read", "ingest")) as reader:
            assert_problem(reader.post(address, json=body), 403, "not_allowed")
        settled = client.post(address, json=body).json()
        assert (settled["state"], settled["happened"], settled["settled_by"], settled["reason"]) == (
            "approved",
            False,
            "mia",
            "no such payment",
        )
        assert (settled["decided_by"], settled["note"]) == ("mia", "paid twice")
        assert settled["settled_at"]
        assert_problem(client.post(address, json=body), 409, "already_decided")
        asyncio.run(run_due_jobs(runtime, shop.find))
        assert shop.paid == [1042]
        assert client.get(f"/v1/runs/{run['run_id']}").json()["status"] == "answered"


def test_jobs_of_a_run_that_cannot_be_resumed(client: httpx2.Client, runtime: Runtime, shop: Shop) -> None:
    """A job that fails is shown with its error while it waits, and once it is dead the page requeues it."""
    approval_id = propose_refund(client)
    agent = shop.agents.pop("shop")
    runtime.database.write_now(
        decide(approval_id, "approved", "mia", runtime.settings.roles, None, runtime.clock.now())
    )
    key = f"resume:{load(runtime, approval_id).run_id}:1"
    assert states_of_jobs(runtime) == {key: "waiting"}
    asyncio.run(run_due_jobs(runtime, shop.find))
    waiting = text_of(client.get("/jobs?state=waiting"))
    assert key in waiting
    assert "there is no agent" in waiting
    assert "Requeue" not in waiting
    kill_job(runtime, key)
    page = client.get("/jobs")
    assert f'aria-label="Requeue {key}"' in page.text
    requeued = client.post("/jobs/requeue", data={"form_token": token_in(page), "key": key})
    assert requeued.status_code == 303
    assert f"Requeued {key}" in " ".join(text_of(client.get(requeued.headers["location"])).split())
    assert states_of_jobs(runtime) == {key: "waiting"}
    assert client.post("/jobs/requeue", data={"form_token": token_in(page), "key": key}).status_code == 400
    assert client.post("/jobs/requeue", data={"form_token": token_in(page), "key": "x"}).status_code == 404
    assert client.post("/jobs/requeue", data={"key": key}).status_code == 403
    shop.agents["shop"] = agent
    asyncio.run(run_due_jobs(runtime, shop.find))
    assert shop.paid == [1042]
    assert states_of_jobs(runtime) == {key: "done"}
    assert client.get("/jobs?state=dead&before=nothing").status_code == 404


def kill_job(runtime: Runtime, key: str) -> None:
    """Lets a job die of its next attempt."""
    runtime.clock.advance(timedelta(days=1).total_seconds())  # type: ignore[attr-defined]
    [job] = runtime.database.write_now(claim(["resume_run"], "w", runtime.clock.now(), timedelta(minutes=1)))
    assert job is not None
    assert job.key == key
    runtime.database.write_now(give_up(job, "NotFound: there is no agent 'shop'"))


def test_a_run_that_cannot_be_resumed(client: httpx2.Client, runtime: Runtime, shop: Shop) -> None:
    """Once the attempts to resume a run are used up, the run and its approval say why nothing was executed."""
    approval_id = propose_refund(client)
    runtime.database.write_now(
        decide(approval_id, "approved", "mia", runtime.settings.roles, None, runtime.clock.now())
    )
    run_id = load(runtime, approval_id).run_id
    asyncio.run(escalate_unresumable(runtime, run_id, "NotFound: there is no agent <shop>"))
    run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["outcomes"][-1]["body"]["reason"]) == ("escalated", "resume_failed")
    page = client.get(f"/runs/{run_id}")
    for text in ("could not go on", "resume_failed", "NotFound: there is no agent <shop>", "withdrawn"):
        assert text in text_of(page), text
    assert "<shop>" not in page.text
    assert "Withdrawn" in client.get(f"/inbox/{approval_id}").text
    assert (load(runtime, approval_id).state, shop.paid) == ("withdrawn", [])
