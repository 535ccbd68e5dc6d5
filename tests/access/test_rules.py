"""API keys, passwords, roles and login throttling, as pure functions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.access.api_keys import check_key, check_scope, new_key, parse_key_id, read_scopes
from handrail.access.errors import NotAllowed, WrongCredentials
from handrail.access.login_throttle import (
    FORGET_AFTER,
    FREE_ATTEMPTS,
    LONGEST_WAIT,
    Subject,
    count_failure,
    next_attempt_at,
)
from handrail.access.passwords import MAX_LENGTH, MIN_LENGTH, hash_password, verify_password
from handrail.access.users import roles_of
from handrail.kernel.errors import BadInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS: tuple[Subject, ...] = ("name", "address")


def test_a_key_matches_only_itself() -> None:
    """The text of a key is accepted; that of another key, a changed one and an unknown one are not."""
    text, key = new_key("acme", "backend", ["run"], NOW)
    other, _ = new_key("acme", "backend", ["run"], NOW)
    assert check_key(text, key) == key
    assert (parse_key_id(text), text.startswith(key.prefix)) == (key.key_id, True)
    changed = text[:-1] + ("0" if text[-1] != "0" else "1")
    for wrong in (other, changed, text + "0", text.upper(), ""):
        with pytest.raises(WrongCredentials):
            check_key(wrong, key)
    with pytest.raises(WrongCredentials):
        check_key(text, None)


@given(st.text())
def test_other_text_is_not_a_key(text: str) -> None:
    """For any other text `parse_key_id` returns None and raises nothing."""
    assert parse_key_id(text) is None
    assert parse_key_id(f"hr_{text}") is None


def test_keys_are_random() -> None:
    """Keys created at the same time differ in id and secret, and a secret has 260 bits."""
    texts = [new_key("acme", "x", ["read"], NOW)[0] for _ in range(50)]
    assert len({text.split("_")[1] for text in texts}) == len({text.split("_")[2] for text in texts}) == 50
    assert {len(text.split("_")[2]) * 5 for text in texts} == {260}


@pytest.mark.parametrize(
    ("tenant", "label", "scopes"), [("", "x", ["run"]), ("acme", "\n", ["run"]), ("acme", "x", [])]
)
def test_a_key_needs_a_tenant_a_label_and_a_scope(tenant: str, label: str, scopes: list[str]) -> None:
    """A key without one of them is not created."""
    with pytest.raises(BadInput):
        new_key(tenant, label, read_scopes(scopes), NOW)


def test_scopes() -> None:
    """A key has the scopes it was given and no other; an unknown scope is refused by name."""
    check_scope({"run", "read"}, "read")
    with pytest.raises(NotAllowed, match="needs the scope decide"):
        check_scope({"run", "read"}, "decide")
    with pytest.raises(BadInput, match="admin is not a scope"):
        read_scopes(["run", "admin"])


def test_roles_come_from_the_settings() -> None:
    """A user has the roles that list their name."""
    roles = {"lead": ("ann", "bob"), "support": ("bob",), "empty": ()}
    assert roles_of("bob", roles) == {"lead", "support"}
    assert roles_of("eve", roles) == frozenset()


@pytest.mark.parametrize("password", ["x" * (MIN_LENGTH - 1), "aaaaaaaaaaaaaaaaaaaa", "x1y2z" * MAX_LENGTH, ""])
def test_weak_passwords_are_refused(password: str) -> None:
    """Passwords that are too short, too long or too simple are refused, and not repeated in the error."""
    with pytest.raises(BadInput) as caught:
        hash_password(password, "ann")
    assert not password or password not in str(caught.value)


def test_unicode_forms_of_a_password_are_equal() -> None:
    """The same characters in another Unicode form are the same password; anything else is not."""
    stored = hash_password("caf\u00e9 am See um halb", "ann")
    assert stored.startswith("$argon2id$")
    assert verify_password("cafe\u0301 am See um halb", stored)
    assert not verify_password("cafe am See um halb", stored)
    assert not verify_password("caf\u00e9 am See um halb", None)


@given(st.sampled_from(SUBJECTS), st.integers(0, 10_000))
def test_waits_grow_and_are_bounded(subject: Subject, failures: int) -> None:
    """The first failures cause no wait; later waits never get shorter and have an upper limit."""
    wait = next_attempt_at(subject, failures, NOW) - NOW
    assert (wait == timedelta(0)) == (failures < FREE_ATTEMPTS[subject])
    assert wait <= next_attempt_at(subject, failures + 1, NOW) - NOW <= LONGEST_WAIT


@given(st.sampled_from(SUBJECTS), st.integers(1, 3_000))
def test_guesses_per_day_are_limited(subject: Subject, pace_seconds: int) -> None:
    """At any pace of guessing, few more than the free attempts are allowed within a day."""
    failures, last, allowed = 0, NOW, 0
    attempt_at = NOW
    while attempt_at < NOW + timedelta(days=1):
        if next_attempt_at(subject, failures, last) <= attempt_at:
            failures, last, allowed = (
                count_failure(failures, last, attempt_at) if failures else 1,
                attempt_at,
                allowed + 1,
            )
            attempt_at = max(attempt_at + timedelta(seconds=pace_seconds), next_attempt_at(subject, failures, last))
        else:
            attempt_at = next_attempt_at(subject, failures, last)
    assert allowed <= FREE_ATTEMPTS[subject] + 11 + timedelta(days=1) // LONGEST_WAIT


def test_failures_are_forgotten() -> None:
    """After a day without a failure the count starts again."""
    assert count_failure(9, NOW, NOW + FORGET_AFTER) == 1
    assert count_failure(9, NOW, NOW + FORGET_AFTER - timedelta(microseconds=1)) == 10
