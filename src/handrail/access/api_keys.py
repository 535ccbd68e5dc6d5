"""API keys: what one looks like, what is kept of it, and whether it opens the door.

    hr_9k2mx4q7vd1t_5h0c...      `hr`, the key's public id, and 256 random bits, in Crockford's base 32

A key is random, so that one round of SHA-256 guards it: there is nothing to guess. Passwords are another matter.
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

Scope = Literal["ingest", "run", "read", "decide"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may do: send spans; run agents and judge runs; read; decide approvals in the name of whom it says."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 52
"""52 characters of 5 bits: 260."""
_SHAPE = re.compile(f"hr_([{_ALPHABET}]{{{_ID_LENGTH}}})_[{_ALPHABET}]{{{_SECRET_LENGTH}}}")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as it is kept: of its text only the id and a hash. A `tenant` of None means every tenant."""

    key_id: str
    tenant: str | None
    label: str
    scopes: frozenset[Scope]
    hash: str
    made_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def prefix(self) -> str:
        """What lists show of the key, and its owner can compare."""
        return f"hr_{self.key_id}"


def new_key(tenant: str | None, label: str, scopes: Collection[Scope], now: datetime) -> tuple[str, ApiKey]:
    """A key's text, which is shown once and never kept, and what is kept of it. Raises BadInput."""
    if not scopes:
        raise BadInput(f"a key without a scope opens nothing; give it some of {', '.join(SCOPES)}")
    key_id = _random(_ID_LENGTH)
    text = f"hr_{key_id}_{_random(_SECRET_LENGTH)}"
    kept = ApiKey(
        key_id=key_id,
        tenant=None if tenant is None else checked("tenant", tenant),
        label=checked("label", label),
        scopes=frozenset(scopes),
        hash=_hash(text),
        made_at=now,
    )
    return text, kept


def read_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of these names. Raises BadInput for one that is none."""
    known = {scope: scope for scope in SCOPES}
    given = list(names)
    if unknown := [name for name in given if name not in known]:
        raise BadInput(f"{', '.join(unknown)} is not a scope; there are {', '.join(SCOPES)}")
    return frozenset(known[name] for name in SCOPES if name in given)


def key_id_of(text: str) -> str | None:
    """The public id in a key's text; None where the text is no key."""
    shape = _SHAPE.fullmatch(text)
    return shape and shape[1]


def check_key(text: str, kept: ApiKey | None) -> ApiKey:
    """The key that `text` is. Raises WrongCredentials for one that is unknown, wrong or revoked."""
    right = hmac.compare_digest(_hash(text), kept.hash if kept else _hash(""))
    if kept is None or not right or kept.revoked_at is not None:
        raise WrongCredentials("this API key is unknown or revoked; `handrail keys list` shows those that are in force")
    return kept


def check_scope(scopes: Collection[Scope], needed: Scope) -> None:
    """Raises NotAllowed unless `needed` is among `scopes`."""
    if needed not in scopes:
        has = ", ".join(sorted(scopes)) or "nothing"
        raise NotAllowed(
            f"this needs the scope {needed}, and the key is for {has}; make another: `handrail keys create`"
        )


def checked(what: str, found: str) -> str:
    """`found` as the name of a person, a tenant or a key: 1 to 200 printable characters. Raises BadInput."""
    if not found.strip() or len(found) > 200 or not found.isprintable():
        raise BadInput(f"{what}: {found[:50]!r} is not a name of 1 to 200 printable characters")
    return found


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
