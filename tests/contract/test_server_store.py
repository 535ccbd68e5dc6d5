"""What the web's own table and its pages' queries promise, whatever the engine."""

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
from handrail.server.idempotency import KEPT, LEASE, Answer, Asked, asked, begin, finish, forget, renew
from handrail.testing import VirtualClock
from tests.server.page_reader import send
from tests.server.serving import served
from tests.server.shop import Shop, settings

NOW = VirtualClock().now()
ANSWER = Answer(status=200, body={"a": [1, None, "\u2028"]})


def request(owner: str = "key", key: str = "k", **sent: Any) -> Asked:
    return asked(owner, key, {"input": "x", **sent})


@pytest.fixture
def runtime(address: str, tmp_path: Path) -> Iterator[Runtime]:
    opened = Runtime(settings(tmp_path, store=address), clock=VirtualClock())
    yield opened
    opened.close()


async def test_an_answer_is_given_again(database: Database) -> None:
    """The first to ask answers; then the same request gets that answer, another one and another owner do not."""
    assert await database.write(begin(request(), NOW)) == [None]
    with pytest.raises(StillRunning):
        await database.write(begin(request(), NOW))
    await database.write(finish(request(), ANSWER))
    assert await database.write(begin(request(), NOW)) == [ANSWER]
    with pytest.raises(KeyReused):
        await database.write(begin(request(input="y"), NOW))
    assert await database.write(begin(request("other"), NOW), begin(request(key="l"), NOW)) == [None, None]


async def test_of_many_at_once_one_begins(database: Database) -> None:
    """However many ask at one moment with one key, one of them is to answer."""
    found = await asyncio.gather(*(database.write(begin(request(), NOW)) for _ in range(12)), return_exceptions=True)
    assert [each for each in found if not isinstance(each, StillRunning)] == [[None]]


async def test_keys_come_back(database: Database) -> None:
    """A key is free again when it is given back, when its lease is over, and a day after its answer."""
    await database.write(begin(request(), NOW))
    await database.write(forget(request()))
    assert await database.write(begin(request(), NOW)) == [None]
    await database.write(renew(request(), NOW + LEASE))
    with pytest.raises(StillRunning):
        await database.write(begin(request(), NOW + LEASE))
    assert await database.write(begin(request(), NOW + 2 * LEASE)) == [None]
    await database.write(finish(request(), ANSWER))
    assert await database.write(begin(request(), NOW + KEPT)) == [ANSWER]
    assert await database.write(begin(request(), NOW + KEPT + timedelta(hours=1))) == [None]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\0"])
def test_odd_keys_are_refused(key: str) -> None:
    """An Idempotency-Key is 1 to 255 printable characters."""
    with pytest.raises(BadInput, match="Idempotency-Key"):
        request(key=key)


async def test_paths_over_time(runtime: Runtime) -> None:
    """Runs are counted by the path they took, in the hour they began, for one tenant or for all."""
    shop, clock = Shop(), runtime.clock
    assert isinstance(clock, VirtualClock)
    with use_runtime(runtime):
        for said, tenant in (("hello", "acme"), ("down", "acme"), ("refund", "acme"), ("hello", "globex")):
            await shop.find("shop").run(said, user="u", tenant=tenant)
        clock.advance(3_600)
        await shop.find("shop").run("hello", user="u", tenant="acme")
    ask = partial(paths_over_time, since=NOW, until=NOW + timedelta(hours=2), every=timedelta(hours=1))
    first, second = await runtime.database.read(partial(ask, tenant="acme"))
    assert (first.at, first.runs["happy"], first.runs["failed"], sum(first.runs.values())) == (NOW, 1, 1, 2)
    assert (second.at, dict(second.runs)["happy"]) == (NOW + timedelta(hours=1), 1)
    everybody = await runtime.database.read(partial(ask, tenant=None))
    assert [sum(point.runs.values()) for point in everybody] == [3, 1]


async def test_every_page_opens(runtime: Runtime) -> None:
    """Over an empty store and over one with runs, every page and form works."""
    shop = Shop()
    with served(runtime, shop.find) as server, server.client() as client:
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
            client.post("/v1/agents/shop/runs", json={"input": said, "user": "u"}).json()
            for said in ("refund", "order", "down")
        ]
        assert [path for path in pages if client.get(path).status_code != 200] == []
        waiting = runs[0]["approvals"][0]["approval_id"]
        decided = send(client, f"/inbox/{waiting}", f"/inbox/{waiting}", verdict="approved", by="mia", note="a\r\nb")
        assert decided.status_code == 303
        assert "Approved by mia" in client.get(f"/inbox/{waiting}").text
        again = send(client, f"/runs/{runs[1]['run_id']}", f"/inbox/{waiting}", verdict="denied", by="mia")
        assert (again.status_code, "not open any more" in again.text) == (409, True)
        for run in runs:
            assert client.get(f"/runs/{run['run_id']}").status_code == 200
            assert client.get(f"/traces/{run['trace_id']}").status_code == 200
        judged = send(
            client,
            f"/runs/{runs[1]['run_id']}",
            f"/runs/{runs[1]['run_id']}/verdict",
            right="no",
            should="refund: true",
            note="n",
        )
        assert judged.status_code == 303
        assert "wrong" in client.get(f"/runs/{runs[1]['run_id']}").text
        [verdict] = client.get(f"/v1/runs/{runs[1]['run_id']}").json()["verdicts"]
        assert (verdict["right"], verdict["should"]) == (False, {"refund": True})
