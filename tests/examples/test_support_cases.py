"""The frozen eval set of support triage: its expectations follow from the policy and the order desk."""

from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import as_file, files
from typing import get_args

import pytest

from handrail import Answered, Facts, NanoUsd
from handrail.evals import ScorerContext
from handrail.evals.eval_set.lock import check_frozen, lock_path
from handrail.evals.eval_set.model import EvalSet, load_eval_set
from handrail.evals.scorers.score import score_trial
from handrail.examples import support_triage
from handrail.examples.support_triage.desk import Desk
from handrail.examples.support_triage.evals import support_evals
from handrail.examples.support_triage.refund_policy import refund_due
from handrail.examples.support_triage.rules import triage_by_rules
from handrail.examples.support_triage.seed import create_desk
from handrail.examples.support_triage.triage import Category, Triage

LANGUAGES = {
    "arabic", "dutch", "english", "french", "german", "italian", "japanese", "no-language", "polish", "portuguese",
    "spanish", "turkish",
}  # fmt: skip
PATHS = {"happy", "fallback", "human"}


@pytest.fixture(scope="module")
def support() -> Iterator[EvalSet]:
    with as_file(files(support_triage) / "evals") as folder:
        eval_set = load_eval_set(folder / "cases.yaml")
        check_frozen(eval_set, lock_path(folder / "cases.yaml"))
        yield eval_set


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with create_desk() as desk:
        yield desk


def test_every_expectation_is_a_complete_triage(support: EvalSet) -> None:
    """Each case expects exactly the four fields that are scored, with values the output type takes."""
    fields = set(Triage.model_fields) - {"reply"}
    for case in support.cases:
        assert set(case.expect) == fields, case.id
        Triage.model_validate({**case.expect, "reply": "x"}, strict=True)


def test_expected_orders_exist_and_are_in_the_message(support: EvalSet, desk: Desk) -> None:
    """An expected order exists and is in the message; a case without one names no existing order."""
    for case in support.cases:
        order = case.expect["order"]
        named = {number for number in _numbers(case.input) if desk.find_order(number)}
        assert order in named if order else not named, case.id


def test_expected_refunds_are_due(support: EvalSet, desk: Desk) -> None:
    """A refund is expected exactly if the desk's records, with the case's `faulty` tag, make it due."""
    for case in support.cases:
        order = desk.find_order(str(case.expect["order"]))
        due = order is not None and refund_due(order, desk.list_charges(order.number), faulty="faulty" in case.tags)
        assert case.expect["refund"] == due, case.id


def test_tags_agree_with_expectations(support: EvalSet) -> None:
    """A case has one language, one path, and refund and human tags that match what it expects."""
    for case in support.cases:
        tags = set(case.tags)
        assert len(tags & LANGUAGES) == 1, case.id
        assert len(tags & PATHS) == 1, case.id
        assert ("human" in tags) == case.expect["escalate"], case.id
        assert ("refund-due" in tags) == case.expect["refund"], case.id
        assert not tags & {"refund-demanded-not-due", "already-refunded"} or not case.expect["refund"], case.id


def test_the_coverage_of_the_set(support: EvalSet) -> None:
    """The set has 60 or more cases, 8 or more languages, every category, 7 injections and one message of 40 KB."""
    assert len(support.cases) >= 60
    assert len({tag for case in support.cases for tag in case.tags} & (LANGUAGES - {"no-language"})) >= 8
    assert {case.expect["category"] for case in support.cases} == set(get_args(Category))
    assert sum("injection" in case.tags for case in support.cases) >= 7
    assert [case.id for case in support.cases if len(case.input) > 40_000] == ["forwarded-thread-40kb"]


def test_the_rules_propose_no_refund_that_is_not_due(support: EvalSet, desk: Desk) -> None:
    """On the whole set, the rules propose a refund only where one is expected."""
    for case in support.cases:
        answer = triage_by_rules(case.input, desk)
        assert answer is None or case.expect["refund"] or not answer.refund, case.id


def _numbers(text: str) -> list[str]:
    return [word for word in "".join(c if c.isascii() and c.isdigit() else " " for c in text).split() if len(word) == 4]


async def test_a_refund_without_approval_fails_the_trial(support: EvalSet) -> None:
    """A refund that was made during a trial fails it, even if the answer is right."""
    spec = support_evals
    case = next(case for case in support.cases if case.expect["refund"])
    with create_desk() as desk:
        facts = Facts(run_id="run_1", trace_id="0" * 32, duration=timedelta())
        outcome = Answered(output=Triage.model_validate({**case.expect, "reply": "x"}), message="x", facts=facts)
        observed = spec.observe(outcome)
        context = ScorerContext(
            case=case, outcome=outcome, observed=observed, deps=desk, duration_ns=0, cost=NanoUsd(0)
        )
        assert (await score_trial(spec, context)).passed
        desk.refund(str(case.expect["order"]), 1, "billing", key="trial")
        score = await score_trial(spec, context)
    assert [name for name, passed in score.fields.items() if not passed] == ["nothing_refunded"]
