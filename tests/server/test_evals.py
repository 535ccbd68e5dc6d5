"""The evals pages: scores over time, one eval run, a comparison, one case."""

import asyncio
import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from handrail import Runtime, use_runtime
from handrail.access.login import new_user
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store import eval_runs as evals_store
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd
from handrail.server.view_models.evals import accuracy_by_field, case_rows, fingerprint_colours, scores_by_path
from handrail.testing import VirtualClock
from tests.browser.evals import Triage
from tests.server.live_server import LOGIN_REQUIRED, LiveServer, live_server
from tests.server.page_reader import logged_in, text_of
from tests.server.shop import Shop


@pytest.fixture
def triage(tmp_path: Path, runtime: Runtime, clock: VirtualClock, shop: Shop) -> Triage:
    """A baseline, a change that was blocked and one that passed."""
    triage = Triage(tmp_path, clock)
    with use_runtime(runtime):
        asyncio.run(triage.fill(runtime, 18))
    shop.specs["triage"] = triage.spec(2)
    return triage


@pytest.fixture
def client(local: LiveServer) -> Iterator[httpx2.Client]:
    with local.client() as http_client:
        yield http_client


def links(response: httpx2.Response, pattern: str) -> list[str]:
    return [html.unescape(url) for url in re.findall(f'href="({pattern})"', response.text)]


@pytest.mark.usefixtures("triage")
def test_the_evals_page(client: httpx2.Client) -> None:
    """The page has a chart, the gate's verdicts, and each eval run with its fingerprint and score."""
    response = client.get("/evals")
    text = text_of(response)
    assert "Score over time, by fingerprint" in text
    assert "<svg" in response.text
    assert len(links(response, r"/evals/eval_\w+")) == 3
    assert ("blocked" in text, "passed" in text) == (True, True)
    assert "77.8%" in text


@pytest.mark.usefixtures("triage")
def test_a_comparison(client: httpx2.Client) -> None:
    """A comparison has both scores, the prompt's diff, and the worst cases with both outputs and where they diverge."""
    [_, blocked] = links(client.get("/evals"), r"/evals/eval_\w+/diff\?[^\"]+")[-2:]
    response = client.get(blocked)
    text = " ".join(text_of(response).split())
    assert "100.0% ± 0.0 (18 cases)" in text
    assert "77.8%" in text
    assert "-Goods that smoke, burn or hurt somebody are `safety`, whatever else" in text
    assert "<del>safety</del>" in response.text
    assert "<ins>return</ins>" in response.text
    assert "The trials diverge here" in text
    assert "calls find_order" in text
    assert response.text.count("data-case") == 4
    assert "The kettle of order 1007 gave off smoke." in text


@pytest.mark.usefixtures("triage")
def test_changes_can_be_filtered(client: httpx2.Client) -> None:
    """A filter shows only the cases with its change, in either direction of the comparison."""
    blocked = links(client.get("/evals"), r"/evals/eval_\w+/diff\?[^\"]+")[-1]
    for show, count in {
        "newly-failing": 4,
        "newly-passing": 0,
        "same-score-different-output": 0,
        "path-changed": 0,
    }.items():
        response = client.get(f"{blocked}&show={show}")
        assert response.text.count("data-case") == count, show
        assert ("No such cases" in response.text) == (count == 0)
    assert client.get(f"{blocked}&show=other").status_code == 422
    after, before = re.findall(r"eval_\w+", blocked)
    assert client.get(f"/evals/{before}/diff?before={after}&show=newly-passing").text.count("data-case") == 4
    assert client.get(f"{blocked}&from=3").text.count("data-case") == 1


@pytest.mark.usefixtures("triage")
def test_one_eval_run_and_one_case(client: httpx2.Client) -> None:
    """An eval run links to its cases; a case has its input, its expected fields and its history."""
    blocked = links(client.get("/evals"), r"/evals/eval_\w+")[1]
    response = client.get(blocked)
    cases = links(response, r"/evals/case\?[^\"]+")
    assert len(cases) == 18
    assert "Compare with the baseline" in response.text
    failing = client.get(f"{blocked}?failing=true")
    assert links(failing, r"/evals/case\?[^\"]+") == cases[:4]
    text = " ".join(text_of(client.get(cases[0])).split())
    assert "The kettle of order 1007 gave off smoke." in text
    assert [text.count(word) for word in ("better", "worse", "category was return")] == [1, 1, 1]


@pytest.mark.usefixtures("triage")
def test_unknown_eval_runs_and_cases(client: httpx2.Client) -> None:
    """An unknown eval run or case is a 404; an agent without eval runs has an empty page."""
    assert client.get("/evals/eval_1").status_code == 404
    assert client.get("/evals/case?agent=triage&id=nobody").status_code == 404
    [first, *_] = links(client.get("/evals"), r"/evals/eval_\w+")
    assert client.get(f"{first}/diff?before=eval_1").status_code == 404
    assert client.get(f"{first}/diff").status_code == 422
    assert "No eval runs of this agent" in client.get("/evals?agent=other").text


def test_no_eval_runs_yet(client: httpx2.Client) -> None:
    """With an empty store the page names the command that makes an eval run."""
    assert "handrail eval run AGENT" in text_of(client.get("/evals"))


async def test_an_eval_run_without_its_runs_and_cases(runtime: Runtime, client: httpx2.Client) -> None:
    """Trials without stored runs or eval set are shown as far as they are stored, with markup escaped."""
    markup = '<img src=x onerror="hurt()">\u202e'
    for eval_run_id, category in (("eval_1", "safety"), ("eval_2", markup)):
        trial = Trial(
            case_id="c",
            trial=1,
            run_id="",
            outcome="answered",
            path="happy",
            score=TrialScore({markup: category == "safety"}, {}, {markup: markup}),
            observed={"category": category},
            duration_ns=1,
            cost=NanoUsd(0),
        )
        begun = evals_store.start_eval_run(eval_run_id, markup, "0" * 64, 1, runtime.clock.now())
        await runtime.database.write(begun, evals_store.add_trial(eval_run_id, trial))
    listed = client.get("/evals")
    for path in ("/evals", "/evals/eval_2", "/evals/eval_2/diff?before=eval_1", links(listed, r"/evals/eval_2")[0]):
        response = client.get(path)
        assert response.status_code == 200
        assert "<img" not in response.text.replace('<img src="/static', "")
        assert "\u202e" not in response.text
    case = client.get(links(client.get("/evals/eval_2"), r"/evals/case\?[^\"]+")[0])
    assert "The case itself cannot be shown" in case.text


def test_evals_are_for_operators(runtime: Runtime, shop: Shop) -> None:
    """A user of one tenant gets a 403 from every evals page."""
    runtime.database.write_now(new_user("ann", "correct horse battery", "acme", runtime.clock.now()))
    paths = ("/evals", "/evals/eval_1", "/evals/eval_1/diff?before=eval_2", "/evals/case?agent=a&id=b")
    with (
        live_server(runtime, shop.find, LOGIN_REQUIRED) as server,
        logged_in(server, "ann", "correct horse battery") as client,
    ):
        assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 403)


def trial(case_id: str, number: int, value: float, **overrides: object) -> Trial:
    fields = {"a": value == 1, "b": True}
    trial_fields = {"outcome": "answered", "path": "happy", "score": TrialScore(fields), **overrides}
    return Trial(
        case_id=case_id,
        trial=number,
        run_id="",
        observed={},
        duration_ns=1,
        cost=NanoUsd(0),
        **trial_fields,  # type: ignore[arg-type]
    )


def test_rows_of_an_eval_run() -> None:
    """Cases are sorted worst first with their worst trial; unscored cases have no value and come last."""
    trials = [
        trial("good", 1, 1),
        trial("mixed", 1, 1),
        trial("mixed", 2, 0, path="human"),
        trial("down", 1, 0, error="model_unavailable"),
        trial("bad", 1, 0, path=None, outcome="awaiting_approval"),
    ]
    rows = case_rows(trials)
    assert [(row.case_id, row.value, row.passed, row.worst.trial) for row in rows] == [
        ("bad", 0.0, 0, 1),
        ("mixed", 0.5, 1, 2),
        ("good", 1.0, 1, 1),
        ("down", None, 0, 1),
    ]
    assert [(row.name, row.value, row.trials) for row in accuracy_by_field(trials)] == [
        ("a", 0.5, 4),
        ("b", 1.0, 4),
    ]
    assert [(row.name, row.value, row.trials) for row in scores_by_path(trials)] == [
        ("happy", 1.0, 2),
        ("awaiting_approval", 0.0, 1),
        ("human", 0.0, 1),
    ]


def test_the_newest_fingerprints_have_colours() -> None:
    """Three fingerprints have their own colour; all older ones share one."""
    colours = fingerprint_colours(["a", "b", "a", None, "c", "d"])
    assert colours == {"a": "line-1", "b": "line-2", "no model": "line-3", "c": "quiet", "d": "quiet"}
