"""A case made from a production run: its content, what is refused, and recovery from a crash in between."""

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

from handrail import Answered, BadInput, GovernedAgent, NotFound, Outcome, Runtime, govern
from handrail.evals import EvalSpec
from handrail.evals.eval_set.lock import check_frozen, freeze, freeze_history, lock_path
from handrail.evals.eval_set.model import Case, EvalSet, load_eval_set
from handrail.evals.eval_set.yaml_writer import append_cases
from handrail.evals.from_production.from_run import AddedCase, ReviewedRun, add_case, case_from_run
from handrail.evals.runner.eval_run import run_evals
from handrail.kernel.ids import new_id
from handrail.review.feedback import Feedback, add_feedback, load_feedback
from handrail.testing import VirtualClock, sandbox
from tests.evals.test_eval_set import CASES

TODAY = dt.date(2026, 1, 1)
MESSAGE = "I paid twice.\n\n  Please check:\tit is order 1042\n"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as active:
        yield active


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen eval set of two cases, which expect category, order and refund."""
    path = tmp_path / "cases.yaml"
    path.write_text(CASES)
    freeze(path, "first", TODAY)
    return path


def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("delivery")])


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"category": outcome.output} if isinstance(outcome, Answered) else {}


def parcels_agent(name: str = "parcels") -> GovernedAgent[None, str]:
    return govern(Agent(FunctionModel(reply, model_name="sorter")), name=name)


def parcels(cases: Path) -> EvalSpec[None, str]:
    return EvalSpec(agent=parcels_agent(), cases=cases, observe=observe)


async def run_in_production(message: Any = MESSAGE) -> str:
    """Makes a production run with this input and returns its id."""
    return (await parcels_agent().run(message, user="u-1", tenant="acme")).facts.run_id


async def give_feedback(runtime: Runtime, run_id: str, expected: Mapping[str, Any] | None, **overrides: Any) -> str:
    """Stores feedback on a run and returns its id."""
    now = runtime.clock.now()
    fields = {"right": False, "note": None, "by": "ann", "tenant": "acme", **overrides}
    entry = Feedback(feedback_id=new_id("ver", now), run_id=run_id, expected=expected, at=now, **fields)
    await runtime.database.write(add_feedback(entry))
    return entry.feedback_id


async def add_to_set(runtime: Runtime, cases: Path, run_id: str, **overrides: Any) -> AddedCase:
    return await add_case(runtime, parcels(cases), run_id, **{"why": "seen in production", "by": "ben", **overrides})


async def case_ids_of(runtime: Runtime, run_id: str) -> list[str | None]:
    """The case that each feedback on a run became, or None."""
    return [entry.case_id for entry in await runtime.database.read(load_feedback(run_id))]


def is_unchanged(cases: Path) -> bool:
    check_frozen(load_eval_set(cases), lock_path(cases))
    return cases.read_text() == CASES


async def test_feedback_becomes_a_frozen_case(runtime: Runtime, cases: Path) -> None:
    """A run with feedback becomes the last case, with its input, expected fields and source, and is frozen."""
    run_id = await run_in_production()
    await give_feedback(runtime, run_id, {"category": "billing", "order": "1042"}, note="paid\ntwice")
    added = await add_to_set(runtime, cases, run_id)
    assert added.case == Case(
        id=f"run-{run_id[-8:]}",
        input=MESSAGE,
        expect={"category": "billing", "order": "1042"},
        source=f"production run {run_id}, marked wrong by ann on 2026-01-01: paid twice",
        date=TODAY,
        tags=("production",),
    )
    loaded = load_eval_set(cases)
    assert loaded.cases[2:] == (added.case,)
    check_frozen(loaded, lock_path(cases))
    assert added.frozen.diff.added == (added.case.id,)
    assert await case_ids_of(runtime, run_id) == [added.case.id]


async def test_the_new_case_is_in_the_next_eval_run(runtime: Runtime, cases: Path) -> None:
    """The next eval run has a trial of the new case."""
    run_id = await run_in_production()
    await give_feedback(runtime, run_id, {"category": "delivery"})
    added = await add_to_set(runtime, cases, run_id)
    report = await run_evals(runtime, parcels(cases))
    assert [(trial.case_id, trial.score.passed) for trial in report.trials][2:] == [(added.case.id, True)]


async def test_without_feedback(runtime: Runtime, cases: Path) -> None:
    """Without feedback on the run, the caller gives the expected fields and is named in the source."""
    run_id = await run_in_production()
    added = await add_to_set(runtime, cases, run_id, expected={"refund": True}, case_id="paid-twice")
    assert added.case.source == f"production run {run_id}, judged by ben on 2026-01-01"
    assert (added.case.id, added.case.expect) == ("paid-twice", {"refund": True})


async def test_feedback_that_is_only_right(runtime: Runtime, cases: Path) -> None:
    """Feedback that only says right has no fields: the caller gives them, and the source names the reviewer."""
    run_id = await run_in_production()
    await give_feedback(runtime, run_id, None, right=True)
    with pytest.raises(BadInput, match=r"nobody has said yet .* --expected FIELD=VALUE.* category, order, refund"):
        await add_to_set(runtime, cases, run_id)
    assert is_unchanged(cases)
    added = await add_to_set(runtime, cases, run_id, expected={"category": "delivery"})
    assert added.case.source.endswith("marked right by ann on 2026-01-01")
    assert await case_ids_of(runtime, run_id) == [added.case.id]


async def test_the_newest_feedback_counts(runtime: Runtime, cases: Path, clock: VirtualClock) -> None:
    """Of several pieces of feedback only the newest is used, and only it is marked as used."""
    run_id = await run_in_production()
    await give_feedback(runtime, run_id, {"category": "billing"})
    clock.advance(60)
    await give_feedback(runtime, run_id, {"category": "other"}, by="cleo")
    added = await add_to_set(runtime, cases, run_id)
    assert added.case.expect == {"category": "other"}
    assert "by cleo" in added.case.source
    assert set(await case_ids_of(runtime, run_id)) == {None, added.case.id}


async def test_conflicting_expectations(runtime: Runtime, cases: Path) -> None:
    """If the feedback and the caller disagree, no case is added."""
    run_id = await run_in_production()
    await give_feedback(runtime, run_id, {"category": "billing"})
    with pytest.raises(BadInput, match="ann already said"):
        await add_to_set(runtime, cases, run_id, expected={"category": "other"})
    assert is_unchanged(cases)
    assert (await add_to_set(runtime, cases, run_id, expected={"category": "billing"})).case.expect == {
        "category": "billing"
    }


@pytest.mark.parametrize("has_feedback", [True, False])
async def test_a_run_becomes_one_case_only(runtime: Runtime, cases: Path, has_feedback: bool) -> None:
    """A run that is already a case is refused, naming the case, even after new feedback; the set is unchanged."""
    run_id = await run_in_production()
    expected = {"category": "billing"}
    if has_feedback:
        await give_feedback(runtime, run_id, expected)
    added = await add_to_set(runtime, cases, run_id, expected=expected, case_id="paid-twice")
    before = texts(cases)
    for repeated in (expected, {"category": "other"}, None):
        with pytest.raises(BadInput, match=rf"{run_id} is already case paid-twice of parcels"):
            await add_to_set(runtime, cases, run_id, expected=None if has_feedback else repeated)
    await give_feedback(runtime, run_id, {"category": "other"}, by="cleo")
    with pytest.raises(BadInput, match=r"is already case paid-twice of parcels"):
        await add_to_set(runtime, cases, run_id)
    assert texts(cases) == before
    assert added.case in load_eval_set(cases).cases


def texts(cases: Path) -> tuple[str, str]:
    return cases.read_text(), lock_path(cases).read_text()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("has_feedback", [True, False])
async def test_recovery_from_a_crash(
    runtime: Runtime, cases: Path, clock: VirtualClock, has_feedback: bool, frozen: bool
) -> None:
    """If a crash left the case unfrozen or its feedback unmarked, the same call completes the work, once."""
    run_id, expected = await run_in_production(), {"category": "billing"}
    if has_feedback:
        await give_feedback(runtime, run_id, expected)
    case = case_from_run(
        load_eval_set(cases), reviewed_run(run_id, right=False if has_feedback else None), TODAY, case_id="paid-twice"
    )
    append_cases(cases, case)
    if frozen:
        freeze(cases, "seen in production", TODAY)
    clock.advance(3 * 86_400)
    if frozen and not has_feedback:
        with pytest.raises(BadInput, match="is already case paid-twice of parcels"):
            await add_to_set(runtime, cases, run_id, expected=expected, case_id="paid-twice")
        return
    completed = await add_to_set(runtime, cases, run_id, expected=expected, case_id="paid-twice")
    assert completed.case == case
    assert load_eval_set(cases).cases[2:] == (case,)
    check_frozen(load_eval_set(cases), lock_path(cases))
    assert await case_ids_of(runtime, run_id) == ["paid-twice"] * has_feedback


def reviewed_run(run_id: str = "run_01kabcdefgh", **overrides: Any) -> ReviewedRun:
    by = "ben" if overrides.get("right", 0) is None else "ann"
    fields = {
        "input": MESSAGE,
        "right": False,
        "expected": {"category": "billing"},
        "by": by,
        "reviewed_on": TODAY,
        **overrides,
    }
    return ReviewedRun(run_id=run_id, **fields)


async def test_concurrent_additions(runtime: Runtime, cases: Path) -> None:
    """Runs added concurrently each become one case, frozen separately with its own reason."""
    runs = [await run_in_production(f"where is {number}?") for number in range(12)]
    adding = (
        add_to_set(runtime, cases, run_id, expected={"refund": True}, case_id=f"c{n}", why=run_id)
        for n, run_id in enumerate(runs)
    )
    added = await asyncio.gather(*adding)
    loaded = load_eval_set(cases)
    assert sorted(case.id for case in loaded.cases[2:]) == sorted(f"c{number}" for number in range(12))
    assert all(result.case in loaded.cases for result in added)
    check_frozen(loaded, lock_path(cases))
    frozen = {change.why: change.added for change in freeze_history(cases)[1:]}
    assert frozen == {run_id: (f"c{number}",) for number, run_id in enumerate(runs)}


async def test_an_unfrozen_set_is_refused(runtime: Runtime, cases: Path) -> None:
    """Other changes that are not frozen yet are not frozen along with the case."""
    run_id = await run_in_production()
    rewrite(cases)
    before = texts(cases)
    with pytest.raises(BadInput, match="changed: late"):
        await add_to_set(runtime, cases, run_id, expected={"category": "billing"})
    assert texts(cases) == before


def rewrite(cases: Path) -> None:
    cases.write_text(CASES.replace("refund: true", "refund: false"))


async def test_runs_that_cannot_become_cases(runtime: Runtime, cases: Path) -> None:
    """An unknown run, a trial, another agent's run, or an input with an image cannot become a case."""
    expected = {"category": "billing"}
    with pytest.raises(NotFound, match="runs list"):
        await add_to_set(runtime, cases, "run_9", expected=expected)
    trial = (await run_evals(runtime, parcels(cases))).trials[0]
    with pytest.raises(BadInput, match="is a trial of an eval set"):
        await add_to_set(runtime, cases, trial.run_id, expected=expected)
    other = (await parcels_agent("other").run("hello", user="u-1")).facts.run_id
    with pytest.raises(BadInput, match="is of agent other"):
        await add_to_set(runtime, cases, other, expected=expected)
    picture = await run_in_production(["what is this?", ImageUrl("https://example.com/a.png")])
    with pytest.raises(BadInput, match="its input is not plain text"):
        await add_to_set(runtime, cases, picture, expected=expected)
    assert is_unchanged(cases)


async def test_a_freeze_needs_its_reason(runtime: Runtime, cases: Path) -> None:
    """Without a reason nothing is written, neither the case nor the lock."""
    run_id = await run_in_production()
    with pytest.raises(BadInput, match="--why"):
        await add_to_set(runtime, cases, run_id, expected={"category": "billing"}, why=" ")
    assert is_unchanged(cases)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({}, "nobody has said yet"),
        ({"catgory": "billing"}, r"no case of parcels expects 'catgory'; did you mean category\?"),
        ({"weather": "fine"}, "no case of parcels expects 'weather'; its cases expect category, order, refund"),
        ({"order": 1042}, r"order is a whole number here but text in .*--expected 'order=\"1042\"'"),
        ({"refund": "yes"}, "refund is text here but true or false in"),
        ({"refund": 1}, "refund is a whole number here"),
        ({"category": ["billing"]}, "category is a list here"),
    ],
)
def test_unexpected_fields_and_types(tmp_path: Path, expected: dict[str, JsonValue], message: str) -> None:
    """A field or type that no case of the set expects is refused; the message has the closest field."""
    with pytest.raises(BadInput, match=message):
        case_from_run(parcel_set(tmp_path), reviewed_run(expected=expected), TODAY)


def test_null_fits_every_field(tmp_path: Path) -> None:
    """Null may be expected of a field for which other cases expect a value."""
    case = case_from_run(parcel_set(tmp_path), reviewed_run(expected={"order": None, "category": None}), TODAY)
    assert case.expect == {"order": None, "category": None}


@pytest.mark.parametrize(
    ("case_id", "message"),
    [("late", "case id late: already used in parcels"), ("Paid twice!", "cannot become a case: id: ")],
)
def test_invalid_ids(tmp_path: Path, case_id: str, message: str) -> None:
    """An id that is in use or not valid is refused."""
    with pytest.raises(BadInput, match=message):
        case_from_run(parcel_set(tmp_path), reviewed_run(), TODAY, case_id=case_id)


@given(st.integers(0, 4))
def test_unique_ids(tmp_path_factory: pytest.TempPathFactory, others: int) -> None:
    """However many runs end in the same eight characters, each case gets a unique id."""
    loaded = parcel_set(tmp_path_factory.mktemp("set"))
    for _ in range(others):
        loaded = loaded.model_copy(update={"cases": (*loaded.cases, case_from_run(loaded, reviewed_run(), TODAY))})
    case = case_from_run(loaded, reviewed_run(), TODAY)
    assert case.id == ("run-abcdefgh" if others == 0 else f"run-abcdefgh-{others + 1}")


def parcel_set(folder: Path) -> EvalSet:
    path = folder / "cases.yaml"
    path.write_text(CASES)
    return load_eval_set(path)
