"""Candidates from production: sampling, redaction, and acceptance into the frozen eval set."""

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
from handrail.evals.eval_set.lock import EvalSetDiff, check_frozen, freeze, lock_path
from handrail.evals.eval_set.model import load_eval_set
from handrail.evals.eval_set.yaml_writer import append_cases
from handrail.evals.from_production.candidates import accept_candidates, write_candidates
from handrail.evals.from_production.sample import Candidate, CandidateSample, allot, sample_candidates, stratified
from handrail.evals.spec import EVALS_TENANT
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
def test_allotment(available: dict[str, int], n: int) -> None:
    """As many as possible are allotted, as evenly as the sizes of the strata allow."""
    counts = allot(available, n)
    assert sum(counts.values()) == min(n, sum(available.values()))
    assert all(0 <= counts[name] <= available[name] for name in available)
    for name in available:
        assert counts[name] == available[name] or counts[name] >= max(counts.values()) - 1


@given(sizes, st.integers(1, 100), st.integers(), st.randoms())
def test_a_seed_determines_the_sample(available: dict[str, int], n: int, seed: int, rng: Any) -> None:
    """The same seed and runs give the same sample in any order, and no run is sampled twice."""
    strata = {name: [f"{name}{number}" for number in range(size)] for name, size in available.items()}
    first = stratified(strata, n, seed)
    shuffled = {name: rng.sample(ids, len(ids)) for name, ids in reversed(strata.items())}
    assert stratified(shuffled, n, seed) == first
    assert all(len(set(ids)) == len(ids) and set(ids) <= set(strata[name]) for name, ids in first.items())


def test_every_run_can_be_sampled() -> None:
    """Over many seeds each run of a stratum is sampled about equally often."""
    counts = dict.fromkeys("abcdefgh", 0)
    for seed in range(2_000):
        for run_id in stratified({"happy": list("abcdefgh")}, 2, seed)["happy"]:
            counts[run_id] += 1
    # 500 each on average, with a standard deviation of 19.
    assert all(400 < count < 600 for count in counts.values())


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    (tmp_path / "cases.yaml").write_text(CASES)
    freeze(tmp_path / "cases.yaml", "first", ON)
    with sandbox(tmp_path) as active:
        yield active


def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    text = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
    if "fail" in text:
        raise ModelAPIError("tiny", "down")
    return ModelResponse([TextPart("well")])


def parcels_agent() -> GovernedAgent[Any, str]:
    agent: Agent[Any, str] = Agent(FunctionModel(answer))
    return govern(agent, name="parcels")


def parcels(folder: Path) -> EvalSpec[Any, str]:
    return EvalSpec(agent=parcels_agent(), cases=folder / "cases.yaml", observe=lambda _: {})


async def test_what_is_sampled(runtime: Runtime, tmp_path: Path) -> None:
    """Inputs are sampled equally over the paths and redacted; cases, repeats, trials and images are left out."""
    agent, spec = parcels_agent(), parcels(tmp_path)
    for text in ("one, ann@example.com", "two", "three", "four", "Two!", "where is my parcel", "fail, +49 170 1234567"):
        await agent.run(text, user="u-1", tenant="acme")
    await agent.run(["see", BinaryContent(b"x", media_type="image/png")], user="u-1")
    await agent.run("a trial", user="eval_1", tenant=EVALS_TENANT)
    sample = await sample_candidates(runtime, spec, n=3, seed=1)
    assert sample.runs == 8
    assert sample.left_out == {"asked before, or a case already": 2, "no text": 1}
    assert [
        (candidate.stratum, candidate.stratum_sampled, candidate.stratum_runs) for candidate in sample.candidates
    ] == [
        ("failed", 1, 1),
        ("happy", 2, 4),
        ("happy", 2, 4),
    ]
    assert sample.candidates[0].input == "fail, [phone]"
    assert await sample_candidates(runtime, spec, n=3, seed=1) == sample
    all_candidates = await sample_candidates(runtime, spec, n=99, seed=2, stratify="tenant")
    assert {candidate.input for candidate in all_candidates.candidates} >= {"one, [e-mail]", "two", "three", "four"}
    assert all_candidates.redacted == {"e-mail": 1, "phone": 1}
    assert {candidate.stratum for candidate in all_candidates.candidates} == {"acme"}


async def test_the_operators_redaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configured redaction is applied to candidates, and those on which it fails are left out."""
    (tmp_path / "cases.yaml").write_text(CASES)
    (tmp_path / "privacy_for_sampling.py").write_text(
        "def redact(payload):\n"
        "    if 'secret' in str(payload):\n"
        "        raise ValueError\n"
        "    return {name: str(value).replace('Ann', 'X') for name, value in payload.items()}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = Settings(base=tmp_path, redact="privacy_for_sampling:redact")
    runtime = Runtime(settings, clock=VirtualClock())
    try:
        with use_runtime(runtime):
            agent, spec = parcels_agent(), parcels(tmp_path)
            for text in ("I am Ann, ann@example.com", "my secret"):
                await agent.run(text, user="u-1")
            sample = await sample_candidates(runtime, spec, n=9, seed=0)
    finally:
        runtime.close()
    assert [candidate.input for candidate in sample.candidates] == ["I am X, ann@example.com"]
    assert sample.left_out == {"withheld by the redaction": 1}
    assert sample.redaction == "privacy_for_sampling:redact"


async def test_nothing_to_sample(runtime: Runtime, tmp_path: Path) -> None:
    """Sampling is refused without runs and for fewer than one candidate."""
    spec = parcels(tmp_path)
    with pytest.raises(BadInput, match="there are none yet"):
        await sample_candidates(runtime, spec, n=1, seed=0)
    with pytest.raises(BadInput, match="at least one"):
        await sample_candidates(runtime, spec, n=0, seed=0)


def candidate_file(folder: Path, *inputs: str) -> Path:
    """A frozen eval set and a file of candidates in the same folder; returns the file."""
    (folder / "cases.yaml").write_text(CASES)
    freeze(folder / "cases.yaml", "first", ON)
    candidates = [
        Candidate(run_id=f"run_{n:08}", input=text, stratum="happy", stratum_sampled=2, stratum_runs=9, sampled_on=ON)
        for n, text in enumerate(inputs)
    ]
    sample = CandidateSample(candidates=tuple(candidates), runs=9, left_out={}, redacted={}, redaction="built-in")
    path = folder / "candidates.yaml"
    write_candidates(path, sample, "parcels", load_eval_set(folder / "cases.yaml"))
    return path


def complete_candidate(path: Path, n: int, expect: str) -> None:
    """Writes the expectation of the n-th candidate."""
    parts = path.read_text().split("expect: {}")
    path.write_text("expect: {}".join(parts[: n + 1]) + expect + "expect: {}".join(parts[n + 1 :]))


def test_completed_candidates_are_accepted(tmp_path: Path) -> None:
    """Candidates with an expectation are added to the set, which is frozen with the reason; the others are left out."""
    path, cases = candidate_file(tmp_path, "My lamp is late.\n\nAnn", "Hello?"), tmp_path / "cases.yaml"
    with pytest.raises(BadInput, match="no candidate is complete"):
        accept_candidates(cases, path, "more", ON)
    complete_candidate(path, 0, 'expect: {category: delivery, order: "7"}')
    accepted = accept_candidates(cases, path, "messages of November", ON)
    assert (accepted.cases, accepted.incomplete) == (("run-00000000",), ("run-00000001",))
    assert accepted.frozen.diff == EvalSetDiff(added=("run-00000000",))
    loaded = load_eval_set(cases)
    check_frozen(loaded, lock_path(cases))
    added = loaded.cases[-1]
    assert (added.input, added.expect) == ("My lamp is late.\n\nAnn", {"category": "delivery", "order": "7"})
    assert added.source == "production run run_00000000, drawn on 2026-11-22 (happy: 2 of 9)"
    assert cases.read_text().startswith(CASES)


def test_accepting_twice(tmp_path: Path) -> None:
    """After a crash between writing and freezing, the same call completes the work; once frozen it changes nothing."""
    path, cases = candidate_file(tmp_path, "one", "two"), tmp_path / "cases.yaml"
    complete_candidate(path, 0, "expect: {category: other}")
    first = accept_candidates(cases, path, "more", ON)
    lock = lock_path(cases)
    cases.write_text(CASES)
    lock.unlink()
    freeze(cases, "first", ON)
    append_cases(cases, only_complete_case(path))
    assert accept_candidates(cases, path, "more", ON).frozen.content_hash == first.frozen.content_hash
    before = (cases.read_bytes(), lock.read_bytes())
    assert not accept_candidates(cases, path, "more", ON).frozen.written
    assert (cases.read_bytes(), lock.read_bytes()) == before


def only_complete_case(path: Path) -> Any:
    """The first candidate as a case."""
    return case("run-00000000", "one", category="other").model_copy(
        update={
            "source": re.findall(r'source: "(.*)"', path.read_text())[0],
            "tags": ("production", "happy"),
        }
    )


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ("expect: {catgory: other}", r"case run-00000000, expect: no case .* 'catgory'; did you mean category\?"),
        ("expect: {order: 7}", r'order is a whole number here but text .*write it in quotes, order: "7"'),
        ("expect: [1]", r"candidates.yaml:\d+: case 'run-00000000', expect: "),
    ],
)
def test_invalid_candidates(tmp_path: Path, expect: str, message: str) -> None:
    """A field or type that the set never expects is refused, naming its place, and nothing is changed."""
    path, cases = candidate_file(tmp_path, "one"), tmp_path / "cases.yaml"
    complete_candidate(path, 0, expect)
    with pytest.raises(BadInput, match=message):
        accept_candidates(cases, path, "more", ON)
    assert cases.read_text() == CASES


def test_a_set_that_is_not_frozen(tmp_path: Path) -> None:
    """A set with other changes, and an id that is in use, are refused first."""
    path, cases = candidate_file(tmp_path, "one"), tmp_path / "cases.yaml"
    complete_candidate(path, 0, "expect: {category: other}")
    cases.write_text(CASES.replace("Where is", "Where was"))
    with pytest.raises(BadInput, match="changed: late"):
        accept_candidates(cases, path, "more", ON)
    cases.write_text(CASES)
    path.write_text(path.read_text().replace("id: run-00000000", "id: late"))
    with pytest.raises(BadInput, match="late: the eval set already uses these ids"):
        accept_candidates(cases, path, "more", dt.date(2026, 11, 23))
