"""The API over HTTP, on a real socket."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from handrail import Runtime
from handrail.access.store import revoke_key
from handrail.ceilings.ledger_queries import find_discrepancies
from handrail.runs.store.queries import list_runs
from handrail.server.auth import RATE_LIMITS
from handrail.server.idempotency import LEASE, RETENTION, claim_key, idempotent_request
from handrail.testing import VirtualClock
from handrail.worker import run_due_jobs
from tests.server.conftest import make_key
from tests.server.live_server import LiveServer
from tests.server.shop import Shop

RUNS = "/v1/agents/shop/runs"
REQUEST = {"input": "hello", "user": "u-1"}


def count_runs(runtime: Runtime) -> int:
    now = runtime.clock.now()
    return len(runtime.database.read_now(list_runs(now, tenant=None, agent=None, limit=100, before=None)))


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Asserts that a response is this problem; returns its body."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body: dict[str, Any] = response.json()
    assert (body["code"], body["status"], body["request_id"]) == (code, status, response.headers["x-request-id"])
    return body


def test_a_run_is_answered_and_stored(public: LiveServer, runtime: Runtime) -> None:
    """The response says how the run ended, and the run can be read afterwards, with its input."""
    key = make_key(runtime, "acme", "run", "read")
    with public.client(key) as client:
        response = client.post(RUNS, json=REQUEST)
        assert response.status_code == 200, response.text
        run = response.json()
        assert (run["type"], run["path"], run["output"], run["cost"]) == (
            "answered",
            "happy",
            "You said: hello",
            "$0.02",
        )
        stored = client.get(f"/v1/runs/{run['run_id']}").json()
    assert (stored["tenant"], stored["user"], stored["input"], stored["status"]) == ("acme", "u-1", "hello", "answered")
    assert [outcome["type"] for outcome in stored["outcomes"]] == ["answered"]


def test_a_failed_run_is_a_200(public: LiveServer, runtime: Runtime) -> None:
    """A run whose provider is down is a 200 with the outcome `failed`: the request itself succeeded."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        run = client.post(RUNS, json={**REQUEST, "input": "down"}).json()
    assert (run["type"], run["path"], run["output"]) == ("failed", "failed", None)
    assert run["fault"]["code"]


def test_a_bug_is_not_disclosed(public: LiveServer, runtime: Runtime) -> None:
    """A programming error in an agent is a 500 that has the request's id and nothing of the error."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        response = client.post(RUNS, json={**REQUEST, "input": "bug"})
    body = assert_problem(response, 500, "bug")
    assert "TypeError" not in response.text
    assert body["request_id"] in body["detail"]


def test_approvals(public: LiveServer, runtime: Runtime, shop: Shop) -> None:
    """A run that waits is a 202; after the approval the worker resumes it, and a second decision is a 409."""
    key = make_key(runtime, "acme", "run", "read", "decide")
    with public.client(key) as client:
        response = client.post(RUNS, json={**REQUEST, "input": "refund me"})
        assert response.status_code == 202
        [waiting] = response.json()["approvals"]
        assert (waiting["tool"], waiting["arguments"]["order"], shop.paid) == ("refund", 1042, [])
        assert client.get("/v1/approvals").json()["approvals"] == [waiting]
        address = f"/v1/approvals/{waiting['approval_id']}"
        assert_problem(client.post(f"{address}/approve", json={"by": "eve"}), 403, "not_permitted")
        decided = client.post(f"{address}/approve", json={"by": "mia", "note": "checked"}).json()
        assert (decided["state"], decided["decided_by"], decided["note"]) == ("approved", "mia", "checked")
        assert_problem(client.post(f"{address}/deny", json={"by": "mia"}), 409, "already_decided")
        assert asyncio.run(run_due_jobs(runtime, shop.find)) == 1
        assert shop.paid == [1042]
        assert client.get(f"/v1/runs/{waiting['run_id']}").json()["status"] == "answered"
        assert client.get("/v1/approvals").json() == {"approvals": [], "next": None}
        assert len(client.get("/v1/approvals", params={"state": "executed"}).json()["approvals"]) == 1


def test_a_refusal_is_not_retried(public: LiveServer, runtime: Runtime, clock: VirtualClock) -> None:
    """A refusal is a 429 with its arithmetic, its reset time, and a header that keeps clients from retrying."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        while (response := client.post(RUNS, json=REQUEST)).status_code == 200:
            pass
        body = assert_problem(response, 429, "refused")
        assert (body["scope"], body["unit"], body["resets_at"]) == ("user", "usd", "2026-01-02T00:00:00+00:00")
        assert body["limit"] >= body["spent"] + body["held"] > body["limit"] - body["requested"]
        assert response.headers["x-should-retry"] == "false"
        assert response.headers["retry-after"] == str(24 * 3_600)
        clock.advance(24 * 3_600)
        assert client.post(RUNS, json=REQUEST).status_code == 200
    assert runtime.database.read_now(find_discrepancies()) == []


def test_feedback(public: LiveServer, runtime: Runtime) -> None:
    """Feedback is stored with its run; for an unknown run it is a 404."""
    with public.client(make_key(runtime, "acme", "run", "read")) as client:
        run_id = client.post(RUNS, json=REQUEST).json()["run_id"]
        body = {"right": False, "by": "ann", "expected": {"refund": True}, "note": "no"}
        assert client.post(f"/v1/runs/{run_id}/feedback", json=body).status_code == 201
        [feedback] = client.get(f"/v1/runs/{run_id}").json()["feedback"]
        assert (feedback["right"], feedback["by"], feedback["expected"]) == (False, "ann", {"refund": True})
        assert_problem(client.post("/v1/runs/run_0/feedback", json=body), 404, "not_found")


def test_the_same_key_and_request_get_the_same_response(public: LiveServer, runtime: Runtime) -> None:
    """A repeated request runs nothing; another one with its key is a 409; idempotency keys belong to one API key."""
    ours, theirs = make_key(runtime, "acme", "run"), make_key(runtime, "globex", "run")
    headers = {"idempotency-key": "a1"}
    with public.client(ours) as client, public.client(theirs) as other:
        first = client.post(RUNS, json=REQUEST, headers=headers)
        second = client.post(RUNS, json=REQUEST, headers=headers)
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
        changed = client.post(RUNS, json={**REQUEST, "input": "other"}, headers=headers)
        assert_problem(changed, 409, "idempotency_key_reused")
        assert (
            other.post(RUNS, json={**REQUEST, "input": "theirs"}, headers=headers).json()["output"]
            == "You said: theirs"
        )
    assert count_runs(runtime) == 2


def test_idempotency_keys_expire_after_a_day(public: LiveServer, runtime: Runtime, clock: VirtualClock) -> None:
    """After a day the same key means a new run."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        headers = {"idempotency-key": "a1"}
        first = client.post(RUNS, json=REQUEST, headers=headers).json()
        clock.advance(RETENTION.total_seconds() + 1)
        assert client.post(RUNS, json=REQUEST, headers=headers).json()["run_id"] != first["run_id"]


def test_a_run_with_a_bug_releases_its_key(public: LiveServer, runtime: Runtime) -> None:
    """After a 500 the same key can be used again at once."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        for _ in range(2):
            assert_problem(
                client.post(RUNS, json={**REQUEST, "input": "bug"}, headers={"idempotency-key": "b"}), 500, "bug"
            )
    assert count_runs(runtime) == 2


def test_concurrent_requests_run_once(public: LiveServer, runtime: Runtime, shop: Shop) -> None:
    """While the first request with a key runs, the others get a 409; afterwards they get its response."""
    entered, go = threading.Event(), threading.Event()

    def wait(number: int) -> str:
        entered.set()
        go.wait(20)
        return f"order {number}"

    shop.find("shop").agent._function_toolset.tools["find_order"].function_schema.function = wait
    headers = {"idempotency-key": "c"}
    body = {**REQUEST, "input": "order"}
    with public.client(make_key(runtime, "acme", "run")) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, RUNS, json=body, headers=headers)
        assert entered.wait(20)
        early = client.post(RUNS, json=body, headers=headers)
        assert_problem(early, 409, "still_running")
        assert early.headers["retry-after"] == "2"
        go.set()
        assert first.result().json() == client.post(RUNS, json=body, headers=headers).json()
    assert count_runs(runtime) == 1


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", RUNS, "run"),
        ("POST", "/v1/runs/run_0/feedback", "run"),
        ("GET", "/v1/runs/run_0", "read"),
        ("GET", "/v1/approvals", "read"),
        ("POST", "/v1/approvals/apr_0/approve", "decide"),
        ("POST", "/v1/approvals/apr_0/deny", "decide"),
        ("POST", "/v1/approvals/apr_0/settlement", "decide"),
        ("POST", "/v1/traces", "ingest"),
    ],
)
def test_a_key_has_only_its_scopes(public: LiveServer, runtime: Runtime, method: str, path: str, scope: str) -> None:
    """A request with no key, a wrong or revoked one, or one without the scope is rejected."""
    others = make_key(runtime, "acme", *({"run", "read", "decide", "ingest"} - {scope}))  # type: ignore[arg-type]
    revoked = make_key(runtime, "acme", scope)  # type: ignore[arg-type]
    runtime.database.write_now(revoke_key(revoked.split("_")[1], runtime.clock.now()))
    body = {"input": "x", "user": "u", "right": True, "happened": True, "by": "ann"}
    for key, status, code in (
        (None, 401, "wrong_credentials"),
        (revoked, 401, "wrong_credentials"),
        (revoked[:-1] + "x", 401, "wrong_credentials"),
        (others, 403, "not_allowed"),
    ):
        with public.client(key) as client:
            response = client.request(method, path, json=body if method == "POST" else None)
            assert_problem(response, status, code)
    assert count_runs(runtime) == 0


def test_rate_limits_are_per_key(public: LiveServer, runtime: Runtime, clock: VirtualClock) -> None:
    """A key above its rate limit gets a 429 with the seconds to wait; another key does not."""
    busy, other = make_key(runtime, "acme", "decide"), make_key(runtime, "acme", "decide")
    deny: dict[str, Any] = {"url": "/v1/approvals/appr_0/deny", "json": {"by": "mia"}}
    with public.client(busy) as client, public.client(other) as quiet:
        responses = [client.post(**deny) for _ in range(RATE_LIMITS["decide"].burst + 2)]
        assert [response.status_code for response in responses] == [404] * RATE_LIMITS["decide"].burst + [429] * 2
        assert_problem(responses[-1], 429, "rate_limited")
        assert responses[-1].headers["retry-after"] == "1"
        assert quiet.post(**deny).status_code == 404
        clock.advance(1)
        assert client.post(**deny).status_code == 404


def test_the_lease_of_a_crashed_request_expires(runtime: Runtime, clock: VirtualClock, public: LiveServer) -> None:
    """If the process that claimed a key is gone, the same request runs again once the lease has expired."""
    key = make_key(runtime, "acme", "run")
    body = {"agent": "shop", **REQUEST, "tenant": None, "conversation_id": None}
    runtime.database.write_now(claim_key(idempotent_request(key.split("_")[1], "d", body), clock.now()))
    with public.client(key) as client:
        assert_problem(client.post(RUNS, json=REQUEST, headers={"idempotency-key": "d"}), 409, "still_running")
        clock.advance(LEASE.total_seconds() + 1)
        assert client.post(RUNS, json=REQUEST, headers={"idempotency-key": "d"}).status_code == 200


def test_the_operator_chooses_the_tenant(local: LiveServer) -> None:
    """On 127.0.0.1 no key is needed, and a run belongs to the tenant in the request, by default `default`."""
    with local.client() as client:
        ids = [client.post(RUNS, json={**REQUEST, **more}).json()["run_id"] for more in ({}, {"tenant": "globex"})]
        tenants = [client.get(f"/v1/runs/{run_id}").json()["tenant"] for run_id in ids]
    assert tenants == ["default", "globex"]


def test_invalid_requests(local: LiveServer) -> None:
    """A request that does not match the schema is a 422 that names the field and does not repeat its value."""
    with local.client() as client:
        response = client.post(RUNS, json={"input": "x", "user": "u", "secret": "hunter2"})
        assert "body.secret" in assert_problem(response, 422, "invalid")["detail"]
        assert "hunter2" not in response.text
        assert_problem(
            client.post(
                RUNS, content=b'{"input": "\\ud800", "user": "u"}', headers={"content-type": "application/json"}
            ),
            422,
            "invalid",
        )
        assert_problem(client.post(RUNS, json={"input": "x", "user": "\n"}), 400, "bad_input")
        assert_problem(client.post("/v1/agents/nobody/runs", json=REQUEST), 404, "not_found")
        assert_problem(client.get("/v1/nothing"), 404, "not_found")
        assert_problem(client.delete(RUNS), 405, "method_not_allowed")
