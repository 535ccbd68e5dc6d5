"""Idempotency keys and the queries of the pages, on every engine."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handrail import Runtime, use_runtime
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.runs.store.stats import paths_over_time
from handrail.server.errors import KeyReused, StillRunning
from handrail.server.idempotency import (
    LEASE,
    RETENTION,
    IdempotentRequest,
    StoredResponse,
    claim_key,
    idempotent_request,
    release_key,
    renew_request_lease,
    store_response,
)
from handrail.testing import VirtualClock
from tests.server.live_server import live_server
from tests.server.page_reader import send
from tests.server.shop import Shop, settings

NOW = VirtualClock().now()
RESPONSE = StoredResponse(status=200, body={"a": [1, None, "\u2028"]})


def request(owner: str = "key", key: str = "k", **fields: Any) -> IdempotentRequest:
    return idempotent_request(owner, key, {"input": "x", **fields})


@pytest.fixture
def runtime(address: str, tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(settings(tmp_path, store=address), clock=VirtualClock())
    yield runtime
    runtime.close()


async def test_a_response_is_returned_again(database: Database) -> None:
    """The same request gets the stored response; another request, another owner and another key do not."""
    assert await database.write(claim_key(request(), NOW)) == [None]
    with pytest.raises(StillRunning):
        await database.write(claim_key(request(), NOW))
    await database.write(store_response(request(), RESPONSE))
    assert await database.write(claim_key(request(), NOW)) == [RESPONSE]
    with pytest.raises(KeyReused):
        await database.write(claim_key(request(input="y"), NOW))
    assert await database.write(claim_key(request("other"), NOW), claim_key(request(key="l"), NOW)) == [None, None]


async def test_one_of_many_claims_a_key(database: Database) -> None:
    """Of many concurrent requests with one key, one claims it."""
    results = await asyncio.gather(
        *(database.write(claim_key(request(), NOW)) for _ in range(12)), return_exceptions=True
    )
    assert [result for result in results if not isinstance(result, StillRunning)] == [[None]]


async def test_keys_become_free(database: Database) -> None:
    """A key is free again once it is released, its lease has expired, or its response is more than a day old."""
    await database.write(claim_key(request(), NOW))
    await database.write(release_key(request()))
    assert await database.write(claim_key(request(), NOW)) == [None]
    await database.write(renew_request_lease(request(), NOW + LEASE))
    with pytest.raises(StillRunning):
        await database.write(claim_key(request(), NOW + LEASE))
    assert await database.write(claim_key(request(), NOW + 2 * LEASE)) == [None]
    await database.write(store_response(request(), RESPONSE))
    assert await database.write(claim_key(request(), NOW + RETENTION)) == [RESPONSE]
    assert await database.write(claim_key(request(), NOW + RETENTION + timedelta(hours=1))) == [None]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\0"])
def test_invalid_keys_are_refused(key: str) -> None:
    """An Idempotency-Key is 1 to 255 printable characters."""
    with pytest.raises(BadInput, match="Idempotency-Key"):
        request(key=key)


async def test_paths_over_time(runtime: Runtime) -> None:
    """Runs are counted by their path, in the hour in which they started, for one tenant or for all."""
    shop, clock = Shop(), runtime.clock
    assert isinstance(clock, VirtualClock)
    with use_runtime(runtime):
        for text, tenant in (("hello", "acme"), ("down", "acme"), ("refund", "acme"), ("hello", "globex")):
            await shop.find("shop").run(text, user="u", tenant=tenant)
        clock.advance(3_600)
        await shop.find("shop").run("hello", user="u", tenant="acme")
    query = partial(paths_over_time, since=NOW, until=NOW + timedelta(hours=2), interval=timedelta(hours=1))
    first, second = await runtime.database.read(query(tenant="acme"))
    assert (first.at, first.runs["happy"], first.runs["failed"], sum(first.runs.values())) == (NOW, 1, 1, 2)
    assert (second.at, dict(second.runs)["happy"]) == (NOW + timedelta(hours=1), 1)
    all_tenants = await runtime.database.read(query(tenant=None))
    assert [sum(point.runs.values()) for point in all_tenants] == [3, 1]


async def test_every_page_opens(runtime: Runtime) -> None:
    """Over an empty store and over one with runs, every page and form works."""
    shop = Shop()
    with live_server(runtime, shop.find) as server, server.client() as client:
        pages = [
            "/",
            "/?range=90d",
            "/runs",
            "/inbox",
            "/inbox?state=all",
            "/steps?sort=critical",
            "/cost?by=day",
            "/spending",
            "/evals",
        ]
        pages += [f"/traces?order={order}&q=%25" for order in ("started", "cost", "duration", "errors")]
        assert [path for path in pages if client.get(path).status_code != 200] == []
        runs = [
            client.post("/v1/agents/shop/runs", json={"input": text, "user": "u"}).json()
            for text in ("refund", "order", "down")
        ]
        assert [path for path in pages if client.get(path).status_code != 200] == []
        waiting = runs[0]["approvals"][0]["approval_id"]
        decided = send(client, f"/inbox/{waiting}", f"/inbox/{waiting}", decision="approved", by="mia", note="a\r\nb")
        assert decided.status_code == 303
        assert "Approved by mia" in client.get(f"/inbox/{waiting}").text
        again = send(client, f"/runs/{runs[1]['run_id']}", f"/inbox/{waiting}", decision="denied", by="mia")
        assert (again.status_code, "not open any more" in again.text) == (409, True)
        for run in runs:
            assert client.get(f"/runs/{run['run_id']}").status_code == 200
            assert client.get(f"/traces/{run['trace_id']}").status_code == 200
        submitted = send(
            client,
            f"/runs/{runs[1]['run_id']}",
            f"/runs/{runs[1]['run_id']}/feedback",
            right="no",
            expected="refund: true",
            note="n",
        )
        assert submitted.status_code == 303
        assert "wrong" in client.get(f"/runs/{runs[1]['run_id']}").text
        [feedback] = client.get(f"/v1/runs/{runs[1]['run_id']}").json()["feedback"]
        assert (feedback["right"], feedback["expected"]) == (False, {"refund": True})
