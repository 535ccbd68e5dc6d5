"""The pages on evals: what an agent scored over time, one eval run, what changed, one case."""

import asyncio
import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from handrail import Runtime, use_runtime
from handrail.access.login import new_person
from handrail.evals.scorers.score import Verdict
from handrail.evals.store import eval_runs as evals_store
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd
from handrail.server.view_models.evals import by_field, by_path, case_rows, colours
from handrail.testing import VirtualClock
from tests.browser.evals import Triage
from tests.server.page_reader import logged_in, text_of
from tests.server.serving import LOGIN, Served, served
from tests.server.shop import Shop


@pytest.fixture
def triage(tmp_path: Path, runtime: Runtime, clock: VirtualClock, shop: Shop) -> Triage:
    """A baseline, a change that was blocked and one that passed."""
    made = Triage(tmp_path, clock)
    with use_runtime(runtime):
        asyncio.run(made.fill(runtime, 18))
    shop.agents["triage"] = made.agent(2)
    return made


@pytest.fixture
def client(local: Served) -> Iterator[httpx2.Client]:
    with local.client() as opened:
        yield opened


def links(answer: httpx2.Response, pattern: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(f'href="({pattern})"', answer.text)]


@pytest.mark.usefixtures("triage")
def test_the_newest_agents_eval_runs(client: httpx2.Client) -> None:
    """The page has a chart, the gate's verdicts, and each eval run with its fingerprint and score."""
    answer = client.get("/evals")
    text = text_of(answer)
    assert "Score over time, by fingerprint" in text
    assert "<svg" in answer.text
    assert len(links(answer, r"/evals/eval_\w+")) == 3
    assert ("blocked" in text, "passed" in text) == (True, True)
    assert "77.8%" in text


@pytest.mark.usefixtures("triage")
def test_what_changed(client: httpx2.Client) -> None:
    """The diff has both scores, the prompt's lines, the worst cases with both outputs marked, and where they part."""
    [_, blocked] = links(client.get("/evals"), r"/evals/eval_\w+/diff\?[^\"]+")[-2:]
    answer = client.get(blocked)
    text = " ".join(text_of(answer).split())
    assert "100.0% ± 0.0 (18 cases)" in text
    assert "77.8%" in text
    assert "-Goods that smoke, burn or hurt somebody are `safety`, whatever else" in text
    assert "<del>safety</del>" in answer.text
    assert "<ins>return</ins>" in answer.text
    assert "They part here" in text
    assert "calls find_order" in text
    assert answer.text.count("data-case") == 4
    assert "The kettle of order 1007 gave off smoke." in text


@pytest.mark.usefixtures("triage")
def test_changes_can_be_chosen(client: httpx2.Client) -> None:
    """A filter shows its cases only, in either direction; a change that no case has shows none."""
    blocked = links(client.get("/evals"), r"/evals/eval_\w+/diff\?[^\"]+")[-1]
    for show, count in {
        "newly-failing": 4,
        "newly-passing": 0,
        "same-score-different-output": 0,
        "path-changed": 0,
    }.items():
        answer = client.get(f"{blocked}&show={show}")
        assert answer.text.count("data-case") == count, show
        assert ("No such case" in answer.text) == (count == 0)
    assert client.get(f"{blocked}&show=other").status_code == 422
    after, before = re.findall(r"eval_\w+", blocked)
    assert client.get(f"/evals/{before}/diff?before={after}&show=newly-passing").text.count("data-case") == 4
    assert client.get(f"{blocked}&from=3").text.count("data-case") == 1


@pytest.mark.usefixtures("triage")
def test_one_eval_run_and_one_case(client: httpx2.Client) -> None:
    """From an eval run to one of its cases: what it asks, what is right, and how it did each time."""
    blocked = links(client.get("/evals"), r"/evals/eval_\w+")[1]
    answer = client.get(blocked)
    cases = links(answer, r"/evals/case\?[^\"]+")
    assert len(cases) == 18
    assert "Compare with the baseline" in answer.text
    wrong = client.get(f"{blocked}?wrong=true")
    assert links(wrong, r"/evals/case\?[^\"]+") == cases[:4]
    text = " ".join(text_of(client.get(cases[0])).split())
    assert "The kettle of order 1007 gave off smoke." in text
    assert [text.count(each) for each in ("better", "worse", "category was return")] == [1, 1, 1]


@pytest.mark.usefixtures("triage")
def test_what_is_not_there(client: httpx2.Client) -> None:
    """An unknown eval run or case is a 404 that names it; an agent without eval runs is told how to get some."""
    assert client.get("/evals/eval_1").status_code == 404
    assert client.get("/evals/case?agent=triage&id=nobody").status_code == 404
    [first, *_] = links(client.get("/evals"), r"/evals/eval_\w+")
    assert client.get(f"{first}/diff?before=eval_1").status_code == 404
    assert client.get(f"{first}/diff").status_code == 422
    assert "No eval runs here" in client.get("/evals?agent=other").text


def test_before_the_first_eval_run(client: httpx2.Client) -> None:
    """An empty store says what to do."""
    assert "handrail eval run AGENT" in text_of(client.get("/evals"))


async def test_an_eval_run_of_an_agent_from_elsewhere(runtime: Runtime, client: httpx2.Client) -> None:
    """Trials whose runs and set are not here are shown by what was kept of them, hostile text as text."""
    nasty = '<img src=x onerror="hurt()">\u202e'
    for eval_run_id, category in (("eval_1", "safety"), ("eval_2", nasty)):
        trial = Trial(
            case_id="c",
            trial=1,
            run_id="",
            outcome="answered",
            path="happy",
            verdict=Verdict({nasty: category == "safety"}, {}, {nasty: nasty}),
            observed={"category": category},
            duration_ns=1,
            cost=NanoUsd(0),
        )
        begun = evals_store.start(eval_run_id, nasty, "0" * 64, 1, runtime.clock.now())
        await runtime.database.write(begun, evals_store.add_trial(eval_run_id, trial))
    listed = client.get("/evals")
    for path in ("/evals", "/evals/eval_2", "/evals/eval_2/diff?before=eval_1", links(listed, r"/evals/eval_2")[0]):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "<img" not in answer.text.replace('<img src="/static', "")
        assert "\u202e" not in answer.text
    case = client.get(links(client.get("/evals/eval_2"), r"/evals/case\?[^\"]+")[0])
    assert "What it asks cannot be shown" in case.text


def test_a_tenants_person_sees_none(runtime: Runtime, shop: Shop) -> None:
    """Evals are the operator's: whatever the page, who belongs to a tenant is told so."""
    runtime.database.write_now(new_person("ann", "correct horse battery", "acme", runtime.clock.now()))
    paths = ("/evals", "/evals/eval_1", "/evals/eval_1/diff?before=eval_2", "/evals/case?agent=a&id=b")
    with served(runtime, shop.find, LOGIN) as server, logged_in(server, "ann", "correct horse battery") as client:
        assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 403)


def trial(case_id: str, number: int, value: float, **changed: object) -> Trial:
    fields = {"a": value == 1, "b": True}
    given = {"outcome": "answered", "path": "happy", "verdict": Verdict(fields), **changed}
    return Trial(
        case_id=case_id,
        trial=number,
        run_id="",
        observed={},
        duration_ns=1,
        cost=NanoUsd(0),
        **given,  # type: ignore[arg-type]
    )


def test_rows_of_an_eval_run() -> None:
    """Cases come worst first with their worst trial; what could not be judged counts in no value and comes last."""
    trials = [
        trial("good", 1, 1),
        trial("mixed", 1, 1),
        trial("mixed", 2, 0, path="human"),
        trial("down", 1, 0, error="model_unavailable"),
        trial("bad", 1, 0, path=None, outcome="awaiting_approval"),
    ]
    rows = case_rows(trials)
    assert [(row.case_id, row.value, row.right, row.worst.trial) for row in rows] == [
        ("bad", 0.0, 0, 1),
        ("mixed", 0.5, 1, 2),
        ("good", 1.0, 1, 1),
        ("down", None, 0, 1),
    ]
    assert [(each.name, each.value, each.trials) for each in by_field(trials)] == [("a", 0.5, 4), ("b", 1.0, 4)]
    assert [(each.name, each.value, each.trials) for each in by_path(trials)] == [
        ("happy", 1.0, 2),
        ("awaiting_approval", 0.0, 1),
        ("human", 0.0, 1),
    ]


def test_the_newest_fingerprints_have_colours() -> None:
    """Three fingerprints have a colour of their own, all older ones share one."""
    found = colours(["a", "b", "a", None, "c", "d"])
    assert found == {"a": "line-1", "b": "line-2", "no model": "line-3", "c": "quiet", "d": "quiet"}
