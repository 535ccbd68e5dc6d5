"""A baseline as a file: what it holds, what its diff shows, and the gate in a store that never saw its runs."""

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

from handrail import Answered, BadInput, GovernedAgent, Outcome, Runtime, govern
from handrail.evals import EvalSpec
from handrail.evals.compare.comparison import compare_eval_runs, look_closer
from handrail.evals.eval_set.model import freeze
from handrail.evals.gate.gate import NoBaseline, gate, set_baseline
from handrail.evals.gate.verdict_store import list_gates
from handrail.evals.scorers.base import Scorer, Seen
from handrail.evals.scorers.builtin import exact
from handrail.evals.scorers.score import Verdict
from handrail.evals.store.baseline_file import Carried, decode, encode, read_baseline, write_baseline
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
moments = counts.map(from_unix_ns)


@st.composite
def trials(draw: st.DrawFn, case_id: str, number: int) -> Trial:
    return Trial(
        case_id=case_id,
        trial=number,
        run_id=draw(texts),
        outcome=draw(texts),
        path=draw(st.none() | texts),
        verdict=Verdict(
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
def baselines(draw: st.DrawFn) -> Carried:
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
        at=draw(moments),
        trials=draw(st.integers(1, 32)),
        scored_by=scored_by,
    )
    ran: dict[str, Any] = {"cases": draw(counts), "started_at": draw(moments), "ended_at": draw(moments)}
    view = EvalRunView(**head, **run, **ran, scored_by=scored_by)
    made = tuple(draw(trials(case_id, number)) for case_id, number in keys)
    return Carried(path=FILE, baseline=baseline, view=view, trials=made)


def in_order(carried: Carried, order: list[str]) -> Carried:
    return replace(carried, trials=tuple(sorted(carried.trials, key=lambda t: (order.index(t.case_id), t.trial))))


@given(baselines(), st.randoms())
def test_a_file_holds_all_of_a_baseline(carried: Carried, random: Any) -> None:
    """What is read is what was written, its trials in the set's order; the same baseline makes the same bytes."""
    order = list(dict.fromkeys(each.case_id for each in carried.trials))
    random.shuffle(order)
    body = encode(carried, order)
    assert decode(FILE, body) == in_order(carried, order)
    assert body.count(b"\n") == len(carried.trials) + 2
    shuffled = random.sample(carried.trials, len(carried.trials))
    turned = [replace(each, observed=dict(reversed(each.observed.items()))) for each in shuffled]
    assert encode(replace(carried, trials=tuple(turned)), order) == body


class Hurried(VirtualClock):
    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=Hurried()) as opened:
        yield opened


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Runtime]:
    """A store that has no run of the first one's."""
    with sandbox(tmp_path, clock=Hurried(), store="elsewhere.db") as opened:
        opened.clock.advance(60)  # type: ignore[attr-defined]
        yield opened


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.yaml"
    rows = [f"  - {{id: {w}, input: {w}, expect: {{said: {w}}}, source: here, date: 2026-11-22}}\n" for w in WORDS]
    path.write_text("name: echo\ndescription: What comes back.\ncases:\n" + "".join(rows))
    freeze(path, "first", ON)
    return path


def echo(
    cases: Path, *wrong: str, prompt: str = "Echo.", name: str = "echo", scorers: tuple[Scorer, ...] = ()
) -> GovernedAgent[Any, str]:
    """An agent that says again what it hears, but for these words."""

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        heard = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
        return ModelResponse([TextPart("what?" if heard in wrong else heard)])

    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"), instructions=prompt)
    return govern(agent, name=name, trials=EvalSpec[Any, str](cases=cases, observe=observe, scorers=scorers))


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


def polite(_seen: Seen) -> bool:
    return True


async def written(runtime: Runtime, agent: GovernedAgent[Any, Any], path: Path, count: int = 1) -> Carried:
    """A baseline of the agent, in a file."""
    found = await set_baseline(runtime, agent, by="ann", trials=count)
    view, made = await runtime.database.read(lambda conn: load_eval_run(conn, found.eval_run_id))
    write_baseline(Carried(path=path, baseline=found, view=view, trials=tuple(made)), WORDS)
    return read_baseline(path)


async def test_a_diff_shows_what_changed(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """Of two baselines that differ in one case, the head, that case's line and the last line differ."""
    await written(runtime, echo(cases), tmp_path / "old")
    await written(runtime, echo(cases, "two", prompt="Say it."), tmp_path / "new")
    old, new = ((tmp_path / name).read_bytes().splitlines() for name in ("old", "new"))
    assert [json.loads(line).get("case") for line in new] == [None, *WORDS, None]
    assert [number for number, (a, b) in enumerate(zip(old, new, strict=True)) if a != b] == [0, 2, 4]


async def test_the_gate_where_no_baseline_is(runtime: Runtime, elsewhere: Runtime, cases: Path, tmp_path: Path) -> None:
    """The file alone is enough for a verdict, and its baseline is in the store then, once however often it is used."""
    carried = await written(runtime, echo(cases, "one"), tmp_path / "b.jsonl", 2)
    blocked = await gate(elsewhere, echo(cases, "one", "two"), carried=carried)
    passed = await gate(elsewhere, echo(cases, "one"), carried=read_baseline(tmp_path / "b.jsonl"))
    assert (blocked.verdict.passed, passed.verdict.passed) == (False, True)
    assert (blocked.verdict.newly_failing, blocked.verdict.baseline_trials) == (("two",), 2)
    assert blocked.baseline == carried.baseline
    assert await elsewhere.database.read(lambda conn: list_baselines(conn, "echo", 9)) == [carried.baseline]
    assert len(await elsewhere.database.read(lambda conn: list_eval_runs(conn, "echo", 9))) == 3
    gates = await elsewhere.database.read(lambda conn: list_gates(conn, "echo", 9))
    assert {each.baseline_id for each in gates} == {carried.baseline.baseline_id}


async def test_the_diff_with_runs_of_elsewhere(
    runtime: Runtime, elsewhere: Runtime, cases: Path, tmp_path: Path
) -> None:
    """A baseline from a file is compared by what was observed, all there is of it; steps and prompt are unknown."""
    carried = await written(runtime, echo(cases), tmp_path / "b.jsonl")
    gated = await gate(elsewhere, echo(cases, "two", prompt="Say it."), carried=carried)
    found = await compare_eval_runs(elsewhere, "baseline", "newest", "echo")
    assert found.before.eval_run_id == carried.view.eval_run_id
    assert found.agents == (carried.baseline.agent_hash, gated.agent_hash)
    assert (found.prompt, found.prompt_known) == ((), False)
    assert {each.case_id: set(each.changes) for each in found.diff.cases if each.changes} == {"two": {"newly-failing"}}
    close = await look_closer(elsewhere, next(each for each in found.diff.cases if each.case_id == "two"))
    assert [(each.kind, each.text) for each in close.output if each.kind != "same"] == [
        ("removed", "two"),
        ("added", "what?"),
    ]
    assert close.trajectory.pairs == ()


async def test_the_file_goes_before_the_store(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """The file's baseline is the one compared with, though the store has a newer one."""
    carried = await written(runtime, echo(cases), tmp_path / "b.jsonl")
    runtime.clock.advance(60)  # type: ignore[attr-defined]
    newer = await set_baseline(runtime, echo(cases, "one"), by="ben")
    worse = echo(cases, "one")
    assert (await gate(runtime, worse)).baseline == newer
    against = await gate(runtime, worse, carried=carried)
    assert (against.baseline, against.verdict.passed) == (carried.baseline, False)


async def test_what_a_file_cannot_be_compared_with(
    runtime: Runtime, elsewhere: Runtime, cases: Path, tmp_path: Path
) -> None:
    """Another agent, other scorers and another state of the set are refused before any trial, with the way out."""
    carried = await written(runtime, echo(cases), tmp_path / "b.jsonl")
    with pytest.raises(BadInput, match=r"b.jsonl: a baseline of agent echo, not of other; name the file of other"):
        await gate(elsewhere, echo(cases, name="other"), carried=carried)
    anew = r"run `handrail eval baseline echo --write \S*b.jsonl` with the agent as it is in production"
    with pytest.raises(NoBaseline, match=rf"\(changed since: exact, polite\); {anew}"):
        await gate(elsewhere, echo(cases, scorers=(exact(), polite)), carried=carried)
    change(cases)
    with pytest.raises(NoBaseline, match=rf"b.jsonl: the set has changed since this baseline of 2026-01-01 .*{anew}"):
        await gate(elsewhere, echo(cases), carried=carried)
    [view] = await elsewhere.database.read(lambda conn: list_eval_runs(conn, None, 9))
    assert view.eval_run_id == carried.view.eval_run_id


def change(cases: Path) -> None:
    """Another state of the set, frozen."""
    cases.write_text(cases.read_text().replace("said: two", "said: too"))
    freeze(cases, "another answer", ON)


def without(line: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[:line], *lines[line + 1 :]]


def swapped(line: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [each.replace(old, new) if at == line else each for at, each in enumerate(lines)]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda _lines: [], r"b.jsonl:1: not a baseline; `handrail eval baseline AGENT --write"),
        (lambda _lines: [b"name: echo"], r"b.jsonl:1: not a baseline"),
        (without(0), r"b.jsonl:1: not a baseline"),
        (lambda lines: lines[:1], r"b.jsonl:1: there are no trials after this line; restore the file"),
        (without(2), r"b.jsonl:4: its columns are not of 2 trials"),
        (without(4), r"b.jsonl:4: run_id: Field required"),
        (swapped(3, b'"case"', b'<<<<<<< "case"'), r"b.jsonl:4: Invalid JSON"),
        (swapped(2, b'"answered"', b"7"), r"b.jsonl:3: outcome: Input should be a valid string"),
        (swapped(2, b'"said": true', b'"said": false'), r"b.jsonl:3: value: 1.0 where its fields and scores make 0.0"),
        (swapped(3, b'"three"', b'"one"'), r"b.jsonl:4: trial 1 of case one stands on line 2 already"),
        (swapped(0, b'"by"', b'"buy"'), r"b.jsonl:1: by: Field required"),
        (swapped(0, b'baseline": 1', b'baseline": 2'), r"newer Handrail \(format 2, this one reads 1\); upgrade it"),
    ],
)
async def test_a_broken_file(runtime: Runtime, cases: Path, tmp_path: Path, broken: Any, said: str) -> None:
    """A file that is not as it was written is refused, with the line where that shows."""
    path = tmp_path / "b.jsonl"
    await written(runtime, echo(cases), path)
    path.write_bytes(b"".join(line + b"\n" for line in broken(path.read_bytes().splitlines())))
    with pytest.raises(BadInput, match=said):
        read_baseline(path)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is named, with the command that writes one."""
    with pytest.raises(BadInput, match=r"none.jsonl: cannot be read \(No such file .*`handrail eval baseline AGENT"):
        read_baseline(tmp_path / "none.jsonl")


def test_a_file_that_cannot_be_written(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """Nothing is lost where the file cannot be written: the baseline is in the store, and the message says how on."""
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(BadInput, match=r"b.jsonl: cannot be written .* is in the store: add `--from eval_"):
        asyncio.run(written(runtime, echo(cases), tmp_path / "b.jsonl"))
    assert len(runtime.database.read_now(lambda conn: list_baselines(conn, "echo", 9))) == 1
    assert [each.name for each in tmp_path.glob(".b.jsonl*")] == []
