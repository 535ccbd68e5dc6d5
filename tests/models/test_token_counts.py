"""Usage is checked before it is booked: what is not credible is what was held."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.usage import RequestUsage

from handrail.models.token_counts import MAX_COUNT, checked_usage

HELD_INPUT, HELD_OUTPUT = 700, 300
COUNTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "cache_audio_read_tokens",
    "output_tokens",
    "output_reasoning_tokens",
    "output_audio_tokens",
)


def used(**counts: Any) -> RequestUsage:
    return RequestUsage(**{"input_tokens": 100, "output_tokens": 50, **counts})


@pytest.mark.parametrize(
    "usage",
    [
        used(),
        used(cache_read_tokens=40, cache_write_tokens=60, cache_write_1h_tokens=60, output_reasoning_tokens=50),
        used(input_audio_tokens=100, cache_read_tokens=10, cache_audio_read_tokens=10, output_audio_tokens=5),
        used(input_tokens=MAX_COUNT, output_tokens=MAX_COUNT),
    ],
)
def test_credible_usage_is_booked_as_reported(usage: RequestUsage) -> None:
    """Usage whose parts fit into their wholes is what is booked."""
    checked = checked_usage(usage, HELD_INPUT, HELD_OUTPUT, has_content=True)
    assert checked.usage == usage
    assert not checked.estimated


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": 0},
        {"input_tokens": -5},
        {"input_tokens": MAX_COUNT + 1},
        {"input_tokens": 100.5},
        {"input_tokens": True},
        {"cache_read_tokens": 101},
        {"cache_read_tokens": -1},
        {"cache_write_tokens": 101},
        {"cache_read_tokens": 60, "cache_write_tokens": 60},
        {"cache_write_tokens": 10, "cache_write_1h_tokens": 11},
        {"cache_write_1h_tokens": 1},
        {"input_audio_tokens": 101},
        {"cache_audio_read_tokens": 1},
    ],
)
def test_input_that_cannot_be_is_what_was_held(counts: dict[str, Any]) -> None:
    """Input counts that are missing, negative, absurd or contradict each other are replaced, output is kept."""
    checked = checked_usage(used(**counts), HELD_INPUT, HELD_OUTPUT, has_content=True)
    assert (checked.usage.input_tokens, checked.usage.output_tokens) == (HELD_INPUT, 50)
    assert checked.usage.cache_read_tokens == checked.usage.cache_write_tokens == checked.usage.input_audio_tokens == 0
    assert checked.estimated


@pytest.mark.parametrize(
    "counts",
    [
        {"output_tokens": 0},
        {"output_tokens": -1},
        {"output_tokens": MAX_COUNT + 1},
        {"output_tokens": None},
        {"output_reasoning_tokens": 51},
        {"output_reasoning_tokens": -1},
        {"output_audio_tokens": 51},
    ],
)
def test_output_that_cannot_be_is_what_was_held(counts: dict[str, Any]) -> None:
    """Output counts that are missing, negative, absurd or contradict each other are replaced, input is kept."""
    checked = checked_usage(used(**counts), HELD_INPUT, HELD_OUTPUT, has_content=True)
    assert (checked.usage.input_tokens, checked.usage.output_tokens) == (100, HELD_OUTPUT)
    assert checked.usage.output_reasoning_tokens == checked.usage.output_audio_tokens == 0
    assert checked.estimated


def test_no_output_without_content() -> None:
    """A response without content can have had no output."""
    checked = checked_usage(used(output_tokens=0), HELD_INPUT, HELD_OUTPUT, has_content=False)
    assert checked.usage.output_tokens == 0
    assert not checked.estimated


@pytest.mark.parametrize("has_content", [True, False])
def test_no_usage_at_all(has_content: bool) -> None:
    """A response that reports nothing is booked as it was held, empty or not."""
    checked = checked_usage(RequestUsage(), HELD_INPUT, HELD_OUTPUT, has_content=has_content)
    assert (checked.usage.input_tokens, checked.usage.output_tokens) == (HELD_INPUT, HELD_OUTPUT)
    assert checked.estimated


def test_the_reported_usage_stays_as_it_is() -> None:
    """Checking changes nothing in the response itself."""
    usage = used(input_tokens=-5)
    checked_usage(usage, HELD_INPUT, HELD_OUTPUT, has_content=True)
    assert usage == used(input_tokens=-5)


@given(st.dictionaries(st.sampled_from(COUNTS), st.integers() | st.floats() | st.none()), st.booleans())
def test_checked_usage_is_consistent(counts: dict[str, Any], has_content: bool) -> None:
    """Whatever is reported, what is booked has no negative count and no part that exceeds its whole."""
    usage = checked_usage(RequestUsage(**counts), HELD_INPUT, HELD_OUTPUT, has_content=has_content).usage
    assert all(0 <= getattr(usage, name) <= MAX_COUNT for name in COUNTS)
    assert usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert max(usage.output_reasoning_tokens, usage.output_audio_tokens) <= usage.output_tokens
