"""The frozen set of support triage: its expectations follow from the policy and the desk, and nothing has drifted."""

from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import as_file, files
from typing import get_args

import pytest

from handrail import Answered, Facts, NanoUsd
from handrail.evals import Seen
from handrail.evals.eval_set.model import EvalSet, check_frozen, load_set, lock_path
from handrail.evals.scorers.score import verdict_of
from handrail.examples import support_triage
from handrail.examples.support_triage.desk import Desk
from handrail.examples.support_triage.due import refund_due
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
        loaded = load_set(folder / "cases.yaml")
        check_frozen(loaded, lock_path(folder / "cases.yaml"))
        yield loaded


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


def test_expected_orders_are_on_the_desk_and_in_the_message(support: EvalSet, desk: Desk) -> None:
    """An expected order exists and the customer names it; a case without one names none that exists."""
    for case in support.cases:
        order = case.expect["order"]
        named = {n for n in _numbers(case.input) if desk.find_order(n)}
        assert order in named if order else not named, case.id


def test_expected_refunds_are_what_the_desk_makes_due(support: EvalSet, desk: Desk) -> None:
    """A refund is expected exactly where the desk's facts, with the declared fault, make it due."""
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


def test_the_set_covers_what_customers_send(support: EvalSet) -> None:
    """At least 60 cases in 8 languages, every category, seven injections, and one message of 40 KB."""
    assert len(support.cases) >= 60
    assert len({tag for case in support.cases for tag in case.tags} & (LANGUAGES - {"no-language"})) >= 8
    assert {case.expect["category"] for case in support.cases} == set(get_args(Category))
    assert sum("injection" in case.tags for case in support.cases) >= 7
    assert [case.id for case in support.cases if len(case.input) > 40_000] == ["forwarded-thread-40kb"]


def test_the_rules_propose_no_refund_that_is_not_due(support: EvalSet, desk: Desk) -> None:
    """On the whole set, demands, tricks and injections get no undue refund out of the rules."""
    for case in support.cases:
        answer = triage_by_rules(case.input, desk)
        assert answer is None or case.expect["refund"] or not answer.refund, case.id


def _numbers(text: str) -> list[str]:
    return [word for word in "".join(c if c.isascii() and c.isdigit() else " " for c in text).split() if len(word) == 4]


async def test_a_refund_without_approval_fails_the_trial(support: EvalSet) -> None:
    """The set's scorers look at the desk afterwards: a refund fails the trial, however right the answer sounds."""
    spec = support_triage.agent.trials
    assert spec is not None
    case = next(case for case in support.cases if case.expect["refund"])
    with create_desk() as desk:
        facts = Facts(run_id="run_1", trace_id="0" * 32, duration=timedelta())
        outcome = Answered(output=Triage.model_validate({**case.expect, "reply": "x"}), message="x", facts=facts)
        observed = spec.observe(outcome)
        seen = Seen(case=case, outcome=outcome, observed=observed, deps=desk, duration_ns=0, cost=NanoUsd(0))
        assert (await verdict_of(spec, seen)).passed
        desk.refund(str(case.expect["order"]), 1, "billing", key="trial")
        verdict = await verdict_of(spec, seen)
    assert [name for name, held in verdict.fields.items() if not held] == ["nothing_refunded"]
