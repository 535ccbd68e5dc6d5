"""API keys: their format, what is stored of them, and the check of a key that was sent.

    hr_9k2mx4q7vd1t_5h0c...      `hr`, the key's public id, and 260 random bits, in Crockford's base 32

One round of SHA-256 is enough to store a key, since a random key cannot be guessed. Passwords can, hence `passwords`.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from handrail.kernel.errors import BadInput

from .errors import NotAllowed, WrongCredentials

KeyScope = Literal["ingest", "run", "read", "decide"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
"""What a key may do: send spans; run agents and give feedback; read; decide approvals on behalf of a named person."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 52
"""52 characters of 5 bits: 260 bits."""
_FORMAT = re.compile(f"hr_([{_ALPHABET}]{{{_ID_LENGTH}}})_[{_ALPHABET}]{{{_SECRET_LENGTH}}}")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as it is stored: its public id and a hash of its text.

    Attributes:
        tenant: The only tenant whose data it gives access to; None for every tenant.
        hash: The SHA-256 of the whole text, in hexadecimal.
        last_used_at: To the minute.
    """

    key_id: str
    tenant: str | None
    label: str
    scopes: frozenset[KeyScope]
    hash: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def prefix(self) -> str:
        """The beginning of the key's text, which lists show."""
        return f"hr_{self.key_id}"


def new_key(tenant: str | None, label: str, scopes: Collection[KeyScope], now: datetime) -> tuple[str, ApiKey]:
    """Creates a key.

    Args:
        tenant: The tenant whose data it gives access to; None for every tenant.
        label: What it is for, as lists show it.
        scopes: What it may do; at least one.
        now: The time of creation.

    Returns:
        The key's text, which is shown once and never stored, and what is stored.

    Raises:
        BadInput: There is no scope, or the tenant or label is not acceptable.
    """
    if not scopes:
        raise BadInput(f"a key needs at least one scope: {', '.join(SCOPES)}")
    key_id = _random(_ID_LENGTH)
    text = f"hr_{key_id}_{_random(_SECRET_LENGTH)}"
    key = ApiKey(
        key_id=key_id,
        tenant=None if tenant is None else check_name("tenant", tenant),
        label=check_name("label", label),
        scopes=frozenset(scopes),
        hash=_hash(text),
        created_at=now,
    )
    return text, key


def read_scopes(names: Iterable[str]) -> frozenset[KeyScope]:
    """The scopes with these names. Raises BadInput for an unknown name."""
    known = {scope: scope for scope in SCOPES}
    requested = list(names)
    if unknown := [name for name in requested if name not in known]:
        raise BadInput(f"{', '.join(unknown)} is not a scope; the scopes are {', '.join(SCOPES)}")
    return frozenset(known[name] for name in SCOPES if name in requested)


def parse_key_id(text: str) -> str | None:
    """The public id in a key's text, or None if the text does not have a key's format."""
    match = _FORMAT.fullmatch(text)
    return match and match[1]


def check_key(text: str, stored: ApiKey | None) -> ApiKey:
    """Checks a key that was sent against the stored one.

    Args:
        text: The whole text of the key.
        stored: The stored key with the same public id; None if there is none.

    Raises:
        WrongCredentials: The key is unknown, wrong or revoked.
    """
    # In constant time, and for an unknown id as well, so that timing reveals neither hashes nor which ids exist.
    matches = hmac.compare_digest(_hash(text), stored.hash if stored else _hash(""))
    if stored is None or not matches or stored.revoked_at is not None:
        raise WrongCredentials("this API key is unknown or revoked; `handrail keys list` lists the keys")
    return stored


def check_scope(scopes: Collection[KeyScope], needed: KeyScope) -> None:
    """Raises NotAllowed unless `needed` is among the key's `scopes`."""
    if needed not in scopes:
        granted = ", ".join(sorted(scopes)) or "none"
        raise NotAllowed(
            f"this request needs the scope {needed}; the key has {granted}. `handrail keys create` makes another key"
        )


def check_name(field: str, value: str) -> str:
    """Checks the name of a user or tenant, or the label of a key.

    Args:
        field: What the value is, for the error message.
        value: The name; 1 to 200 printable characters.

    Raises:
        BadInput: The value is blank, too long or not printable.
    """
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise BadInput(f"{field}: {value[:50]!r} is not valid; use 1 to 200 printable characters")
    return value


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
