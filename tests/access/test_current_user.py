"""The name of the operating system's user."""

import getpass

import pytest

from handrail.access.current_user import system_user


@pytest.mark.parametrize("error", [ImportError, KeyError, OSError])
def test_a_system_without_user_names(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """If the system does not know the process's user, the name is None rather than an error."""

    def fail() -> str:
        raise error

    assert system_user() == getpass.getuser()
    monkeypatch.setattr(getpass, "getuser", fail)
    assert system_user() is None
