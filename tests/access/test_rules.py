"""The rules of who may come in, as pure functions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.access.api_keys import check_key, check_scope, key_id_of, new_key, read_scopes
from handrail.access.errors import NotAllowed, WrongCredentials
from handrail.access.login_throttle import FORGOTTEN, FREE, LONGEST_WAIT, Subject, counted, retry_at
from handrail.access.passwords import LONGEST, SHORTEST, hash_password, is_password
from handrail.access.users import roles_of
from handrail.kernel.errors import BadInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS: tuple[Subject, ...] = ("name", "address")


def test_a_key_opens_only_itself() -> None:
    """The text of a key is accepted; another's, a changed one, and one that is unknown or revoked are not."""
    text, key = new_key("acme", "backend", ["run"], NOW)
    other, _ = new_key("acme", "backend", ["run"], NOW)
    assert check_key(text, key) == key
    assert (key_id_of(text), text.startswith(key.prefix)) == (key.key_id, True)
    changed = text[:-1] + ("0" if text[-1] != "0" else "1")
    for wrong in (other, changed, text + "0", text.upper(), ""):
        with pytest.raises(WrongCredentials):
            check_key(wrong, key)
    with pytest.raises(WrongCredentials):
        check_key(text, None)


@given(st.text())
def test_most_texts_are_no_key(text: str) -> None:
    """Whatever text comes in the place of a key, it is told from one without an error."""
    assert key_id_of(text) is None
    assert key_id_of(f"hr_{text}") is None


def test_keys_are_random() -> None:
    """Two keys made at one moment share neither their id nor their secret, and the secret has at least 256 bits."""
    texts = [new_key("acme", "x", ["read"], NOW)[0] for _ in range(50)]
    assert len({text.split("_")[1] for text in texts}) == len({text.split("_")[2] for text in texts}) == 50
    assert {len(text.split("_")[2]) * 5 for text in texts} == {260}


@pytest.mark.parametrize(
    ("tenant", "label", "scopes"), [("", "x", ["run"]), ("acme", "\n", ["run"]), ("acme", "x", [])]
)
def test_a_key_needs_a_tenant_a_label_and_a_scope(tenant: str, label: str, scopes: list[str]) -> None:
    """A key without one of them is not made."""
    with pytest.raises(BadInput):
        new_key(tenant, label, read_scopes(scopes), NOW)


def test_scopes() -> None:
    """A key does what its scopes name and nothing else; an unknown scope is refused by name."""
    check_scope({"run", "read"}, "read")
    with pytest.raises(NotAllowed, match="needs the scope decide"):
        check_scope({"run", "read"}, "decide")
    with pytest.raises(BadInput, match="admin is not a scope"):
        read_scopes(["run", "admin"])


def test_roles_come_from_the_settings() -> None:
    """A person has the roles whose people name them."""
    roles = {"lead": ("ann", "bob"), "support": ("bob",), "empty": ()}
    assert roles_of("bob", roles) == {"lead", "support"}
    assert roles_of("eve", roles) == frozenset()


@pytest.mark.parametrize("password", ["x" * (SHORTEST - 1), "aaaaaaaaaaaaaaaaaaaa", "x1y2z" * LONGEST, ""])
def test_weak_passwords_are_refused(password: str) -> None:
    """Too short, too long and too simple passwords are not taken, and not repeated in the error."""
    with pytest.raises(BadInput) as caught:
        hash_password(password, "ann")
    assert not password or password not in str(caught.value)


def test_a_password_is_recognised_however_it_was_typed() -> None:
    """The same characters in another Unicode form are the same password; anything else is not; nobody has none."""
    kept = hash_password("caf\u00e9 am See um halb", "ann")
    assert kept.startswith("$argon2id$")
    assert is_password("cafe\u0301 am See um halb", kept)
    assert not is_password("cafe am See um halb", kept)
    assert not is_password("caf\u00e9 am See um halb", None)


@given(st.sampled_from(SUBJECTS), st.integers(0, 10_000))
def test_waits_grow_and_are_bounded(subject: Subject, failures: int) -> None:
    """The first failures cost nothing, each later one at least as much as the one before, none above the longest."""
    wait = retry_at(subject, failures, NOW) - NOW
    assert (wait == timedelta(0)) == (failures < FREE[subject])
    assert wait <= retry_at(subject, failures + 1, NOW) - NOW <= LONGEST_WAIT


@given(st.sampled_from(SUBJECTS), st.integers(1, 3_000))
def test_a_day_of_guessing_gives_few_guesses(subject: Subject, pace_seconds: int) -> None:
    """However a guesser paces their tries, no more than a handful over the free ones are heard within a day."""
    failures, last, heard = 0, NOW, 0
    moment = NOW
    while moment < NOW + timedelta(days=1):
        if retry_at(subject, failures, last) <= moment:
            failures, last, heard = counted(failures, last, moment) if failures else 1, moment, heard + 1
            moment = max(moment + timedelta(seconds=pace_seconds), retry_at(subject, failures, last))
        else:
            moment = retry_at(subject, failures, last)
    assert heard <= FREE[subject] + 11 + timedelta(days=1) // LONGEST_WAIT


def test_failures_are_forgotten() -> None:
    """After a day without a failure the count begins anew."""
    assert counted(9, NOW, NOW + FORGOTTEN) == 1
    assert counted(9, NOW, NOW + FORGOTTEN - timedelta(microseconds=1)) == 10
