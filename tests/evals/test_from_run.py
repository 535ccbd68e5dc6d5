"""A case made of a production run: what it holds, what is refused, and that a crash on the way is made good."""

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.evals.test_dataset import CASES

from handrail import Answered, BadInput, GovernedAgent, NotFound, Outcome, Runtime, govern
from handrail.evals import EvalSpec
from handrail.evals.eval_set.model import Case, EvalSet, check_frozen, freeze, history, load_set, lock_path
from handrail.evals.eval_set.yaml_writer import append_case
from handrail.evals.from_production.from_run import Grown, Judged, add_case, case_from_run
from handrail.evals.runner.eval_run import run_evals
from handrail.kernel.ids import new_id
from handrail.review.feedback import Verdict, give_verdict, verdicts_of
from handrail.testing import VirtualClock, sandbox

TODAY = dt.date(2026, 1, 1)
ASKED = "I paid twice.\n\n  Please look:\tit is order 1042\n"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """The frozen set of two parcels: it expects category, order and refund."""
    path = tmp_path / "cases.yaml"
    path.write_text(CASES)
    freeze(path, "first", TODAY)
    return path


def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("delivery")])


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"category": outcome.output} if isinstance(outcome, Answered) else {}


def parcels(cases: Path | None, name: str = "parcels") -> GovernedAgent[None, str]:
    trials = None if cases is None else EvalSpec[None, str](cases=cases, observe=observe)
    return govern(Agent(FunctionModel(reply, model_name="sorter")), name=name, trials=trials)


async def ran(cases: Path, asked: Any = ASKED) -> str:
    """The id of a run that asked this in production."""
    return (await parcels(cases).run(asked, user="u-1", tenant="acme")).facts.run_id


async def marked(runtime: Runtime, run_id: str, should: Mapping[str, Any] | None, **changed: Any) -> str:
    """The id of Ann's verdict on a run."""
    now = runtime.clock.now()
    fields = {"right": False, "note": None, "by": "ann", "tenant": "acme", **changed}
    verdict = Verdict(verdict_id=new_id("ver", now), run_id=run_id, should=should, at=now, **fields)
    await runtime.database.write(give_verdict(verdict))
    return verdict.verdict_id


async def grown(runtime: Runtime, cases: Path, run_id: str, **given: Any) -> Grown:
    return await add_case(runtime, parcels(cases), run_id, **{"why": "seen in production", "by": "ben", **given})


async def used_in(runtime: Runtime, run_id: str) -> list[str | None]:
    """The cases that the run's verdicts went into."""
    return [each.case_id for each in await runtime.database.read(lambda conn: verdicts_of(conn, run_id))]


def is_as_before(cases: Path) -> bool:
    check_frozen(load_set(cases), lock_path(cases))
    return cases.read_text() == CASES


async def test_a_verdict_becomes_a_frozen_case(runtime: Runtime, cases: Path) -> None:
    """A run marked wrong is the newest case, with its input, what is right and who said so, and the set is frozen."""
    run_id = await ran(cases)
    await marked(runtime, run_id, {"category": "billing", "order": "1042"}, note="paid\ntwice")
    made = await grown(runtime, cases, run_id)
    assert made.case == Case(
        id=f"run-{run_id[-8:]}",
        input=ASKED,
        expect={"category": "billing", "order": "1042"},
        source=f"production run {run_id}, marked wrong by ann on 2026-01-01: paid twice",
        date=TODAY,
        tags=("production",),
    )
    loaded = load_set(cases)
    assert loaded.cases[2:] == (made.case,)
    check_frozen(loaded, lock_path(cases))
    assert made.frozen.difference.added == (made.case.id,)
    assert await used_in(runtime, run_id) == [made.case.id]


async def test_the_case_is_tried_like_any_other(runtime: Runtime, cases: Path) -> None:
    """The next eval run has a trial of the case, on the user's very words."""
    run_id = await ran(cases)
    await marked(runtime, run_id, {"category": "delivery"})
    made = await grown(runtime, cases, run_id)
    report = await run_evals(runtime, parcels(cases))
    assert [(trial.case_id, trial.verdict.passed) for trial in report.trials][2:] == [(made.case.id, True)]


async def test_without_a_verdict(runtime: Runtime, cases: Path) -> None:
    """Where nobody has marked the run, what it should have been is what the caller says, under their name."""
    run_id = await ran(cases)
    made = await grown(runtime, cases, run_id, should={"refund": True}, case_id="paid-twice")
    assert made.case.source == f"production run {run_id}, judged by ben on 2026-01-01"
    assert (made.case.id, made.case.expect) == ("paid-twice", {"refund": True})


async def test_right_needs_words(runtime: Runtime, cases: Path) -> None:
    """A run marked right says not what is right of it: that has to be given, and is then marked by who marked it."""
    run_id = await ran(cases)
    await marked(runtime, run_id, None, right=True)
    with pytest.raises(BadInput, match=r"nobody said yet .* --should FIELD=VALUE .* category, order, refund"):
        await grown(runtime, cases, run_id)
    assert is_as_before(cases)
    made = await grown(runtime, cases, run_id, should={"category": "delivery"})
    assert made.case.source.endswith("marked right by ann on 2026-01-01")
    assert await used_in(runtime, run_id) == [made.case.id]


async def test_the_newest_verdict_counts(runtime: Runtime, cases: Path, clock: VirtualClock) -> None:
    """Of several verdicts the newest says what is right, and it alone is told of the case."""
    run_id = await ran(cases)
    await marked(runtime, run_id, {"category": "billing"})
    clock.advance(60)
    await marked(runtime, run_id, {"category": "other"}, by="cleo")
    made = await grown(runtime, cases, run_id)
    assert made.case.expect == {"category": "other"}
    assert "by cleo" in made.case.source
    assert set(await used_in(runtime, run_id)) == {None, made.case.id}


async def test_two_opinions_are_not_mixed(runtime: Runtime, cases: Path) -> None:
    """What a verdict says and what the caller says differ: nothing is made of them."""
    run_id = await ran(cases)
    await marked(runtime, run_id, {"category": "billing"})
    with pytest.raises(BadInput, match="ann said already"):
        await grown(runtime, cases, run_id, should={"category": "other"})
    assert is_as_before(cases)
    assert (await grown(runtime, cases, run_id, should={"category": "billing"})).case.expect == {"category": "billing"}


@pytest.mark.parametrize("verdict", [True, False])
async def test_a_run_is_one_case(runtime: Runtime, cases: Path, verdict: bool) -> None:
    """A run that is a case already is refused by the case's name, also after a new verdict, and the set stays."""
    run_id = await ran(cases)
    should = {"category": "billing"}
    if verdict:
        await marked(runtime, run_id, should)
    made = await grown(runtime, cases, run_id, should=should, case_id="paid-twice")
    before = texts(cases)
    for again in (should, {"category": "other"}, None):
        with pytest.raises(BadInput, match=rf"{run_id} is case paid-twice of parcels already"):
            await grown(runtime, cases, run_id, should=None if verdict else again)
    await marked(runtime, run_id, {"category": "other"}, by="cleo")
    with pytest.raises(BadInput, match=r"is case paid-twice of parcels already"):
        await grown(runtime, cases, run_id)
    assert texts(cases) == before
    assert made.case in load_set(cases).cases


def texts(cases: Path) -> tuple[str, str]:
    return cases.read_text(), lock_path(cases).read_text()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("verdict", [True, False])
async def test_a_crash_is_made_good(
    runtime: Runtime, cases: Path, clock: VirtualClock, verdict: bool, frozen: bool
) -> None:
    """Where a crash left the case unfrozen, or its verdict untold, the same call again does what is left, once."""
    run_id, should = await ran(cases), {"category": "billing"}
    if verdict:
        await marked(runtime, run_id, should)
    made = case_from_run(load_set(cases), judged(run_id, right=False if verdict else None), TODAY, case_id="paid-twice")
    append_case(cases, made)
    if frozen:
        freeze(cases, "seen in production", TODAY)
    clock.advance(3 * 86_400)
    if frozen and not verdict:
        with pytest.raises(BadInput, match="is case paid-twice of parcels already"):
            await grown(runtime, cases, run_id, should=should, case_id="paid-twice")
        return
    completed = await grown(runtime, cases, run_id, should=should, case_id="paid-twice")
    assert completed.case == made
    assert load_set(cases).cases[2:] == (made,)
    check_frozen(load_set(cases), lock_path(cases))
    assert await used_in(runtime, run_id) == ["paid-twice"] * verdict


def judged(run_id: str = "run_01kabcdefgh", **changed: Any) -> Judged:
    by = "ben" if changed.get("right", 0) is None else "ann"
    fields = {"asked": ASKED, "right": False, "should": {"category": "billing"}, "by": by, "on": TODAY, **changed}
    return Judged(run_id=run_id, **fields)


async def test_several_runs_at_once(runtime: Runtime, cases: Path) -> None:
    """Of runs that are made cases side by side each is one, frozen by itself under its own reason."""
    runs = [await ran(cases, f"where is {number}?") for number in range(12)]
    adding = (
        grown(runtime, cases, each, should={"refund": True}, case_id=f"c{n}", why=each) for n, each in enumerate(runs)
    )
    made = await asyncio.gather(*adding)
    loaded = load_set(cases)
    assert sorted(each.id for each in loaded.cases[2:]) == sorted(f"c{number}" for number in range(12))
    assert all(each.case in loaded.cases for each in made)
    check_frozen(loaded, lock_path(cases))
    frozen = {change.why: change.added for change in history(cases)[1:]}
    assert frozen == {each: (f"c{number}",) for number, each in enumerate(runs)}


async def test_an_unfrozen_set_does_not_grow(runtime: Runtime, cases: Path) -> None:
    """Changes that nobody has frozen are not frozen in passing."""
    run_id = await ran(cases)
    rewrite(cases)
    before = texts(cases)
    with pytest.raises(BadInput, match="changed: late"):
        await grown(runtime, cases, run_id, should={"category": "billing"})
    assert texts(cases) == before


def rewrite(cases: Path) -> None:
    cases.write_text(CASES.replace("refund: true", "refund: false"))


async def test_runs_that_make_no_case(runtime: Runtime, cases: Path) -> None:
    """A run that is unknown, a trial's or another agent's makes no case, nor does an input with a picture in it."""
    should = {"category": "billing"}
    with pytest.raises(NotFound, match="runs list"):
        await grown(runtime, cases, "run_9", should=should)
    trial = (await run_evals(runtime, parcels(cases))).trials[0]
    with pytest.raises(BadInput, match="is a trial of an eval set"):
        await grown(runtime, cases, trial.run_id, should=should)
    other = (await parcels(None, "other").run("hello", user="u-1")).facts.run_id
    with pytest.raises(BadInput, match="is of agent other"):
        await grown(runtime, cases, other, should=should)
    picture = await ran(cases, ["what is this?", ImageUrl("https://example.com/a.png")])
    with pytest.raises(BadInput, match="its input is not text only"):
        await grown(runtime, cases, picture, should=should)
    assert is_as_before(cases)


async def test_an_agent_without_a_set(runtime: Runtime, cases: Path) -> None:
    """An agent without an eval set is refused with the way to give it one."""
    with pytest.raises(BadInput, match=r"EvalSpec\(cases="):
        await add_case(runtime, parcels(None), await ran(cases), why="seen", by="ben")


async def test_a_freeze_needs_its_reason(runtime: Runtime, cases: Path) -> None:
    """Without a reason nothing is written, neither the case nor the lock."""
    run_id = await ran(cases)
    with pytest.raises(BadInput, match="--why"):
        await grown(runtime, cases, run_id, should={"category": "billing"}, why=" ")
    assert is_as_before(cases)


@pytest.mark.parametrize(
    ("should", "says"),
    [
        ({}, "nobody said yet"),
        ({"catgory": "billing"}, r"no case of parcels expects 'catgory'; did you mean category\?"),
        ({"weather": "fine"}, "no case of parcels expects 'weather'; they expect category, order, refund"),
        ({"order": 1042}, r"order is a whole number here, and text in .*--should 'order=\"1042\"'"),
        ({"refund": "yes"}, "refund is text here, and true or false in"),
        ({"refund": 1}, "refund is a whole number here"),
        ({"category": ["billing"]}, "category is a list here"),
    ],
)
def test_what_no_answer_could_match(tmp_path: Path, should: dict[str, JsonValue], says: str) -> None:
    """A field, or a kind of value, that no case of the set expects is refused with the nearest that is expected."""
    with pytest.raises(BadInput, match=says):
        case_from_run(parcel_set(tmp_path), judged(should=should), TODAY)


def test_null_may_stand_for_anything(tmp_path: Path) -> None:
    """Nothing can be right where others expect something."""
    made = case_from_run(parcel_set(tmp_path), judged(should={"order": None, "category": None}), TODAY)
    assert made.expect == {"order": None, "category": None}


@pytest.mark.parametrize(
    ("case_id", "says"), [("late", "case id late: taken in parcels"), ("Paid twice!", "makes no case: id: ")]
)
def test_ids_that_cannot_be(tmp_path: Path, case_id: str, says: str) -> None:
    """An id that is taken or is no name is refused."""
    with pytest.raises(BadInput, match=says):
        case_from_run(parcel_set(tmp_path), judged(), TODAY, case_id=case_id)


@given(st.integers(0, 4))
def test_an_id_of_its_own(tmp_path_factory: pytest.TempPathFactory, others: int) -> None:
    """However many cases end in the same eight characters, each gets an id of its own."""
    loaded = parcel_set(tmp_path_factory.mktemp("set"))
    for _ in range(others):
        loaded = loaded.model_copy(update={"cases": (*loaded.cases, case_from_run(loaded, judged(), TODAY))})
    made = case_from_run(loaded, judged(), TODAY)
    assert made.id == ("run-abcdefgh" if others == 0 else f"run-abcdefgh-{others + 1}")


def parcel_set(folder: Path) -> EvalSet:
    path = folder / "cases.yaml"
    path.write_text(CASES)
    return load_set(path)
