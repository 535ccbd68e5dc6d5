"""Password hashing: Argon2id with the parameters that argon2-cffi recommends (RFC 9106, the low-memory set)."""

import functools
import unicodedata
from typing import TYPE_CHECKING

from handrail.kernel.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_LENGTH = 15
"""Characters of a password that is the only factor (NIST SP 800-63B-4, 3.1.1.2)."""
MAX_LENGTH = 1_000


def hash_password(password: str, name: str) -> str:
    """The hash to store for a password. It takes 64 MiB of memory and some 50 ms.

    Args:
        password: The password, in any Unicode form.
        name: The name that goes with it, which must not be the password.

    Returns:
        The hash, with its parameters and salt.

    Raises:
        BadInput: The password is too short, too long or too easy to guess.
        MissingExtra: argon2-cffi is not installed.
    """
    text = _normalize(password)
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        raise BadInput(f"the password has {len(text)} characters; use {MIN_LENGTH} to {MAX_LENGTH}")
    if len(set(text)) < 5 or name.casefold() == text.casefold():
        raise BadInput("the password is too easy to guess; use a few random words")
    return _hasher().hash(text)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether a password matches a stored hash.

    Args:
        password: What was typed.
        stored: The stored hash, or None for an unknown name: the answer is then False.
    """
    from argon2.exceptions import VerificationError

    # An unknown name costs one verification as well, so that response times do not tell which names exist.
    try:
        matches = _hasher().verify(stored or _dummy_hash(), _normalize(password[: MAX_LENGTH + 1]))
    except VerificationError:
        return False
    return matches and stored is not None


@functools.cache
def _hasher() -> "PasswordHasher":
    try:
        from argon2 import PasswordHasher
    except ModuleNotFoundError:
        raise MissingExtra("logging in with a password", "server") from None
    return PasswordHasher()


@functools.cache
def _dummy_hash() -> str:
    return _hasher().hash("the password of no user")


def _normalize(password: str) -> str:
    """The same text whatever keyboard it was typed on (NIST SP 800-63B-4 asks for NFKC or NFC)."""
    return unicodedata.normalize("NFKC", password)
