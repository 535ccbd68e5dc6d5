"""One stricter retry in a run."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_ai import ModelRetry

from handrail.fallback.retry import MAX_RETRIES, MalformedTwice, OneRetry, stricter


class Order(BaseModel, extra="forbid"):
    number: int
    notes: dict[str, int] = {}


def rejected(given_: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Order.model_validate(given_)
    return caught.value


def test_the_first_is_tried_again() -> None:
    """The first malformed work gets an instruction, which is given out once."""
    retry = OneRetry()
    retry.malformed("validate output", rejected({"number": "x"}))
    assert (retry.take() or "").startswith("Your last answer was rejected")
    assert retry.take() is None


@given(st.lists(st.booleans(), max_size=20))
def test_success_does_not_renew_it(works: list[bool]) -> None:
    """However good and bad work alternate, the second bad one of a run is the last."""
    retry = OneRetry()
    for bad_before, good in enumerate(works):
        if good:
            retry.take()
        elif works[:bad_before].count(False) < MAX_RETRIES:
            retry.malformed("validate output", ModelRetry("no"))
        else:
            with pytest.raises(MalformedTwice):
                retry.malformed("validate output", ModelRetry("no"))


def test_a_run_carried_on_has_no_more_than_was_left() -> None:
    """Where the second try was spent before a run was carried on, there is none after it."""
    with pytest.raises(MalformedTwice, match="validate find: no"):
        OneRetry(used=1).malformed("validate find", ModelRetry("no"))


@given(st.text(string.ascii_uppercase, min_size=12, max_size=40))
def test_nobodys_words_become_instructions(said: str) -> None:
    """What a model or a user wrote is not repeated in the instruction, wherever it stands in the work."""
    wrong = [said, {"number": said}, {"number": 1, said: 2}, {"number": 1, "notes": {"x": said}}]
    errors = [rejected(each) for each in [*wrong, {"number": 1, "notes": {said: "x"}}]]
    assert not [error for error in [*errors, ModelRetry(said)] if said in stricter("validate output", error)]


def test_the_kinds_are_named() -> None:
    """The instruction names what kinds of mistakes there were."""
    assert "2 x int_parsing" in stricter("validate output", rejected({"number": "many", "notes": {"a": "few"}}))
