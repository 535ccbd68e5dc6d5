"""Candidates from production: a fair draw, redacted, completed by people and taken into the frozen set."""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import BadInput, GovernedAgent, Runtime, Settings, govern, use_runtime
from handrail.evals import EvalSpec
from handrail.evals.eval_set.model import Difference, check_frozen, freeze, load_set, lock_path
from handrail.evals.eval_set.yaml_writer import append_case
from handrail.evals.from_production.candidates import take, write_candidates
from handrail.evals.from_production.sample import Candidate, Drawn, allot, draw, stratified
from handrail.evals.tenant import TENANT
from handrail.testing import VirtualClock, sandbox
from tests.evals.scorer_contexts import ON, case

CASES = """\
name: parcels
description: Parcels.
cases:
  - id: late
    input: Where is my parcel?
    expect: {category: delivery, order: "1042"}
    source: ticket 1
    date: 2026-11-22
"""
sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1)


@given(sizes, st.integers(0, 200))
def test_shares(found: dict[str, int], n: int) -> None:
    """As many are taken as there are to take, and a stratum has less than another by two only when it is used up."""
    taken = allot(found, n)
    assert sum(taken.values()) == min(n, sum(found.values()))
    assert all(0 <= taken[name] <= found[name] for name in found)
    for name in found:
        assert taken[name] == found[name] or taken[name] >= max(taken.values()) - 1


@given(sizes, st.integers(1, 100), st.integers(), st.randoms())
def test_a_seed(found: dict[str, int], n: int, seed: int, rng: Any) -> None:
    """One seed draws the same of the same runs, in whatever order they come; none is drawn twice."""
    strata = {name: [f"{name}{number}" for number in range(size)] for name, size in found.items()}
    first = stratified(strata, n, seed)
    shuffled = {name: rng.sample(ids, len(ids)) for name, ids in reversed(strata.items())}
    assert stratified(shuffled, n, seed) == first
    assert all(len(set(ids)) == len(ids) and set(ids) <= set(strata[name]) for name, ids in first.items())


def test_every_run_may_be_drawn() -> None:
    """Over many seeds each run of a stratum is drawn about equally often."""
    counts = dict.fromkeys("abcdefgh", 0)
    for seed in range(2_000):
        for drawn in stratified({"happy": list("abcdefgh")}, 2, seed)["happy"]:
            counts[drawn] += 1
    # 500 each on average, with a standard deviation of 19.
    assert all(400 < count < 600 for count in counts.values())


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    (tmp_path / "cases.yaml").write_text(CASES)
    freeze(tmp_path / "cases.yaml", "first", ON)
    with sandbox(tmp_path) as opened:
        yield opened


def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    asked = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
    if "fail" in asked:
        raise ModelAPIError("tiny", "down")
    return ModelResponse([TextPart("well")])


def parcels(folder: Path) -> GovernedAgent[Any, str]:
    agent: Agent[Any, str] = Agent(FunctionModel(answer))
    spec = EvalSpec[Any, str](cases=folder / "cases.yaml", observe=lambda _: {})
    return govern(agent, name="parcels", trials=spec)


async def test_what_is_drawn(runtime: Runtime, tmp_path: Path) -> None:
    """Texts of production are drawn evenly over the paths and redacted; cases, repeats, trials and images are not."""
    agent = parcels(tmp_path)
    for text in ("one, ann@example.com", "two", "three", "four", "Two!", "where is my parcel", "fail, +49 170 1234567"):
        await agent.run(text, user="u-1", tenant="acme")
    await agent.run(["look", BinaryContent(b"x", media_type="image/png")], user="u-1")
    await agent.run("a trial", user="eval_1", tenant=TENANT)
    drawn = await draw(runtime, agent, n=3, seed=1)
    assert drawn.looked_at == 8
    assert drawn.left_out == {"asked before, or a case already": 2, "no text": 1}
    assert [(each.stratum, each.drawn, each.of) for each in drawn.candidates] == [
        ("failed", 1, 1),
        ("happy", 2, 4),
        ("happy", 2, 4),
    ]
    assert drawn.candidates[0].input == "fail, [phone]"
    assert await draw(runtime, agent, n=3, seed=1) == drawn
    everything = await draw(runtime, agent, n=99, seed=2, stratify="tenant")
    assert {each.input for each in everything.candidates} >= {"one, [e-mail]", "two", "three", "four"}
    assert everything.redacted == {"e-mail": 1, "phone": 1}
    assert {each.stratum for each in everything.candidates} == {"acme"}


async def test_the_operators_redaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where handrail.toml names a redaction, candidates go through it, and what it fails on is left out."""
    (tmp_path / "cases.yaml").write_text(CASES)
    (tmp_path / "privacy_for_drawing.py").write_text(
        "def redact(found):\n"
        "    if 'secret' in str(found):\n"
        "        raise ValueError\n"
        "    return {name: str(each).replace('Ann', 'X') for name, each in found.items()}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = Settings(base=tmp_path, redact="privacy_for_drawing:redact")
    opened = Runtime(settings, clock=VirtualClock())
    try:
        with use_runtime(opened):
            agent = parcels(tmp_path)
            for text in ("I am Ann, ann@example.com", "my secret"):
                await agent.run(text, user="u-1")
            drawn = await draw(opened, agent, n=9, seed=0)
    finally:
        opened.close()
    assert [each.input for each in drawn.candidates] == ["I am X, ann@example.com"]
    assert drawn.left_out == {"withheld by the redaction": 1}
    assert drawn.redaction == "privacy_for_drawing:redact"


async def test_nothing_to_draw(runtime: Runtime, tmp_path: Path) -> None:
    """Without a run that can be a case, without a set, and for no candidates, the call is refused."""
    agent = parcels(tmp_path)
    with pytest.raises(BadInput, match="there are none yet"):
        await draw(runtime, agent, n=1, seed=0)
    with pytest.raises(BadInput, match="at least one"):
        await draw(runtime, agent, n=0, seed=0)
    with pytest.raises(BadInput, match="has no eval set"):
        await draw(runtime, govern(Agent(FunctionModel(answer)), name="bare"), n=1, seed=0)


def drawn_file(folder: Path, *asked: str) -> Path:
    """Two candidates in a file beside the frozen set."""
    (folder / "cases.yaml").write_text(CASES)
    freeze(folder / "cases.yaml", "first", ON)
    candidates = [
        Candidate(run_id=f"run_{n:08}", input=text, stratum="happy", drawn=2, of=9, on=ON)
        for n, text in enumerate(asked)
    ]
    drawn = Drawn(candidates=tuple(candidates), looked_at=9, left_out={}, redacted={}, redaction="built-in")
    path = folder / "candidates.yaml"
    write_candidates(path, drawn, "parcels", load_set(folder / "cases.yaml"))
    return path


def completed(path: Path, n: int, expect: str) -> None:
    """The n-th candidate with this expectation."""
    parts = path.read_text().split("expect: {}")
    path.write_text("expect: {}".join(parts[: n + 1]) + expect + "expect: {}".join(parts[n + 1 :]))


def test_completed_candidates_are_taken(tmp_path: Path) -> None:
    """Those with an expectation go into the set, which is frozen with the reason; the others are left alone."""
    path, cases = drawn_file(tmp_path, "My lamp is late.\n\nAnn", "Hello?"), tmp_path / "cases.yaml"
    with pytest.raises(BadInput, match="no candidate is completed"):
        take(cases, path, "more", ON)
    completed(path, 0, 'expect: {category: delivery, order: "7"}')
    taken = take(cases, path, "what November asked", ON)
    assert (taken.cases, taken.open) == (("run-00000000",), ("run-00000001",))
    assert taken.frozen.difference == Difference(added=("run-00000000",))
    loaded = load_set(cases)
    check_frozen(loaded, lock_path(cases))
    added = loaded.cases[-1]
    assert (added.input, added.expect) == ("My lamp is late.\n\nAnn", {"category": "delivery", "order": "7"})
    assert added.source == "production run run_00000000, drawn on 2026-11-22 (happy: 2 of 9)"
    assert cases.read_text().startswith(CASES)


def test_taken_twice(tmp_path: Path) -> None:
    """After a crash between writing and freezing, the same call completes it; once frozen it changes nothing."""
    path, cases = drawn_file(tmp_path, "one", "two"), tmp_path / "cases.yaml"
    completed(path, 0, "expect: {category: other}")
    first = take(cases, path, "more", ON)
    crashed = lock_path(cases)
    cases.write_text(CASES)
    crashed.unlink()
    freeze(cases, "first", ON)
    append_case(cases, load_set_of(path))
    assert take(cases, path, "more", ON).frozen.content_hash == first.frozen.content_hash
    before = (cases.read_bytes(), crashed.read_bytes())
    assert not take(cases, path, "more", ON).frozen.written
    assert (cases.read_bytes(), crashed.read_bytes()) == before


def load_set_of(path: Path) -> Any:
    """The first candidate as a case."""
    return case("run-00000000", "one", category="other").model_copy(
        update={
            "source": re.findall(r'source: "(.*)"', path.read_text())[0],
            "tags": ("production", "happy"),
        }
    )


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ("expect: {catgory: other}", r"case run-00000000, expect: no case .* 'catgory'; did you mean category\?"),
        ("expect: {order: 7}", r'order is a whole number here, and text .*write it in quotes, order: "7"'),
        ("expect: [1]", r"candidates.yaml:\d+: case 'run-00000000', expect: "),
    ],
)
def test_what_cannot_be_taken(tmp_path: Path, expect: str, says: str) -> None:
    """A field or a kind of value that the set never expects is refused with its place, and nothing is changed."""
    path, cases = drawn_file(tmp_path, "one"), tmp_path / "cases.yaml"
    completed(path, 0, expect)
    with pytest.raises(BadInput, match=says):
        take(cases, path, "more", ON)
    assert cases.read_text() == CASES


def test_a_set_that_is_not_frozen(tmp_path: Path) -> None:
    """A set with other changes than the candidates, and a name that is taken, are refused first."""
    path, cases = drawn_file(tmp_path, "one"), tmp_path / "cases.yaml"
    completed(path, 0, "expect: {category: other}")
    cases.write_text(CASES.replace("Where is", "Where was"))
    with pytest.raises(BadInput, match="changed: late"):
        take(cases, path, "more", ON)
    cases.write_text(CASES)
    path.write_text(path.read_text().replace("id: run-00000000", "id: late"))
    with pytest.raises(BadInput, match="late: the set has cases of that name"):
        take(cases, path, "more", dt.date(2026, 11, 23))
