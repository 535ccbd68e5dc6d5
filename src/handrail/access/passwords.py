"""Passwords, kept as Argon2id hashes with the parameters that argon2-cffi recommends (RFC 9106, the low-memory set)."""

import functools
import unicodedata
from typing import TYPE_CHECKING

from handrail.kernel.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST = 15
"""Characters of a password that stands alone (NIST SP 800-63B-4, 3.1.1.2)."""
LONGEST = 1_000


def hash_password(password: str, name: str) -> str:
    """What is kept of a person's password; 64 MiB and some 50 ms. Raises BadInput for a weak one."""
    text = _normal(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise BadInput(f"the password has {len(text)} characters; it needs {SHORTEST} to {LONGEST}")
    if len(set(text)) < 5 or name.casefold() == text.casefold():
        raise BadInput("the password is too easy to guess; a few random words are better")
    return _hasher().hash(text)


def is_password(password: str, kept: str | None) -> bool:
    """Whether `password` is the one behind `kept`; where nothing is kept it takes as long, and is False."""
    from argon2.exceptions import VerificationError

    try:
        right = _hasher().verify(kept or _of_nobody(), _normal(password[: LONGEST + 1]))
    except VerificationError:
        return False
    return right and kept is not None


@functools.cache
def _hasher() -> "PasswordHasher":
    try:
        from argon2 import PasswordHasher
    except ModuleNotFoundError:
        raise MissingExtra("people with passwords", "server") from None
    return PasswordHasher()


@functools.cache
def _of_nobody() -> str:
    return _hasher().hash("the password of nobody at all")


def _normal(password: str) -> str:
    """The same text for every keyboard (NIST SP 800-63B-4 asks for NFKC or NFC)."""
    return unicodedata.normalize("NFKC", password)
