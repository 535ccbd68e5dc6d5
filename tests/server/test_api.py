"""The API over HTTP, on a real socket."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from handrail import Runtime
from handrail.access.store import revoke_key
from handrail.ceilings.ledger_queries import audit
from handrail.runs.store.runs import list_runs
from handrail.server.auth import RATES
from handrail.server.idempotency import KEPT, LEASE, asked, begin
from handrail.testing import VirtualClock
from handrail.worker import run_due
from tests.server.conftest import make_key
from tests.server.serving import Served
from tests.server.shop import Shop

RUNS = "/v1/agents/shop/runs"
ASKED = {"input": "hello", "user": "u-1"}


def runs_of(runtime: Runtime) -> int:
    now = runtime.clock.now()
    found = runtime.database.read_now(lambda c: list_runs(c, now, tenant=None, agent=None, limit=100, before=None))
    return len(found)


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer has to be."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"], body["request_id"]) == (code, status, answer.headers["x-request-id"])
    return body


def test_a_run_is_answered(public: Served, runtime: Runtime) -> None:
    """A run's answer says how it ended, and the run can be read afterwards, with what was asked."""
    key = make_key(runtime, "acme", "run", "read")
    with public.client(key) as client:
        answer = client.post(RUNS, json=ASKED)
        assert answer.status_code == 200, answer.text
        run = answer.json()
        assert (run["type"], run["path"], run["output"], run["cost"]) == (
            "answered",
            "happy",
            "You said: hello",
            "$0.02",
        )
        story = client.get(f"/v1/runs/{run['run_id']}").json()
    assert (story["tenant"], story["user"], story["input"], story["status"]) == ("acme", "u-1", "hello", "answered")
    assert [each["type"] for each in story["outcomes"]] == ["answered"]


def test_a_run_that_fails_is_an_answer(public: Served, runtime: Runtime) -> None:
    """An agent whose provider is down answers 200 with the outcome `failed`: that is how the run ended."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        run = client.post(RUNS, json={**ASKED, "input": "down"}).json()
    assert (run["type"], run["path"], run["output"]) == ("failed", "failed", None)
    assert run["fault"]["code"]


def test_a_bug_says_only_where_to_look(public: Served, runtime: Runtime) -> None:
    """A programming error in an agent is a 500 that names the request and nothing of the error."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        answer = client.post(RUNS, json={**ASKED, "input": "bug"})
    body = problem(answer, 500, "bug")
    assert "TypeError" not in answer.text
    assert body["request_id"] in body["detail"]


def test_approvals(public: Served, runtime: Runtime, shop: Shop) -> None:
    """A run that waits is a 202; once one who may decide approves, the worker carries it on, and a second is a 409."""
    key = make_key(runtime, "acme", "run", "read", "decide")
    with public.client(key) as client:
        answer = client.post(RUNS, json={**ASKED, "input": "refund me"})
        assert answer.status_code == 202
        [waiting] = answer.json()["approvals"]
        assert (waiting["tool"], waiting["arguments"]["order"], shop.paid) == ("refund", 1042, [])
        assert client.get("/v1/approvals").json()["approvals"] == [waiting]
        address = f"/v1/approvals/{waiting['approval_id']}"
        problem(client.post(f"{address}/approve", json={"by": "eve"}), 403, "not_permitted")
        decided = client.post(f"{address}/approve", json={"by": "mia", "note": "checked"}).json()
        assert (decided["state"], decided["decided_by"], decided["note"]) == ("approved", "mia", "checked")
        problem(client.post(f"{address}/deny", json={"by": "mia"}), 409, "already_decided")
        assert asyncio.run(run_due(runtime, shop.find)) == 1
        assert shop.paid == [1042]
        assert client.get(f"/v1/runs/{waiting['run_id']}").json()["status"] == "answered"
        assert client.get("/v1/approvals").json() == {"approvals": [], "next": None}
        assert len(client.get("/v1/approvals", params={"state": "executed"}).json()["approvals"]) == 1


def test_a_refusal_is_not_retried(public: Served, runtime: Runtime, clock: VirtualClock) -> None:
    """A ceiling's no is a 429 with the arithmetic, until when, and the header that keeps clients from repeating it."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        while (answer := client.post(RUNS, json=ASKED)).status_code == 200:
            pass
        body = problem(answer, 429, "refused")
        assert (body["scope"], body["unit"], body["resets_at"]) == ("user", "usd", "2026-01-02T00:00:00+00:00")
        assert body["limit"] >= body["spent"] + body["held"] > body["limit"] - body["asked"]
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["retry-after"] == str(24 * 3_600)
        clock.advance(24 * 3_600)
        assert client.post(RUNS, json=ASKED).status_code == 200
    assert runtime.database.read_now(audit) == []


def test_feedback(public: Served, runtime: Runtime) -> None:
    """A verdict is kept with its run; one on a run that is not there is a 404."""
    with public.client(make_key(runtime, "acme", "run", "read")) as client:
        run_id = client.post(RUNS, json=ASKED).json()["run_id"]
        given = {"right": False, "by": "ann", "should": {"refund": True}, "note": "no"}
        assert client.post(f"/v1/runs/{run_id}/feedback", json=given).status_code == 201
        [verdict] = client.get(f"/v1/runs/{run_id}").json()["verdicts"]
        assert (verdict["right"], verdict["by"], verdict["should"]) == (False, "ann", {"refund": True})
        problem(client.post("/v1/runs/run_0/feedback", json=given), 404, "not_found")


def test_the_same_key_and_request_get_the_same_answer(public: Served, runtime: Runtime) -> None:
    """A repeated request runs nothing; another request with its key is a 409; another owner's key is another key."""
    ours, theirs = make_key(runtime, "acme", "run"), make_key(runtime, "globex", "run")
    again = {"idempotency-key": "a1"}
    with public.client(ours) as client, public.client(theirs) as other:
        first = client.post(RUNS, json=ASKED, headers=again)
        second = client.post(RUNS, json=ASKED, headers=again)
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
        changed = client.post(RUNS, json={**ASKED, "input": "other"}, headers=again)
        problem(changed, 409, "idempotency_key_reused")
        assert other.post(RUNS, json={**ASKED, "input": "theirs"}, headers=again).json()["output"] == "You said: theirs"
    assert runs_of(runtime) == 2


def test_answers_are_kept_for_a_day(public: Served, runtime: Runtime, clock: VirtualClock) -> None:
    """After a day the same key means a new run."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        headers = {"idempotency-key": "a1"}
        first = client.post(RUNS, json=ASKED, headers=headers).json()
        clock.advance(KEPT.total_seconds() + 1)
        assert client.post(RUNS, json=ASKED, headers=headers).json()["run_id"] != first["run_id"]


def test_a_run_that_broke_gives_its_key_back(public: Served, runtime: Runtime) -> None:
    """After a 500 the same key may be tried again at once."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        for _ in range(2):
            problem(client.post(RUNS, json={**ASKED, "input": "bug"}, headers={"idempotency-key": "b"}), 500, "bug")
    assert runs_of(runtime) == 2


def test_requests_that_come_together_run_once(public: Served, runtime: Runtime, shop: Shop) -> None:
    """While the first request with a key is under way the others are told to come back; then they get its answer."""
    entered, go = threading.Event(), threading.Event()

    def wait(number: int) -> str:
        entered.set()
        go.wait(20)
        return f"order {number}"

    shop.find("shop").agent._function_toolset.tools["find_order"].function_schema.function = wait
    headers = {"idempotency-key": "c"}
    body = {**ASKED, "input": "order"}
    with public.client(make_key(runtime, "acme", "run")) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, RUNS, json=body, headers=headers)
        assert entered.wait(20)
        early = client.post(RUNS, json=body, headers=headers)
        problem(early, 409, "still_running")
        assert early.headers["retry-after"] == "2"
        go.set()
        assert first.result().json() == client.post(RUNS, json=body, headers=headers).json()
    assert runs_of(runtime) == 1


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", RUNS, "run"),
        ("POST", "/v1/runs/run_0/feedback", "run"),
        ("GET", "/v1/runs/run_0", "read"),
        ("GET", "/v1/approvals", "read"),
        ("POST", "/v1/approvals/apr_0/approve", "decide"),
        ("POST", "/v1/approvals/apr_0/deny", "decide"),
        ("POST", "/v1/traces", "ingest"),
    ],
)
def test_a_key_does_what_its_scopes_name(public: Served, runtime: Runtime, method: str, path: str, scope: str) -> None:
    """Without a key, with a wrong one, with a revoked one and with one of other scopes, nothing is done."""
    others = make_key(runtime, "acme", *({"run", "read", "decide", "ingest"} - {scope}))  # type: ignore[arg-type]
    revoked = make_key(runtime, "acme", scope)  # type: ignore[arg-type]
    runtime.database.write_now(revoke_key(revoked.split("_")[1], runtime.clock.now()))
    body = {"input": "x", "user": "u", "right": True, "by": "ann"}
    for key, status, code in (
        (None, 401, "wrong_credentials"),
        (revoked, 401, "wrong_credentials"),
        (revoked[:-1] + "x", 401, "wrong_credentials"),
        (others, 403, "not_allowed"),
    ):
        with public.client(key) as client:
            answer = client.request(method, path, json=body if method == "POST" else None)
            problem(answer, status, code)
    assert runs_of(runtime) == 0


def test_a_key_slows_down_alone(public: Served, runtime: Runtime, clock: VirtualClock) -> None:
    """A key that asks too fast is told how long to wait, another key is not, and in time it is served again."""
    busy, other = make_key(runtime, "acme", "decide"), make_key(runtime, "acme", "decide")
    deny: dict[str, Any] = {"url": "/v1/approvals/appr_0/deny", "json": {"by": "mia"}}
    with public.client(busy) as client, public.client(other) as quiet:
        answers = [client.post(**deny) for _ in range(RATES["decide"].burst + 2)]
        assert [each.status_code for each in answers] == [404] * RATES["decide"].burst + [429] * 2
        problem(answers[-1], 429, "rate_limited")
        assert answers[-1].headers["retry-after"] == "1"
        assert quiet.post(**deny).status_code == 404
        clock.advance(1)
        assert client.post(**deny).status_code == 404


def test_the_lease_of_a_dead_request_runs_out(runtime: Runtime, clock: VirtualClock, public: Served) -> None:
    """Where the process that had a key is gone, the same request begins anew once its lease is over."""
    key = make_key(runtime, "acme", "run")
    body = {"agent": "shop", **ASKED, "tenant": None, "conversation_id": None}
    runtime.database.write_now(begin(asked(key.split("_")[1], "d", body), clock.now()))
    with public.client(key) as client:
        problem(client.post(RUNS, json=ASKED, headers={"idempotency-key": "d"}), 409, "still_running")
        clock.advance(LEASE.total_seconds() + 1)
        assert client.post(RUNS, json=ASKED, headers={"idempotency-key": "d"}).status_code == 200


def test_the_operator_names_the_tenant(local: Served) -> None:
    """On 127.0.0.1 no key is needed, and a run is of the tenant that it names, else of `default`."""
    with local.client() as client:
        ids = [client.post(RUNS, json={**ASKED, **more}).json()["run_id"] for more in ({}, {"tenant": "globex"})]
        tenants = [client.get(f"/v1/runs/{run_id}").json()["tenant"] for run_id in ids]
    assert tenants == ["default", "globex"]


def test_odd_requests_are_told_what_is_wrong(local: Served) -> None:
    """What is not as the document says is a 422 that names the field and repeats nothing of what was sent."""
    with local.client() as client:
        answer = client.post(RUNS, json={"input": "x", "user": "u", "secret": "hunter2"})
        assert "body.secret" in problem(answer, 422, "invalid")["detail"]
        assert "hunter2" not in answer.text
        problem(
            client.post(
                RUNS, content=b'{"input": "\\ud800", "user": "u"}', headers={"content-type": "application/json"}
            ),
            422,
            "invalid",
        )
        problem(client.post(RUNS, json={"input": "x", "user": "\n"}), 400, "bad_input")
        problem(client.post("/v1/agents/nobody/runs", json=ASKED), 404, "not_found")
        problem(client.get("/v1/nothing"), 404, "not_found")
        problem(client.delete(RUNS), 405, "method_not_allowed")
