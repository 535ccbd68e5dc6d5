"""The one stricter retry of a run."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_ai import ModelRetry

from handrail.fallback.retry import MAX_RETRIES, MalformedTwice, OneRetry, Rejection, stricter_instruction


class Order(BaseModel, extra="forbid"):
    number: int
    notes: dict[str, int] = {}


def rejected(value: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Order.model_validate(value)
    return caught.value


def test_the_first_malformed_answer_is_retried() -> None:
    """The first malformed answer gets the retry, with an instruction for it."""
    retry = OneRetry()
    rejection = Rejection("validate output", rejected({"number": "x"}))
    retry.check_left(rejection)
    assert retry.use(rejection).startswith("Your last answer was rejected")
    assert retry.used == 1


@given(st.lists(st.booleans(), max_size=20))
def test_success_does_not_reset_the_retry(validity: list[bool]) -> None:
    """The second malformed answer of a run is the last, with any number of valid ones in between."""
    retry, rejection = OneRetry(), Rejection("validate output", ModelRetry("no"))
    for index, valid in enumerate(validity):
        if valid:
            continue
        if validity[:index].count(False) < MAX_RETRIES:
            retry.use(rejection)
        else:
            with pytest.raises(MalformedTwice):
                retry.use(rejection)


def test_a_resumed_run() -> None:
    """A retry that was used before a run was resumed is not available after it."""
    with pytest.raises(MalformedTwice, match="validate find: no"):
        OneRetry(used=1).use(Rejection("validate find", ModelRetry("no")))


def test_the_reason_repeats_no_value() -> None:
    """The error says what was wrong with an answer, without the values that it had."""
    with pytest.raises(MalformedTwice, match="number: Input should be a valid integer") as caught:
        OneRetry(used=1).use(Rejection("validate output", rejected({"number": "a secret"})))
    assert "secret" not in str(caught.value)


@given(st.text(string.ascii_uppercase, min_size=12, max_size=40))
def test_the_instruction_repeats_no_text(text: str) -> None:
    """The instruction repeats nothing that a model or a user wrote."""
    malformed = [text, {"number": text}, {"number": 1, text: 2}, {"number": 1, "notes": {"x": text}}]
    errors = [rejected(value) for value in [*malformed, {"number": 1, "notes": {text: "x"}}]]
    assert not [
        error for error in [*errors, ModelRetry(text)] if text in stricter_instruction("validate output", error)
    ]


def test_error_types_are_named() -> None:
    """The instruction names the types of the errors and how many there are."""
    assert "2 x int_parsing" in stricter_instruction(
        "validate output", rejected({"number": "many", "notes": {"a": "few"}})
    )
