"""What may be asked, and in whose name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import ImageUrl
from pydantic_ai.messages import UserContent

from handrail import BadInput, RunRequest
from handrail.runs.request import MAX_INPUT_BYTES, checked_input, checked_name

PICTURE = ImageUrl("https://example.com/parcel.jpg")


def asked(found: str | list[UserContent] | None) -> RunRequest:
    return RunRequest(run_id="r", agent="a", input=found, user="u", tenant="t", conversation_id="c")


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_text(text: str) -> None:
    """Text with anything but blanks in it is an input as it is; blank text is none."""
    if text.strip():
        assert checked_input(text, may_be_empty=False) == text
    else:
        with pytest.raises(BadInput, match="empty"):
            checked_input(text, may_be_empty=False)


@given(before=st.text("ab", max_size=5), half=st.integers(0xD800, 0xDFFF).map(chr))
def test_half_a_character(before: str, half: str) -> None:
    """Half a surrogate pair is refused with the place where it stands."""
    with pytest.raises(BadInput, match=f"at character {len(before)}"):
        checked_input(before + half + "after", may_be_empty=False)


@given(extra=st.integers(-3, 3), character=st.sampled_from("aé€😀"), parts=st.integers(1, 3))
def test_size(extra: int, character: str, parts: int) -> None:
    """The limit is on the bytes of all text parts together, and the limit itself is allowed."""
    width = len(character.encode())
    whole, rest = divmod(MAX_INPUT_BYTES + extra, width)
    found: list[UserContent] = [character * whole + "a" * rest]
    found += ["", *([""] * (parts - 1))]
    if extra <= 0:
        assert checked_input(found, may_be_empty=False) == found
    else:
        with pytest.raises(BadInput, match="the limit is 1,000,000"):
            checked_input(found, may_be_empty=False)


def test_size_over_parts() -> None:
    """Two texts that are too long only together are refused."""
    with pytest.raises(BadInput, match="the limit"):
        checked_input(["a" * 600_000, "b" * 600_000], may_be_empty=False)


@pytest.mark.parametrize("found", [None, "", " \n", [], ["", " "]])
def test_empty(found: Any) -> None:
    """An input without content is refused, except in a run that continues a conversation."""
    with pytest.raises(BadInput, match="empty"):
        checked_input(found, may_be_empty=False)
    assert checked_input(found, may_be_empty=True) == found


@pytest.mark.parametrize("found", [b"text", bytearray(b"text"), 7, {"text": "a"}])
def test_other_types(found: Any) -> None:
    """Bytes and things that are no list of contents are refused before anything runs."""
    with pytest.raises(BadInput, match="neither text nor a list"):
        checked_input(found, may_be_empty=False)


def test_a_picture_alone() -> None:
    """A picture without words is an input."""
    assert checked_input([PICTURE], may_be_empty=False) == [PICTURE]


def test_text_of_parts() -> None:
    """A request's text is its text parts, pictures left out."""
    assert asked(["Look:", PICTURE, "broken"]).text == "Look:\n\nbroken"
    assert asked("plain").text == "plain"
    assert asked(None).text == ""


@given(st.text(min_size=1, max_size=200))
def test_names(name: str) -> None:
    """A name is printable and more than blanks; every other text is refused."""
    if name.isprintable() and name.strip():
        assert checked_name("user", name) == name
    else:
        with pytest.raises(BadInput, match="user:"):
            checked_name("user", name)


@pytest.mark.parametrize("name", ["", " ", "a" * 201, "a\nb", "\0", "\ud800", None, 17])
def test_bad_names(name: Any) -> None:
    """Nothing, blanks, control characters, 201 characters and other types are no names."""
    with pytest.raises(BadInput, match=r"tenant: .* is not a name of 1 to 200"):
        checked_name("tenant", name)
