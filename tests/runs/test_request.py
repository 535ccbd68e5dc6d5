"""The validation of inputs and names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import ImageUrl
from pydantic_ai.messages import UserContent

from handrail import BadInput, RunRequest
from handrail.runs.request import MAX_INPUT_BYTES, validate_input, validate_name

PICTURE = ImageUrl("https://example.com/parcel.jpg")


def request_of(value: str | list[UserContent] | None) -> RunRequest:
    return RunRequest(run_id="r", agent="a", input=value, user="u", tenant="t", conversation_id="c")


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_text(text: str) -> None:
    """Text that is not blank is valid unchanged; blank text is not valid."""
    if text.strip():
        assert validate_input(text, may_be_empty=False) == text
    else:
        with pytest.raises(BadInput, match="empty"):
            validate_input(text, may_be_empty=False)


@given(before=st.text("ab", max_size=5), half=st.integers(0xD800, 0xDFFF).map(chr))
def test_a_lone_surrogate(before: str, half: str) -> None:
    """A lone surrogate raises BadInput with its position."""
    with pytest.raises(BadInput, match=f"at character {len(before)}"):
        validate_input(before + half + "after", may_be_empty=False)


@given(extra=st.integers(-3, 3), character=st.sampled_from("aé€😀"), parts=st.integers(1, 3))
def test_size(extra: int, character: str, parts: int) -> None:
    """The limit is on the bytes of all text parts together, inclusive."""
    width = len(character.encode())
    whole, rest = divmod(MAX_INPUT_BYTES + extra, width)
    value: list[UserContent] = [character * whole + "a" * rest]
    value += ["", *([""] * (parts - 1))]
    if extra <= 0:
        assert validate_input(value, may_be_empty=False) == value
    else:
        with pytest.raises(BadInput, match="the limit is 1,000,000"):
            validate_input(value, may_be_empty=False)


def test_size_over_parts() -> None:
    """Two texts that are too long only together raise BadInput."""
    with pytest.raises(BadInput, match="the limit"):
        validate_input(["a" * 600_000, "b" * 600_000], may_be_empty=False)


@pytest.mark.parametrize("value", [None, "", " \n", [], ["", " "]])
def test_empty(value: Any) -> None:
    """Empty input raises BadInput, except in a run that continues a conversation."""
    with pytest.raises(BadInput, match="empty"):
        validate_input(value, may_be_empty=False)
    assert validate_input(value, may_be_empty=True) == value


@pytest.mark.parametrize("value", [b"text", bytearray(b"text"), 7, {"text": "a"}])
def test_other_types(value: Any) -> None:
    """Bytes, and what is not a list of contents, raise BadInput."""
    with pytest.raises(BadInput, match="neither text nor a list"):
        validate_input(value, may_be_empty=False)


def test_an_image_alone() -> None:
    """An image without text is valid."""
    assert validate_input([PICTURE], may_be_empty=False) == [PICTURE]


def test_text_of_parts() -> None:
    """A request's text is its text parts, without images."""
    assert request_of(["See:", PICTURE, "broken"]).text == "See:\n\nbroken"
    assert request_of("plain").text == "plain"
    assert request_of(None).text == ""


@given(st.text(min_size=1, max_size=200))
def test_names(name: str) -> None:
    """A name is printable and not blank; any other text raises BadInput."""
    if name.isprintable() and name.strip():
        assert validate_name("user", name) == name
    else:
        with pytest.raises(BadInput, match="user:"):
            validate_name("user", name)


@pytest.mark.parametrize("name", ["", " ", "a" * 201, "a\nb", "\0", "\ud800", None, 17])
def test_bad_names(name: Any) -> None:
    """Empty and blank text, control characters, 201 characters and other types are not valid names."""
    with pytest.raises(BadInput, match=r"tenant: .* is not a valid name; use 1 to 200"):
        validate_name("tenant", name)
