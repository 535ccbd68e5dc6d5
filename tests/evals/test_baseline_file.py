"""Baseline files: their content, their diffs, and the gate in a store without the baseline's runs."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, BadInput, Outcome, Runtime, govern
from handrail.evals import EvalSpec
from handrail.evals.compare.comparison import compare_eval_runs, load_case_detail
from handrail.evals.errors import NoBaseline
from handrail.evals.eval_set.lock import freeze
from handrail.evals.gate.baseline import create_baseline
from handrail.evals.gate.gate import run_gate
from handrail.evals.gate.verdict_store import list_gates
from handrail.evals.scorer import Scorer, ScorerContext
from handrail.evals.scorers.fields import exact
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store.baseline_file import BaselineFile, decode, encode, read_baseline_file, write_baseline_file
from handrail.evals.store.baselines import Baseline, list_baselines
from handrail.evals.store.eval_runs import EvalRunView, Trial, list_eval_runs, load_eval_run
from handrail.kernel.clock import from_unix_ns
from handrail.kernel.money import NanoUsd
from handrail.testing import VirtualClock, sandbox
from tests.evals.scorer_contexts import ON

FILE = Path("baseline.jsonl")
WORDS = ["one", "two", "three"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
shares = st.floats(0, 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
counts = st.integers(0, 2**62)
times = counts.map(from_unix_ns)


@st.composite
def trials(draw: st.DrawFn, case_id: str, number: int) -> Trial:
    return Trial(
        case_id=case_id,
        trial=number,
        run_id=draw(texts),
        outcome=draw(texts),
        path=draw(st.none() | texts),
        score=TrialScore(
            draw(st.dictionaries(texts, st.booleans(), max_size=3)),
            draw(st.dictionaries(texts, shares, max_size=3)),
            draw(st.dictionaries(texts, texts, max_size=2)),
        ),
        observed=draw(st.dictionaries(texts, values, max_size=3)),
        duration_ns=draw(counts),
        cost=NanoUsd(draw(counts)),
        model=draw(st.none() | texts),
        agent_hash=draw(st.sampled_from([None, "a" * 64, "b" * 64])),
        error=draw(st.none() | texts),
    )


@st.composite
def baselines(draw: st.DrawFn) -> BaselineFile:
    keys = draw(st.lists(st.tuples(texts, st.integers(1, 4)), min_size=1, max_size=5, unique=True))
    head: dict[str, Any] = {"agent": draw(texts), "set_hash": draw(texts)}
    run: dict[str, Any] = {"eval_run_id": draw(texts)}
    scored_by = draw(st.dictionaries(texts, texts, max_size=3))
    baseline = Baseline(
        **head,
        **run,
        baseline_id=draw(texts),
        agent_hash=draw(st.sampled_from([None, "a" * 64])),
        by=draw(texts),
        at=draw(times),
        trials=draw(st.integers(1, 32)),
        scored_by=scored_by,
    )
    run_fields: dict[str, Any] = {"cases": draw(counts), "started_at": draw(times), "ended_at": draw(times)}
    view = EvalRunView(**head, **run, **run_fields, scored_by=scored_by)
    drawn = tuple(draw(trials(case_id, number)) for case_id, number in keys)
    return BaselineFile(path=FILE, baseline=baseline, view=view, trials=drawn)


def in_order(baseline_file: BaselineFile, order: list[str]) -> BaselineFile:
    return replace(
        baseline_file,
        trials=tuple(sorted(baseline_file.trials, key=lambda trial: (order.index(trial.case_id), trial.trial))),
    )


@given(baselines(), st.randoms())
def test_a_baseline_survives_a_file(baseline_file: BaselineFile, random: Any) -> None:
    """A file decodes to the baseline that was encoded, with trials in the set's order; encoding is deterministic."""
    order = list(dict.fromkeys(trial.case_id for trial in baseline_file.trials))
    random.shuffle(order)
    body = encode(baseline_file, order)
    assert decode(FILE, body) == in_order(baseline_file, order)
    assert body.count(b"\n") == len(baseline_file.trials) + 2
    shuffled = random.sample(baseline_file.trials, len(baseline_file.trials))
    reordered = [replace(trial, observed=dict(reversed(trial.observed.items()))) for trial in shuffled]
    assert encode(replace(baseline_file, trials=tuple(reordered)), order) == body


class InstantClock(VirtualClock):
    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=InstantClock()) as active:
        yield active


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Runtime]:
    """A second, empty store."""
    with sandbox(tmp_path, clock=InstantClock(), store="elsewhere.db") as active:
        active.clock.advance(60)  # type: ignore[attr-defined]
        yield active


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.yaml"
    rows = [
        f"  - {{id: {word}, input: {word}, expect: {{reply: {word}}}, source: here, date: 2026-11-22}}\n"
        for word in WORDS
    ]
    path.write_text("name: echo\ndescription: The input, repeated.\ncases:\n" + "".join(rows))
    freeze(path, "first", ON)
    return path


def echo(
    cases: Path, *wrong: str, prompt: str = "Echo.", name: str = "echo", scorers: tuple[Scorer, ...] = ()
) -> EvalSpec[Any, str]:
    """An agent that repeats its input, except for these words."""

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        prompt_text = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
        return ModelResponse([TextPart("what?" if prompt_text in wrong else prompt_text)])

    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"), instructions=prompt)
    return EvalSpec(agent=govern(agent, name=name), cases=cases, observe=observe, scorers=scorers)


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}


def polite(_context: ScorerContext) -> bool:
    return True


async def write_baseline(runtime: Runtime, spec: EvalSpec[Any, Any], path: Path, count: int = 1) -> BaselineFile:
    """Creates a baseline, writes it to a file, and reads the file."""
    baseline = await create_baseline(runtime, spec, by="ann", trials=count)
    view, stored_trials = await runtime.database.read(load_eval_run(baseline.eval_run_id))
    write_baseline_file(BaselineFile(path=path, baseline=baseline, view=view, trials=tuple(stored_trials)), WORDS)
    return read_baseline_file(path)


async def test_a_diff_shows_what_changed(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """Of two baselines that differ in one case, the head, that case's line and the last line differ."""
    await write_baseline(runtime, echo(cases), tmp_path / "old")
    await write_baseline(runtime, echo(cases, "two", prompt="Say it."), tmp_path / "new")
    old, new = ((tmp_path / name).read_bytes().splitlines() for name in ("old", "new"))
    assert [json.loads(line).get("case") for line in new] == [None, *WORDS, None]
    assert [number for number, (a, b) in enumerate(zip(old, new, strict=True)) if a != b] == [0, 2, 4]


async def test_the_gate_without_a_stored_baseline(
    runtime: Runtime, elsewhere: Runtime, cases: Path, tmp_path: Path
) -> None:
    """The file alone is enough for a verdict; its baseline is stored at the first use and only once."""
    baseline_file = await write_baseline(runtime, echo(cases, "one"), tmp_path / "b.jsonl", 2)
    blocked = await run_gate(elsewhere, echo(cases, "one", "two"), baseline_file=baseline_file)
    passed = await run_gate(elsewhere, echo(cases, "one"), baseline_file=read_baseline_file(tmp_path / "b.jsonl"))
    assert (blocked.verdict.passed, passed.verdict.passed) == (False, True)
    assert (blocked.verdict.newly_failing, blocked.verdict.baseline_trials) == (("two",), 2)
    assert blocked.baseline == baseline_file.baseline
    assert await elsewhere.database.read(list_baselines("echo", 9)) == [baseline_file.baseline]
    assert len(await elsewhere.database.read(list_eval_runs("echo", 9))) == 3
    gates = await elsewhere.database.read(list_gates("echo", 9))
    assert {gate.baseline_id for gate in gates} == {baseline_file.baseline.baseline_id}


async def test_the_diff_with_runs_of_another_store(
    runtime: Runtime, elsewhere: Runtime, cases: Path, tmp_path: Path
) -> None:
    """A baseline from a file is compared by its observed fields; its steps and prompt are unknown."""
    baseline_file = await write_baseline(runtime, echo(cases), tmp_path / "b.jsonl")
    gated = await run_gate(elsewhere, echo(cases, "two", prompt="Say it."), baseline_file=baseline_file)
    comparison = await compare_eval_runs(elsewhere, "baseline", "newest", "echo")
    assert comparison.before.eval_run_id == baseline_file.view.eval_run_id
    assert comparison.agents == (baseline_file.baseline.agent_hash, gated.agent_hash)
    assert (comparison.prompt, comparison.prompt_known) == ((), False)
    assert {case.case_id: set(case.changes) for case in comparison.diff.cases if case.changes} == {
        "two": {"newly-failing"}
    }
    detail = await load_case_detail(elsewhere, next(case for case in comparison.diff.cases if case.case_id == "two"))
    assert [(piece.kind, piece.text) for piece in detail.output if piece.kind != "same"] == [
        ("removed", "two"),
        ("added", "what?"),
    ]
    assert detail.trajectory.pairs == ()


async def test_the_file_takes_precedence_over_the_store(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """The gate uses the file's baseline even if the store has a newer one."""
    baseline_file = await write_baseline(runtime, echo(cases), tmp_path / "b.jsonl")
    runtime.clock.advance(60)  # type: ignore[attr-defined]
    newer = await create_baseline(runtime, echo(cases, "one"), by="ben")
    worse = echo(cases, "one")
    assert (await run_gate(runtime, worse)).baseline == newer
    gated = await run_gate(runtime, worse, baseline_file=baseline_file)
    assert (gated.baseline, gated.verdict.passed) == (baseline_file.baseline, False)


async def test_incompatible_baseline_files(runtime: Runtime, elsewhere: Runtime, cases: Path, tmp_path: Path) -> None:
    """A file of another agent, other scorers or another state of the set is refused before any trial, with advice."""
    baseline_file = await write_baseline(runtime, echo(cases), tmp_path / "b.jsonl")
    with pytest.raises(BadInput, match=r"b.jsonl: a baseline of agent echo, not of other; pass the file of other"):
        await run_gate(elsewhere, echo(cases, name="other"), baseline_file=baseline_file)
    advice = r"run `handrail eval baseline echo --write \S*b.jsonl` with the agent as it is in production"
    with pytest.raises(NoBaseline, match=rf"\(changed since: exact, polite\); {advice}"):
        await run_gate(elsewhere, echo(cases, scorers=(exact(), polite)), baseline_file=baseline_file)
    change(cases)
    with pytest.raises(NoBaseline, match=rf"b.jsonl: the set has changed since this baseline of 2026-01-01 .*{advice}"):
        await run_gate(elsewhere, echo(cases), baseline_file=baseline_file)
    [view] = await elsewhere.database.read(list_eval_runs(None, 9))
    assert view.eval_run_id == baseline_file.view.eval_run_id


def change(cases: Path) -> None:
    """Changes the set and freezes it."""
    cases.write_text(cases.read_text().replace("reply: two", "reply: too"))
    freeze(cases, "another answer", ON)


def without(line: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[:line], *lines[line + 1 :]]


def with_replacement(line: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [text.replace(old, new) if index == line else text for index, text in enumerate(lines)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _lines: [], r"b.jsonl:1: not a baseline; `handrail eval baseline AGENT --write"),
        (lambda _lines: [b"name: echo"], r"b.jsonl:1: not a baseline"),
        (without(0), r"b.jsonl:1: not a baseline"),
        (lambda lines: lines[:1], r"b.jsonl:1: there are no trials after this line; restore the file"),
        (without(2), r"b.jsonl:4: its columns do not have 2 entries"),
        (without(4), r"b.jsonl:4: run_id: Field required"),
        (with_replacement(3, b'"case"', b'<<<<<<< "case"'), r"b.jsonl:4: Invalid JSON"),
        (with_replacement(2, b'"answered"', b"7"), r"b.jsonl:3: outcome: Input should be a valid string"),
        (
            with_replacement(2, b'"reply": true', b'"reply": false'),
            r"b.jsonl:3: value: 1.0, but its fields and scores give 0.0",
        ),
        (with_replacement(3, b'"three"', b'"one"'), r"b.jsonl:4: trial 1 of case one is on line 2 already"),
        (with_replacement(0, b'"by"', b'"buy"'), r"b.jsonl:1: by: Field required"),
        (
            with_replacement(0, b'baseline": 1', b'baseline": 2'),
            r"newer Handrail \(format 2, this one reads 1\); upgrade Handrail",
        ),
    ],
)
async def test_a_damaged_file(runtime: Runtime, cases: Path, tmp_path: Path, damage: Any, message: str) -> None:
    """A damaged file is refused with the number of the damaged line."""
    path = tmp_path / "b.jsonl"
    await write_baseline(runtime, echo(cases), path)
    path.write_bytes(b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines())))
    with pytest.raises(BadInput, match=message):
        read_baseline_file(path)


def test_no_file(tmp_path: Path) -> None:
    """A missing file is named, with the command that writes one."""
    with pytest.raises(BadInput, match=r"none.jsonl: cannot be read \(No such file .*`handrail eval baseline AGENT"):
        read_baseline_file(tmp_path / "none.jsonl")


def test_a_file_that_cannot_be_written(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """If the file cannot be written, the baseline is still stored, and the error says how to write it again."""
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(BadInput, match=r"b.jsonl: cannot be written .* itself is stored: add `--from eval_"):
        asyncio.run(write_baseline(runtime, echo(cases), tmp_path / "b.jsonl"))
    assert len(runtime.database.read_now(list_baselines("echo", 9))) == 1
    assert [file.name for file in tmp_path.glob(".b.jsonl*")] == []
